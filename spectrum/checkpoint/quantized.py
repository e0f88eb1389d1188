"""Quantised releases read as the checkpoint they were made from: FP8 and MXFP4 dequantised, everything else refused.

The names and layouts are those of transformers 5.23: `quantizers/`, and the `Fp8Dequantize` and
`convert_moe_packed_tensors` of its `integrations/`. Names, dtypes and shapes in the headers decide; the config is asked
only for the size of blocks and for the name of a format, because releases that were dequantised often keep an old one.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from spectrum.checkpoint.dequantize import FP8_DTYPES, POWER_DTYPES, Quantized, dequantize_rows, scale_grid
from spectrum.checkpoint.local import Checkpoint
from spectrum.checkpoint.refusals import quantization_config, refuse_quantized
from spectrum.checkpoint.tensors import FLOAT_SIZES, Tensor
from spectrum.errors import CheckpointError

if TYPE_CHECKING:
    import torch

# Beside 'x.weight' stands 'x.weight_scale_inv' and so on, beside a stacked 'x.gate_up_proj' 'x.gate_up_proj_scale_inv'.
# All are multiplied by, the 'inv' too: it is the inverse of what the weight was multiplied by.
_SCALES = ("weight_scale_inv", "weight_scale", "scale_inv", "scale", "qscale_weight")
# Scales of activations: what quantised inference needs and the unquantised checkpoint does not have.
_ACTIVATIONS = ("activation_scale", "input_scale", "input_scale_ub", "input_zero_point", "output_scale", "qscale_act")

DEFAULT_BLOCK = (128, 128)  # DeepSeek-V3, and `FineGrainedFP8Config` of transformers
MX_BLOCK = 32  # columns that share a scale in every MX format: OCP Microscaling Formats v1.0
_MXFP4_BYTES = MX_BLOCK // 2
_PACKED_DTYPES = ("I8", "U8")  # what FP4 of two values a byte is stored as: DeepSeek-V4, AMD Quark


class DequantizedCheckpoint(Checkpoint):
    """An open checkpoint whose quantised weights appear under the names and shapes they had before.

    A view of another checkpoint, which it closes. `tensors` has each quantised weight as F32 with its true format in
    `stored_as`, and no scales; `stored_tensors` has what the headers say. Other tensors are the same in both.
    """

    def __init__(self, stored: Checkpoint, weights: Sequence[Quantized]) -> None:
        """View `stored` with its quantised weights, under their unquantised names, dequantised."""
        self.id, self.revision, self.folder = stored.id, stored.revision, stored.folder
        self.shards, self.config = stored.shards, stored.config
        self.remote, self.concurrent_reads = stored.remote, stored.concurrent_reads
        self.largest_ahead = stored.largest_ahead
        self.stored_tensors = stored.tensors
        self._stored, self._weights = stored, {weight.name: weight for weight in weights}
        self.tensors = {tensor.name: tensor for tensor in _logical_tensors(stored.tensors, weights)}

    def read(self, name: str, start: int = 0, stop: int | None = None) -> "torch.Tensor":
        """Entries `start` to `stop` along the first dimension of a tensor, on the CPU; float32 where it was quantised.

        Of a quantised weight only the codes of those rows and the scales that cover them are read. See
        `Checkpoint.read` for arguments and errors, `dequantize_rows` for accuracy.
        """
        weight = self._weights.get(name)
        if weight is None:
            return self._stored.read(name, start, stop)
        last = weight.shape[0] if stop is None else stop
        if not 0 <= start <= last <= weight.shape[0]:
            raise ValueError(f"rows {start} to {last} of a tensor with {weight.shape[0]}")
        return dequantize_rows(self._stored, weight, start, last)

    def read_bytes(self, shard: str, offset: int, buffer: memoryview) -> None:
        """Fill a buffer from a shard, as it is stored."""
        self._stored.read_bytes(shard, offset, buffer)

    def states(self) -> list[tuple[str, int, int]]:
        """See `Checkpoint.states`."""
        return self._stored.states()

    def blobs(self) -> list[str] | None:
        """See `Checkpoint.blobs`."""
        return self._stored.blobs()

    def close(self) -> None:
        """Close the shards."""
        self._stored.close()


def unquantized(checkpoint: Checkpoint) -> Checkpoint:
    """The checkpoint as it was before it was quantised; itself where nothing in it is.

    Dequantised are FP8 with one scale a tensor, a row, a column or a block, and MXFP4. Headers alone are looked at.

    Args:
        checkpoint: open. It stays the owner of its files: closing either closes both.

    Raises:
        CheckpointError: any other quantisation, by its name; FP8 without scales; scales that do not fit their weight.
    """
    found = (
        _mxfp4_experts(checkpoint, each) or _scaled_weight(checkpoint, each) for each in checkpoint.tensors.values()
    )
    weights = [weight for weight in found if weight is not None]
    used = {tensor.name for weight in weights for tensor in (weight.codes, weight.scales)}
    refuse_quantized(checkpoint, [tensor for name, tensor in checkpoint.tensors.items() if name not in used])
    return DequantizedCheckpoint(checkpoint, weights) if weights else checkpoint


def _logical_tensors(stored: Mapping[str, Tensor], weights: Sequence[Quantized]) -> Iterator[Tensor]:
    """The tensors of the unquantised checkpoint, in the order of the stored one."""
    by_codes = {weight.codes.name: weight for weight in weights}
    companions = {weight.scales.name for weight in weights}
    companions |= {name for weight in weights for name in _beside(weight.name, _ACTIVATIONS)}
    for tensor in stored.values():
        if tensor.name in by_codes:
            weight = by_codes[tensor.name]
            place = (tensor.shard, tensor.start, tensor.stop)
            yield Tensor(weight.name, "F32", weight.logical_shape, *place, stored_as=weight.stored_as)
        elif tensor.name not in companions:
            yield tensor


def _mxfp4_experts(checkpoint: Checkpoint, codes: Tensor) -> Quantized | None:
    """The experts of gpt-oss: X_blocks (experts, out, groups, 16) and X_scales (experts, out, groups).

    The unquantised X is (experts, in, out), with in = 32 groups.
    """
    name = codes.name.removesuffix("_blocks")
    scales = checkpoint.tensors.get(name + "_scales")
    if not codes.name.endswith("_blocks") or codes.dtype != "U8" or scales is None:
        return None
    *lead, row_bytes = codes.shape or (0,)
    if (len(lead), row_bytes, tuple(lead)) != (3, _MXFP4_BYTES, scales.shape) or scales.dtype not in POWER_DTYPES:
        raise CheckpointError(
            f"Tensors '{codes.name}' {list(codes.shape)} and '{scales.name}' {list(scales.shape)} {scales.dtype} of "
            f"'{checkpoint.id}' do not make MXFP4 weights, which have 16 bytes for each scale of one byte. "
            "Download the checkpoint again."
        )
    experts, out, groups = lead
    return Quantized(name, codes, scales, (experts, out, groups * MX_BLOCK), (1, 1, MX_BLOCK), transposed=True)


def _scaled_weight(checkpoint: Checkpoint, codes: Tensor) -> Quantized | None:
    """A weight of FP8, or of packed FP4, with the scale that stands beside it."""
    if not codes.shape or codes.dtype not in (*FP8_DTYPES, *_PACKED_DTYPES):
        return None
    beside = [checkpoint.tensors[name] for name in _beside(codes.name, _SCALES) if name in checkpoint.tensors]
    scales = next((tensor for tensor in beside if tensor.dtype in (*FLOAT_SIZES, *POWER_DTYPES)), None)
    if scales is None:
        return None
    if codes.dtype in FP8_DTYPES:
        return Quantized(codes.name, codes, scales, codes.shape, _block(checkpoint, codes, scales))
    return _packed_weight(codes, scales) if scales.dtype in POWER_DTYPES else None


def _packed_weight(codes: Tensor, scales: Tensor) -> Quantized | None:
    """MXFP4 as DeepSeek-V4 has it in its experts, (rows, cols / 2) and (rows, cols / 32); None for 8-bit integers."""
    *lead, row_bytes = codes.shape
    shape, block = (*lead, 2 * row_bytes), (*[1] * len(lead), MX_BLOCK)
    return Quantized(codes.name, codes, scales, shape, block) if scale_grid(shape, block) == scales.shape else None


def _beside(name: str, leaves: tuple[str, ...]) -> list[str]:
    """Names that companions of a weight may have."""
    prefix = name.removesuffix("weight") if name.endswith(".weight") else f"{name}_"
    return [prefix + leaf for leaf in leaves]


def _block(checkpoint: Checkpoint, codes: Tensor, scales: Tensor) -> tuple[int, ...]:
    """How many entries along each dimension share a scale: the only reading that the shapes allow.

    Raises:
        CheckpointError: they allow none.
    """
    stated = _stated_block(checkpoint)
    grid = scales.shape + (1,) * (len(codes.shape) - len(scales.shape))
    for block in _blocks(codes.shape, stated):
        if scale_grid(codes.shape, block) == grid:
            return block
    wanted = list(scale_grid(codes.shape, next(_blocks(codes.shape, stated))))
    raise CheckpointError(
        f"Tensor '{scales.name}' of '{checkpoint.id}' has shape {list(scales.shape)}, expected {wanted}: "
        f"'{codes.name}' is {list(codes.shape)}, in blocks of {stated[0]} x {stated[1]}. "
        "Download the checkpoint and its config.json again."
    )


def _blocks(shape: tuple[int, ...], stated: tuple[int, int]) -> Iterator[tuple[int, ...]]:
    """Blocks that may share a scale, the stated ones first.

    No two of them make the same grid of scales, unless they mean the same, or the stated ones are of a single row.
    """
    *lead, cols = (max(size, 1) for size in shape)
    whole, ones = (*lead, cols), (1,) * (len(lead) - 1)
    if lead:
        yield (*ones, *stated)
        yield (*ones, 1, MX_BLOCK)
        yield (*ones, 1, cols)  # a row
        yield (*ones, lead[-1], 1)  # a column
    yield (1, *whole[1:])  # an expert of a stack
    yield whole


def _stated_block(checkpoint: Checkpoint) -> tuple[int, int]:
    """Rows and columns of a block, as config.json has them; 128 x 128 where it does not tell."""
    stated = quantization_config(checkpoint.config).get("weight_block_size")
    if stated is None:
        return DEFAULT_BLOCK
    if not isinstance(stated, list) or len(stated) != 2 or not all(type(size) is int and size > 0 for size in stated):
        raise CheckpointError(
            f"The config.json of '{checkpoint.id}' has {stated!r} as weight_block_size, which is no pair of positive "
            "numbers. Download it again."
        )
    return stated[0], stated[1]
