"""Quantised releases read as the checkpoint they were made from: FP8 and MXFP4 dequantised, everything else refused.

The names and layouts are those of transformers 5.23: `quantizers/`, and the `Fp8Dequantize` and
`convert_moe_packed_tensors` of its `integrations/`. Names, dtypes and shapes in the headers decide; the config is asked
only for the size of blocks and for the name of a format, because releases that were dequantised often keep an old one.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from spectrum.checkpoint.dequantize import FP8_DTYPES, POWER_DTYPES, Quantized, scale_grid
from spectrum.checkpoint.refusals import quantization_config, refuse_quantized
from spectrum.checkpoint.tensors import FLOAT_SIZES, Tensor
from spectrum.errors import CheckpointError
from spectrum.untrusted import shown

# 'x.weight' has the scale 'x.weight_scale_inv' and so on; a stacked 'x.gate_up_proj' has 'x.gate_up_proj_scale_inv'.
# All are multiplied by, the 'inv' too: it is the inverse of what the weight was multiplied by.
_SCALES = ("weight_scale_inv", "weight_scale", "scale_inv", "scale", "qscale_weight")
# Scales of activations: what quantised inference needs and the unquantised checkpoint does not have.
_ACTIVATIONS = ("activation_scale", "input_scale", "input_scale_ub", "input_zero_point", "output_scale", "qscale_act")

DEFAULT_BLOCK = (128, 128)  # DeepSeek-V3, and `FineGrainedFP8Config` of transformers
MX_BLOCK = 32  # columns that share a scale in every MX format: OCP Microscaling Formats v1.0
_MXFP4_BYTES = MX_BLOCK // 2
_PACKED_DTYPES = ("I8", "U8")  # what FP4 of two values a byte is stored as: DeepSeek-V4, AMD Quark


def find_quantized(identity: str, config: Mapping[str, Any] | None, stored: Mapping[str, Tensor]) -> list[Quantized]:
    """The weights that are stored as FP8 with one scale a tensor, row, column or block, or as MXFP4.

    Only headers are read.

    Args:
        identity: of the checkpoint, for errors.
        config: the parsed config.json.
        stored: the tensors as the headers have them.

    Raises:
        CheckpointError: any other quantisation, by its name; FP8 without scales; scales that do not fit their weight.
    """
    candidates = (
        _mxfp4_experts(identity, stored, each) or _scaled_weight(identity, config, stored, each)
        for each in stored.values()
    )
    found = [weight for weight in candidates if weight is not None]
    used = {tensor.name for weight in found for tensor in (weight.codes, weight.scales)}
    refuse_quantized(identity, config, [tensor for name, tensor in stored.items() if name not in used])
    return found


def unquantized_tensors(stored: Mapping[str, Tensor], weights: Sequence[Quantized]) -> dict[str, Tensor]:
    """The tensors of the unquantised checkpoint, in the order of the stored one, without scales."""
    by_codes = {weight.codes.name: weight for weight in weights}
    companions = {weight.scales.name for weight in weights}
    companions |= {name for weight in weights for name in _beside(weight.name, _ACTIVATIONS)}
    tensors = {}
    for tensor in stored.values():
        if weight := by_codes.get(tensor.name):
            tensors[weight.name] = replace(
                tensor, name=weight.name, dtype="F32", shape=weight.logical_shape, stored_as=weight.stored_as
            )
        elif tensor.name not in companions:
            tensors[tensor.name] = tensor
    return tensors


def _mxfp4_experts(identity: str, stored: Mapping[str, Tensor], codes: Tensor) -> Quantized | None:
    """The experts of gpt-oss: X_blocks (experts, out, groups, 16) and X_scales (experts, out, groups).

    The unquantised X is (experts, in, out), with in = 32 groups.
    """
    name = codes.name.removesuffix("_blocks")
    scales = stored.get(name + "_scales")
    if not codes.name.endswith("_blocks") or codes.dtype != "U8" or scales is None:
        return None
    *lead, row_bytes = codes.shape or (0,)
    if (len(lead), row_bytes, tuple(lead)) != (3, _MXFP4_BYTES, scales.shape) or scales.dtype not in POWER_DTYPES:
        raise CheckpointError(
            f"Tensors '{codes.name}' {list(codes.shape)} and '{scales.name}' {list(scales.shape)} {scales.dtype} of "
            f"'{identity}' do not make MXFP4 weights, which have 16 bytes for each scale of one byte. "
            "Download the checkpoint again."
        )
    experts, out, groups = lead
    return Quantized(name, codes, scales, (experts, out, groups * MX_BLOCK), (1, 1, MX_BLOCK), transposed=True)


def _scaled_weight(
    identity: str, config: Mapping[str, Any] | None, stored: Mapping[str, Tensor], codes: Tensor
) -> Quantized | None:
    """A weight of FP8, or of packed FP4, with its scale."""
    if not codes.shape or codes.dtype not in (*FP8_DTYPES, *_PACKED_DTYPES):
        return None
    beside = [stored[name] for name in _beside(codes.name, _SCALES) if name in stored]
    scales = next((tensor for tensor in beside if tensor.dtype in (*FLOAT_SIZES, *POWER_DTYPES)), None)
    if scales is None:
        return None
    if codes.dtype in FP8_DTYPES:
        return Quantized(codes.name, codes, scales, codes.shape, _block(identity, config, codes, scales))
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


def _block(identity: str, config: Mapping[str, Any] | None, codes: Tensor, scales: Tensor) -> tuple[int, ...]:
    """How many entries along each dimension share a scale: the only reading that the shapes allow.

    Raises:
        CheckpointError: they allow none.
    """
    stated = _stated_block(identity, config)
    grid = scales.shape + (1,) * (len(codes.shape) - len(scales.shape))
    for block in _blocks(codes.shape, stated):
        if scale_grid(codes.shape, block) == grid:
            return block
    wanted = list(scale_grid(codes.shape, next(_blocks(codes.shape, stated))))
    raise CheckpointError(
        f"Tensor '{scales.name}' of '{identity}' has shape {list(scales.shape)}, expected {wanted}: "
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


def _stated_block(identity: str, config: Mapping[str, Any] | None) -> tuple[int, int]:
    """Rows and columns of a block, as config.json has them; 128 x 128 where it does not tell."""
    stated = quantization_config(config).get("weight_block_size")
    if stated is None:
        return DEFAULT_BLOCK
    if not isinstance(stated, list) or len(stated) != 2 or not all(type(size) is int and size > 0 for size in stated):
        raise CheckpointError(
            f"The config.json of '{identity}' has {shown(stated)} as weight_block_size, which is not a pair of "
            "positive numbers. Download it again."
        )
    return stated[0], stated[1]
