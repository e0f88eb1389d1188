"""Quantised releases: dequantised values against float64 references written out here, and every refusal."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import gaussian, write_checkpoint

import spectrum
from spectrum.checkpoint import Checkpoint, fingerprint
from spectrum.checkpoint.disk import DiskSource
from spectrum.checkpoint.files import find_files
from spectrum.errors import CheckpointError

ROUNDING = 2.0**-24  # one rounding to float32, relative
FP4 = [0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6]
NAME = "model.layers.0.mlp.down_proj.weight"
MODULE = NAME.removesuffix(".weight")


# --- what a test writes to disk, and what it should be read as ---


def fp8(shape, *, seed=0, dtype=torch.float8_e4m3fn):
    """Random bytes as FP8, none of them a NaN or an infinity."""
    codes = np.arange(256, dtype=np.uint8)
    finite = codes[torch.from_numpy(codes).view(dtype).float().isfinite().numpy()]
    return torch.from_numpy(np.random.default_rng(seed).choice(finite, shape)).view(dtype)


def scales_of(shape, *, seed=1):
    return torch.from_numpy(np.random.default_rng(seed).uniform(0.001, 0.1, shape).astype(np.float32))


def octets(shape, *, low=0, high=256, seed=2):
    return torch.from_numpy(np.random.default_rng(seed).integers(low, high, shape).astype(np.uint8))


def small_float(codes, *, exponent_bits=4, bias=7):
    """Values of 8-bit floats from their bits, in float64."""
    bits = codes.view(torch.uint8).numpy().astype(np.int64)
    mantissa_bits = 7 - exponent_bits
    exponent = (bits >> mantissa_bits) & (2**exponent_bits - 1)
    fraction = (bits & (2**mantissa_bits - 1)) / 2**mantissa_bits
    size = np.where(exponent == 0, fraction * 2.0 ** (1 - bias), (1 + fraction) * 2.0 ** (exponent - bias))
    return np.where(bits & 128, -size, size)


def blockwise(codes, scales, rows, cols):
    """Each code times the scale of its block of rows x cols, in float64."""
    i, j = np.ogrid[: codes.shape[-2], : codes.shape[-1]]
    return small_float(codes) * scales.double().numpy()[..., i // rows, j // cols]


def fp4_values(packed):
    """(..., 2 x bytes) float64: the low half of a byte stands before the high half."""
    packed = packed.view(torch.uint8).numpy()
    values = np.empty((*packed.shape[:-1], 2 * packed.shape[-1]))
    values[..., 0::2] = np.take(FP4, packed % 16)
    values[..., 1::2] = np.take(FP4, packed // 16)
    return values


def mxfp4(blocks, scales):
    """The experts of gpt-oss in float64, (experts, 32 groups, out)."""
    experts, out, groups, _ = blocks.shape
    values = fp4_values(blocks) * 2.0 ** (scales.numpy().astype(np.float64) - 127)[..., None]
    return values.reshape(experts, out, groups * 32).transpose(0, 2, 1)


class _Noting(DiskSource):
    """Files on disk; notes (shard, offset, length) of every read."""

    def __init__(self, folder, shards):
        super().__init__(folder, shards)
        self.noted = []

    def read(self, shard, offset, buffer):
        self.noted.append((shard, offset, len(buffer)))
        super().read(shard, offset, buffer)


@pytest.fixture
def opened(tmp_path):
    """Write a checkpoint, every tensor in a shard of its own, and open it: (what notes its reads, checkpoint)."""
    checkpoints = []

    def _open(tensors, *, config=None):
        shards = {f"{number}.safetensors": {name: tensor} for number, (name, tensor) in enumerate(tensors.items())}
        files = find_files(write_checkpoint(tmp_path / f"m{len(checkpoints)}", shards, config=config))
        source = _Noting(files.folder, files.shards)
        checkpoints.append(Checkpoint(files, source))
        return source, checkpoints[-1]

    yield _open
    for checkpoint in checkpoints:
        checkpoint.close()


def block_config(*size):
    return {"quantization_config": {"quant_method": "fp8", "weight_block_size": list(size)}}


def assert_near(values, reference):
    """Float32 that differs from the float64 reference by its own rounding only."""
    assert values.dtype == torch.float32
    np.testing.assert_allclose(values.numpy(), reference, rtol=ROUNDING, atol=0)


def assert_equal(values, reference):
    assert values.dtype == torch.float32
    np.testing.assert_array_equal(values.numpy(), reference)


# --- FP8 ---


@pytest.mark.parametrize(
    "shape, grid",
    [((256, 384), (2, 3)), ((576, 256), (5, 2)), ((200, 300), (2, 3)), ((1, 129), (1, 2)), ((50, 60), (1, 1))],
)
def test_block_scales(opened, shape, grid):
    """Blocks of 128 x 128, also where rows or columns are no multiple, as the 576 rows of kv_a_proj_with_mqa."""
    codes, scales = fp8(shape), scales_of(grid)
    _, checkpoint = opened({NAME: codes, NAME + "_scale_inv": scales}, config=block_config(128, 128))
    assert list(checkpoint.tensors) == [NAME]
    tensor = checkpoint.tensors[NAME]
    assert (tensor.dtype, tensor.shape, tensor.stored_as) == ("F32", shape, "F8_E4M3")
    assert_near(checkpoint.read(NAME), blockwise(codes, scales, 128, 128))


def test_block_size_of_the_config(opened):
    """Blocks that are not square, of a size that the config tells, in the config of the text model too."""
    codes, scales = fp8((200, 100)), scales_of((4, 5))
    tensors = {NAME: codes, NAME + "_scale_inv": scales}
    for config in (block_config(64, 24), {"text_config": block_config(64, 24)}):
        assert_near(opened(tensors, config=config)[1].read(NAME), blockwise(codes, scales, 64, 24))


def test_block_size_of_the_config_comes_first(opened):
    """Two scales a row for 64 columns: the config says 48 and 16, not 32 and 32 as in MXFP8."""
    codes, scales = fp8((10, 64)), scales_of((10, 2))
    _, checkpoint = opened({NAME: codes, NAME + "_scale_inv": scales}, config=block_config(1, 48))
    assert_near(checkpoint.read(NAME), blockwise(codes, scales, 1, 48))


@pytest.mark.parametrize("rows", [(0, 576), (0, 1), (100, 140), (127, 385), (128, 256), (512, 576), (575, 576), (9, 9)])
def test_rows_of_blocks(opened, rows):
    """Any range of rows is bit for bit what the whole tensor has there."""
    tensors = {NAME: fp8((576, 256)), NAME + "_scale_inv": scales_of((5, 2))}
    _, checkpoint = opened(tensors)
    part = checkpoint.read(NAME, *rows)
    assert part.shape == (rows[1] - rows[0], 256)
    assert torch.equal(part, checkpoint.read(NAME)[slice(*rows)])
    assert torch.equal(checkpoint.read(NAME, rows[0]), checkpoint.read(NAME)[rows[0] :])


def _noted(source, checkpoint):
    """(tensor, offset in it, length) of every read since the last call."""
    owners = {tensor.shard: tensor for tensor in checkpoint.stored_tensors.values()}
    noted = [(owners[shard].name, offset - owners[shard].start, length) for shard, offset, length in source.noted]
    source.noted.clear()
    return noted


def test_reads_only_the_bytes_of_the_rows(opened):
    """Of ten rows in the second block: ten rows of codes and one row of scales."""
    source, checkpoint = opened({NAME: fp8((576, 256)), NAME + "_scale_inv": scales_of((5, 2))})
    source.noted.clear()
    checkpoint.read(NAME, 130, 140)
    assert _noted(source, checkpoint) == [(NAME, 130 * 256, 10 * 256), (NAME + "_scale_inv", 2 * 4, 2 * 4)]


@pytest.mark.parametrize("leaf", ["weight_scale_inv", "weight_scale", "scale", "qscale_weight"])
def test_names_of_scales(opened, leaf):
    """Each name that releases give the scale is found, and the scales of activations are left out."""
    codes, scales = fp8((130, 70)), scales_of((2, 1))
    plain = {"model.norm.weight": torch.ones(8), "model.layers.0.self_attn.k_scale": torch.ones(1)}
    beside = ["activation_scale", "input_scale", "input_scale_ub", "output_scale", "qscale_act"]
    tensors = {f"{MODULE}.{leaf}": scales, NAME: codes} | {f"{MODULE}.{name}": torch.ones(1) for name in beside} | plain
    _, checkpoint = opened(tensors)
    assert set(checkpoint.tensors) == {NAME, *plain}
    assert_near(checkpoint.read(NAME), blockwise(codes, scales, 128, 128))
    assert checkpoint.tensors["model.norm.weight"].stored_as is None
    assert torch.equal(checkpoint.read("model.norm.weight", 2, 4), torch.ones(2))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float8_e8m0fnu])
def test_exponents_as_scales(opened, dtype):
    """Scales of one byte are powers of two, exact over their whole range; 255 is no number."""
    codes = torch.full((256, 32), 1.0).to(torch.float8_e4m3fn)
    exponents = torch.arange(256, dtype=torch.uint8)[:, None]
    _, checkpoint = opened({NAME: codes, NAME + "_scale_inv": exponents.view(dtype)}, config=block_config(1, 32))
    values = checkpoint.read(NAME)
    assert_equal(values[:255], np.repeat(2.0 ** (np.arange(255.0) - 127), 32).reshape(255, 32))
    assert values[255].isnan().all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_short_scales_are_exact(opened, dtype):
    """A code times a 16-bit scale needs no rounding in float32."""
    codes, scales = fp8((64, 48)), scales_of((64, 1)).to(dtype)
    _, checkpoint = opened({NAME: codes, MODULE + ".weight_scale": scales})
    assert_equal(checkpoint.read(NAME), blockwise(codes, scales, 1, 48))


@pytest.mark.parametrize(
    "grid, rows, cols",
    [
        ((), 96, 160),
        ((1,), 96, 160),
        ((1, 1), 96, 160),
        ((96,), 1, 160),
        ((96, 1), 1, 160),
        ((1, 160), 96, 1),
        ((96, 5), 1, 32),
    ],
)
def test_scales_of_tensors_rows_columns_and_groups(opened, grid, rows, cols):
    """One scale a tensor, a row (compressed-tensors, fbgemm), a column, or 32 columns (MXFP8): the shape tells."""
    codes, scales = fp8((96, 160)), scales_of(grid)
    _, checkpoint = opened({NAME: codes, MODULE + ".weight_scale": scales})
    full = scales.reshape(-(-96 // rows), -(-160 // cols))
    assert_near(checkpoint.read(NAME), blockwise(codes, full, rows, cols))
    assert torch.equal(checkpoint.read(NAME, 31, 77), checkpoint.read(NAME)[31:77])


@pytest.mark.parametrize(
    "grid, rows, cols",
    [
        ((), 200, 150),
        ((3,), 200, 150),
        ((3, 1, 1), 200, 150),
        ((3, 200, 1), 1, 150),
        ((3, 200), 1, 150),
        ((3, 1, 150), 200, 1),
        ((3, 2, 2), 128, 128),
    ],
)
def test_stacked_experts(opened, grid, rows, cols):
    """A stack of experts with a stack of scales, under a name without `.weight`; one expert is read alone."""
    name = "model.layers.3.mlp.experts.gate_up_proj"
    codes, scales = fp8((3, 200, 150)), scales_of(grid)
    tensors = {name: codes, name + "_scale_inv": scales, name + "_activation_scale": torch.ones(3)}
    _, checkpoint = opened(tensors)
    assert list(checkpoint.tensors) == [name]
    full = scales.expand(3) if grid == () else scales
    reference = blockwise(codes, full.reshape(3, -(-200 // rows), -(-150 // cols)), rows, cols)
    assert_near(checkpoint.read(name), reference)
    assert_near(checkpoint.read(name, 1, 2), reference[1:2])


def test_stacked_experts_that_are_wide(opened):
    """A scale for each row of experts with more columns than rows."""
    codes, scales = fp8((2, 40, 90)), scales_of((2, 40, 1))
    _, checkpoint = opened({"x.experts.down_proj": codes, "x.experts.down_proj_scale": scales})
    assert_near(checkpoint.read("x.experts.down_proj"), blockwise(codes, scales, 1, 90))


@pytest.mark.parametrize(
    "dtype, exponent_bits, bias",
    [("e4m3fn", 4, 7), ("e5m2", 5, 15), ("e4m3fnuz", 4, 8), ("e5m2fnuz", 5, 16)],
)
def test_every_eight_bit_float(opened, dtype, exponent_bits, bias):
    """Each FP8 dtype that safetensors knows is decoded from its own bits."""
    codes = fp8((40, 50), dtype=getattr(torch, f"float8_{dtype}"))
    _, checkpoint = opened({NAME: codes, MODULE + ".weight_scale": torch.tensor(0.5)})
    assert_equal(checkpoint.read(NAME), 0.5 * small_float(codes, exponent_bits=exponent_bits, bias=bias))
    assert checkpoint.tensors[NAME].stored_as == f"F8_{dtype.removesuffix('fn').upper()}"


def test_agrees_with_transformers_on_whole_blocks():
    """Where blocks divide the shape, transformers' own dequantiser must give the same numbers as the reference here."""
    from transformers.integrations.finegrained_fp8 import Fp8Dequantize

    codes, scales = fp8((256, 384)), scales_of((2, 3))
    assert_near(Fp8Dequantize(None)._dequantize_one(codes, scales), blockwise(codes, scales, 128, 128))


# --- MXFP4 ---


def test_mxfp4_experts(opened):
    """gpt-oss' packed experts: named, shaped and transposed as transformers has them, exact in float32."""
    from transformers.integrations.mxfp4 import convert_moe_packed_tensors

    name = "model.layers.0.mlp.experts.gate_up_proj"
    blocks, scales = octets((3, 40, 2, 16)), octets((3, 40, 2), low=110, high=140)
    bias = torch.zeros(3, 40, dtype=torch.bfloat16)
    tensors = {name + "_blocks": blocks, name + "_bias": bias, name + "_scales": scales}
    _, checkpoint = opened(tensors, config={"quantization_config": {"quant_method": "mxfp4"}})
    assert set(checkpoint.tensors) == {name, name + "_bias"}
    tensor = checkpoint.tensors[name]
    assert (tensor.dtype, tensor.shape, tensor.stored_as) == ("F32", (3, 64, 40), "MXFP4")
    assert_equal(checkpoint.read(name), mxfp4(blocks, scales))
    assert torch.equal(checkpoint.read(name), convert_moe_packed_tensors(blocks, scales, dtype=torch.float32))
    assert_equal(checkpoint.read(name, 1, 2), mxfp4(blocks, scales)[1:2])


def test_reads_only_the_bytes_of_the_expert(opened):
    """Of one expert: its blocks and its scales."""
    source, checkpoint = opened(
        {"x.experts.w_blocks": octets((3, 40, 2, 16)), "x.experts.w_scales": octets((3, 40, 2))}
    )
    source.noted.clear()
    checkpoint.read("x.experts.w", 2, 3)
    assert [length for _, _, length in _noted(source, checkpoint)] == [40 * 2 * 16, 40 * 2]


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8])
def test_mxfp4_beside_its_scale(opened, dtype):
    """DeepSeek-V4's experts: two values a byte, exponents beside them, not transposed; as transformers unpacks them."""
    from transformers.integrations.finegrained_fp8 import Fp8Dequantize

    packed, exponents = octets((48, 32)).view(dtype), octets((48, 2), low=110, high=140)
    tensors = {NAME: packed, MODULE + ".scale": exponents.view(torch.float8_e8m0fnu)}
    _, checkpoint = opened(tensors)
    reference = fp4_values(packed) * np.repeat(2.0 ** (exponents.numpy().astype(np.float64) - 127), 32, axis=1)
    tensor = checkpoint.tensors[NAME]
    assert (tensor.shape, tensor.stored_as) == ((48, 64), "MXFP4")
    assert_equal(checkpoint.read(NAME), reference)
    assert_equal(checkpoint.read(NAME, 10, 20), reference[10:20])
    theirs = Fp8Dequantize(None)._dequantize_one(packed.view(torch.int8), exponents, torch.float32)
    assert torch.equal(checkpoint.read(NAME), theirs)


# --- the checkpoint around them ---


def test_the_stored_tensors_stay_at_hand(opened):
    """The headers' own tensors are kept, and the fingerprint is over them: a scale that changes changes it."""
    tensors = {NAME: fp8((64, 64)), MODULE + ".weight_scale": torch.tensor(0.5)}
    _, checkpoint = opened(tensors, config={"model_type": "llama"})
    assert checkpoint.stored_tensors.keys() == tensors.keys()
    _, other = opened(tensors | {MODULE + ".weight_scale": torch.tensor(0.25)})
    assert fingerprint(checkpoint).headers == fingerprint(other).headers
    assert fingerprint(checkpoint).content != fingerprint(other).content


def test_closes_the_files(opened):
    """The `with` statement does."""
    _, checkpoint = opened({NAME: fp8((64, 64)), MODULE + ".weight_scale": torch.tensor(0.5)})
    with checkpoint as entered:
        assert entered is checkpoint
    with pytest.raises(ValueError, match="closed file"):
        checkpoint.read(NAME)


def test_rows_that_do_not_exist(opened):
    """A range beyond the tensor is a bug of the caller, as with plain tensors."""
    _, checkpoint = opened({NAME: fp8((64, 64)), MODULE + ".weight_scale": torch.tensor(0.5)})
    for rows in ((3, 65), (-1, 5), (6, 5)):
        with pytest.raises(ValueError, match=f"rows {rows[0]} to {rows[1]} of a tensor with 64"):
            checkpoint.read(NAME, *rows)


@pytest.mark.parametrize(
    "method", [None, "gptq", "awq", "fp8", "mxfp4", "compressed-tensors", "bitsandbytes", "torchao"]
)
def test_plain_weights_are_left_alone(opened, method):
    """Floats and ordinary integer buffers: the checkpoint itself, whatever quantisation an old config speaks of."""
    tensors = {
        NAME: gaussian(40, 40, seed=1, dtype=torch.bfloat16),
        "model.layers.0.ffn.gate.tid2eid": torch.zeros(50, 6, dtype=torch.int32),
        "model.vision.embeddings.position_ids": torch.arange(9)[None],
        "model.vision.attn.relative_position_index": torch.zeros(9, 9, dtype=torch.int64),
        "h.0.attn.bias": torch.ones(1, 1, 9, 9, dtype=torch.uint8),
        "h.0.attn.masked": torch.ones(1, 1, 9, 9, dtype=torch.bool),
        "bn.num_batches_tracked": torch.tensor(3),
        "model.layers.0.experts.counts": torch.zeros(4, dtype=torch.int32),
        "model.layers.0.scale": torch.ones(1),
        "model.layers.0.attn.W_q": gaussian(40, 40, seed=2),
        "model.layers.0.q_l2_clip.scale": torch.ones(40),
        "flow.x_blocks": torch.ones(2, 3, 4, 16),
        "flow.x_scales": torch.ones(2, 3, 4),
    }
    _, checkpoint = opened(tensors, config={"quantization_config": {"quant_method": method}} if method else None)
    assert checkpoint.tensors == checkpoint.stored_tensors


def test_a_table_of_integers_is_no_weight(opened):
    """Where no config speaks of quantisation, integers under a name that no format uses are a buffer."""
    tensors = {NAME: gaussian(40, 40, seed=1), "model.layers.0.attn.lookup": torch.zeros(9, 9, dtype=torch.int32)}
    _, checkpoint = opened(tensors)
    assert checkpoint.tensors == checkpoint.stored_tensors


def test_torch_is_not_imported_before_a_read(opened):
    """What plans from headers must not wait for torch."""
    _, checkpoint = opened({NAME: fp8((64, 64)), MODULE + ".weight_scale": torch.tensor(0.5)})
    code = (
        "import sys\n"
        "from spectrum.checkpoint import open_checkpoint\n"
        "tensor, = open_checkpoint(sys.argv[1]).tensors.values()\n"
        "assert tensor.dtype == 'F32' and 'torch' not in sys.modules\n"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(spectrum.__file__).parents[1])}
    subprocess.run([sys.executable, "-c", code, str(checkpoint.folder)], check=True, env=environment)


# --- contradictions ---


@pytest.mark.parametrize("grid", [(4, 2), (2, 5), (5, 3), (576, 2), (2,), (1, 5, 2), (256, 1)])
def test_scales_that_do_not_fit(opened, grid):
    """A grid that no reading of the shapes explains is an error that names both tensors."""
    with pytest.raises(CheckpointError) as error:
        opened({NAME: fp8((576, 256)), NAME + "_scale_inv": scales_of(grid)}, config=block_config(128, 128))
    assert str(error.value) == (
        f"Tensor '{NAME}_scale_inv' of 'm0' has shape {list(grid)}, expected [5, 2]: '{NAME}' is [576, 256], in blocks "
        "of 128 x 128. Download the checkpoint and its config.json again."
    )


def test_block_size_that_the_scales_deny(opened):
    """Scales for blocks of 128 under a config that says 64."""
    with pytest.raises(CheckpointError, match=r"expected \[9, 4\]: .* in blocks of 64 x 64"):
        opened({NAME: fp8((576, 256)), NAME + "_scale_inv": scales_of((5, 2))}, config=block_config(64, 64))


@pytest.mark.parametrize("size", [[128], [128, 0], [128, "128"], [128, True], "128", 128, {}])
def test_block_size_that_is_none(opened, size):
    """A weight_block_size that is no pair of positive numbers."""
    config = {"quantization_config": {"weight_block_size": size}}
    with pytest.raises(CheckpointError, match="as weight_block_size, which is not a pair of positive numbers"):
        opened({NAME: fp8((576, 256)), NAME + "_scale_inv": scales_of((5, 2))}, config=config)


@pytest.mark.parametrize(
    "blocks, scales",
    [
        ((3, 40, 2, 16), octets((3, 40, 3))),
        ((3, 40, 2, 8), octets((3, 40, 2))),
        ((40, 2, 16), octets((40, 2))),
        ((), octets(())),
        ((3, 40, 2, 16), torch.ones(3, 40, 2)),
    ],
)
def test_mxfp4_that_does_not_fit(opened, blocks, scales):
    """Blocks and scales whose shapes contradict each other, and scales that are no exponents."""
    with pytest.raises(CheckpointError, match=r"'x.w_blocks' .* and 'x.w_scales' .* of 'm0' do not make MXFP4 weights"):
        opened({"x.w_blocks": torch.zeros(blocks, dtype=torch.uint8), "x.w_scales": scales})


# --- refusals ---


def packed(*shape, dtype=torch.int32):
    return torch.zeros(shape, dtype=dtype)


NOTHING_TO_SCAN = "quantised integers have no spectrum to scan. Scan the unquantised base model instead."
BY_NAMES = [
    ("GPTQ weights (qweight, qzeros, g_idx)", {"qweight": packed(8, 64), "qzeros": packed(1, 8), "g_idx": packed(64)}),
    ("AWQ weights (qweight, qzeros)", {"qweight": packed(8, 64), "qzeros": packed(1, 8), "scales": torch.ones(1, 64)}),
    (
        "bitsandbytes 4-bit weights (absmax, quant_map)",
        {
            "weight": packed(2048, 1, dtype=torch.uint8),
            "weight.absmax": packed(64, dtype=torch.uint8),
            "weight.quant_map": torch.ones(16),
            "weight.quant_state.bitsandbytes__nf4": packed(90, dtype=torch.uint8),
        },
    ),
    (
        "bitsandbytes 8-bit weights (SCB)",
        {
            "weight": packed(64, 64, dtype=torch.int8),
            "SCB": torch.ones(64),
            "weight_format": packed(dtype=torch.uint8),
        },
    ),
    (
        "compressed-tensors int4 weights (weight_packed)",
        {"weight_packed": packed(64, 8), "weight_scale": torch.ones(64, 1), "weight_shape": torch.tensor([64, 64])},
    ),
    (
        "compressed-tensors asymmetric weights (weight_zero_point)",
        {
            "weight": packed(64, 64, dtype=torch.int8),
            "weight_scale": torch.ones(64, 1),
            "weight_zero_point": packed(64, 1, dtype=torch.int8),
        },
    ),
    ("torchao weights (_weight_qdata)", {"_weight_qdata": packed(64, 8), "_weight_scale": torch.ones(64, 1)}),
    ("torchao weights (weight:qdata)", {"weight:qdata": packed(64, 8), "weight:scale": torch.ones(64, 1)}),
    ("HQQ weights (W_q)", {"W_q": packed(64, 32, dtype=torch.uint8), "scale": torch.ones(64), "zero": torch.ones(64)}),
    ("EETQ weights (weight_scales)", {"weight": packed(64, 64, dtype=torch.int8), "weight_scales": torch.ones(64)}),
    (
        "quanto weights (_data, _scale)",
        {"weight._data": packed(64, 64, dtype=torch.int8), "weight._scale": torch.ones(64)},
    ),
    ("AQLM weights (codes, codebooks)", {"codes": packed(64, 8, 1, dtype=torch.int8), "codebooks": torch.ones(1, 256)}),
    (
        "MLX weights (scales, biases)",
        {"weight": packed(64, 8).view(torch.uint32), "scales": torch.ones(64), "biases": torch.ones(64)},
    ),
    (f"I8 weights ('{NAME}' is I8)", {"weight": packed(64, 64, dtype=torch.int8), "weight_scale": torch.ones(64, 1)}),
    (f"U8 weights ('{NAME}' is U8)", {"weight": packed(64, 64, dtype=torch.uint8)}),
    (f"I32 weights ('{NAME}' is I32)", {"weight": packed(64, 8)}),
    (f"I8 weights ('{NAME}' is I8)", {"weight": packed(64, 64, dtype=torch.int8), "scale": octets((64, 2))}),
    (f"I8 weights ('{NAME}' is I8)", {"weight": packed(64, 32, dtype=torch.int8), "scale": torch.ones(64, 2)}),
]


@pytest.mark.parametrize("what, tensors", BY_NAMES, ids=[what for what, _ in BY_NAMES])
def test_formats_refused_by_names(opened, what, tensors):
    """Without any config, names and dtypes tell the format; floats beside the weights change nothing."""
    plain = {"model.norm.weight": torch.ones(64), "lm_head.weight": gaussian(64, 64, seed=0)}
    with pytest.raises(CheckpointError) as error:
        opened(plain | {f"{MODULE}.{name}": tensor for name, tensor in tensors.items()})
    assert str(error.value) == f"'m0' holds {what}: {NOTHING_TO_SCAN}"


@pytest.mark.parametrize(
    "tensors",
    [
        {
            "weight": packed(64, 32, dtype=torch.uint8),
            "weight_scale": fp8((64, 4)),
            "weight_scale_2": torch.tensor(0.5),
            "input_scale": torch.tensor(0.5),
        },
        {
            "weight_packed": packed(64, 32, dtype=torch.uint8),
            "weight_scale": fp8((64, 4)),
            "weight_global_scale": torch.ones(1),
        },
    ],
)
def test_nvfp4_is_refused(opened, tensors):
    """As ModelOpt and as compressed-tensors write it."""
    with pytest.raises(CheckpointError) as error:
        opened({f"{MODULE}.{name}": tensor for name, tensor in tensors.items()})
    assert str(error.value).startswith("'m0' holds NVFP4 weights (weight_")
    assert str(error.value).endswith("): this format is not read. Scan the unquantised base model instead.")


@pytest.mark.parametrize(
    "config, what",
    [
        ({"quant_method": "gptq"}, "GPTQ"),
        ({"quant_method": "awq"}, "AWQ"),
        ({"quant_method": "auto-round"}, "AutoRound"),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "bitsandbytes 4-bit"),
        ({"load_in_8bit": True}, "bitsandbytes 8-bit"),
        ({"quant_method": "nvfp4"}, "NVFP4"),
        ({"quant_method": "compressed-tensors"}, "compressed-tensors"),
        ({"quant_method": "torchao"}, "torchao"),
        ({"quant_method": "hqq"}, "HQQ"),
        ({"quant_method": "eetq"}, "EETQ"),
        ({"quant_method": "quanto"}, "quanto"),
        ({"quant_method": "vptq"}, "VPTQ"),
        ({"quant_method": "something-new"}, "something-new"),
    ],
)
def test_formats_refused_by_config(opened, config, what):
    """Tables of integers under names that are not known: the config names the format, also that of the text model."""
    tensors = {MODULE + ".table": packed(64, 8), "lm_head.weight": gaussian(64, 64, seed=0)}
    for whole in ({"quantization_config": config}, {"text_config": {"quantization_config": config}}):
        with pytest.raises(CheckpointError, match=rf"holds {what} weights \('{MODULE}.table' is I32\): ") as error:
            opened(tensors, config=whole)
        assert str(error.value).endswith("Scan the unquantised base model instead.")


def test_config_decides_between_formats_of_the_same_names(opened):
    """GPTQ without g_idx has AWQ's names."""
    tensors = {MODULE + ".qweight": packed(8, 64), MODULE + ".qzeros": packed(1, 8)}
    with pytest.raises(CheckpointError, match=r"holds GPTQ weights \(qweight, qzeros\): quantised integers"):
        opened(tensors, config={"quantization_config": {"quant_method": "gptq"}})


@pytest.mark.parametrize("config", [None, {"quantization_config": {"quant_method": "fp8"}}])
@pytest.mark.parametrize(
    "beside", [{}, {"input_scale": torch.ones(1)}, {"weight_scale": torch.ones(1, dtype=torch.int32)}]
)
def test_fp8_without_scale_is_refused(opened, config, beside):
    """FP8 whose scale is missing, or is no scale: its values are not known."""
    tensors = {NAME: fp8((64, 64))} | {f"{MODULE}.{name}": tensor for name, tensor in beside.items()}
    with pytest.raises(CheckpointError) as error:
        opened(tensors, config=config)
    assert str(error.value) == (
        f"Tensor '{NAME}' of 'm0' is F8_E4M3 without a scale beside it, so its values are not known. Download the "
        "checkpoint again, or scan the unquantised base model instead."
    )


def test_mxfp4_without_scales_is_refused(opened):
    """Blocks of experts whose scales are missing."""
    with pytest.raises(CheckpointError, match=r"Tensor 'x\.experts\.w_blocks' of 'm0' is U8 without a scale beside it"):
        opened({"x.experts.w_blocks": octets((3, 40, 2, 16))})


def test_one_refused_weight_among_read_ones(opened):
    """FP8 attention beside packed experts: the whole checkpoint is refused, for its experts would be missing."""
    tensors = {NAME: fp8((64, 64)), NAME + "_scale_inv": torch.ones(1, 1), "model.experts.weight_packed": packed(64, 8)}
    with pytest.raises(CheckpointError, match="holds compressed-tensors int4 weights"):
        opened(tensors)
