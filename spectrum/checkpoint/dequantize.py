"""Stored codes and scales to float32: the arithmetic of FP8 and MXFP4, and the byte ranges that rows of a weight need.

A weight is codes times scales, and one scale serves a block of codes. Blocks start at multiples of their size, and the
last ones are cut off where the weight ends: the 576 rows of DeepSeek-V3's kv_a_proj_with_mqa take 5 scales of 128 rows.
(transformers 5.23 divides the rows by the scales instead: `Fp8Dequantize` refuses 576 rows, and takes 200 rows in
blocks of 128 for two blocks of 100.)
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from spectrum.checkpoint.tensors import FLOAT_SIZES, TORCH_NAMES, Source, Tensor

if TYPE_CHECKING:
    import torch

# 8-bit floats that weights are stored in. F8_E8M0 is only used for scales.
FP8_DTYPES = ("F8_E4M3", "F8_E5M2", "F8_E4M3FNUZ", "F8_E5M2FNUZ")

# Scales that are a power of two, stored as its exponent plus 127, E8M0 of the OCP Microscaling Formats v1.0.
POWER_DTYPES = ("U8", "F8_E8M0")

# The positive values of E2M1 of the same, by code; the fourth bit is the sign.
_FP4_VALUES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)


@dataclass(frozen=True)
class Quantized:
    """How a checkpoint stores one quantised weight.

    Attributes:
        name: of the weight in the unquantised checkpoint.
        codes: the tensor with one 8-bit float, or two 4-bit floats, a byte.
        scales: the tensor that the codes are multiplied by, of floats or of exponents.
        shape: of the weight before it is transposed; its first dimension is that of `codes`.
        block: how many entries along each dimension share a scale.
        transposed: the unquantised checkpoint has the last two dimensions the other way round.
    """

    name: str
    codes: Tensor
    scales: Tensor
    shape: tuple[int, ...]
    block: tuple[int, ...]
    transposed: bool = False

    @property
    def stored_as(self) -> str:
        """Name of the format: the dtype of the codes, or 'MXFP4'."""
        return self.codes.dtype if self.codes.dtype in FP8_DTYPES else "MXFP4"

    @property
    def logical_shape(self) -> tuple[int, ...]:
        """Shape of the unquantised tensor."""
        return (*self.shape[:-2], self.shape[-1], self.shape[-2]) if self.transposed else self.shape


def scale_grid(shape: tuple[int, ...], block: tuple[int, ...]) -> tuple[int, ...]:
    """Number of scales along each dimension of a weight; a block that the edge cuts off has one of its own."""
    return tuple(math.ceil(size / width) for size, width in zip(shape, block, strict=True))


def dequantize_rows(source: Source, weight: Quantized, start: int, stop: int) -> "torch.Tensor":
    """Entries `start` to `stop` along the first dimension of a weight, in float32.

    Only their codes and the scales that cover them are read. The product of a code and a scale rounds once, to within
    6e-8 of it; with scales that are powers of two, or bfloat16 or float16, it is exact. A scale that stands for NaN
    makes NaN.

    Args:
        source: of the bytes.
        weight: which.
        start: first row (or expert, along a stacked weight).
        stop: row after the last.

    Returns:
        (stop - start, *logical_shape[1:]); a transposed weight is a view with swapped strides.

    Raises:
        CheckpointError: a file that became shorter since it was opened.
    """
    values = _read_codes(source, weight.codes, start, stop).reshape(stop - start, *weight.shape[1:])
    scales = _read_scales(source, weight, start, stop)
    for dimension, width in enumerate(weight.block[:-1]):
        skipped = start % width if dimension == 0 else 0
        scales = scales.repeat_interleave(width, dimension).narrow(dimension, skipped, values.shape[dimension])
    _multiply_columns(values, scales, weight.block[-1])
    return values.transpose(-2, -1) if weight.transposed else values


def _multiply_columns(values: "torch.Tensor", scales: "torch.Tensor", width: int) -> None:
    """Multiply by (..., columns of scales), one for `width` columns of values.

    In place, and without writing the scales out to the size of the values: that would cost 25 times the time.
    """
    whole = values.shape[-1] // width
    blocks = values[..., : whole * width].view(*values.shape[:-1], whole, width)
    blocks.mul_(scales[..., :whole, None])
    values[..., whole * width :].mul_(scales[..., whole:])  # the block that the edge cuts off, or nothing


def _read_codes(source: Source, codes: Tensor, start: int, stop: int) -> "torch.Tensor":
    """Values of the codes in float32, without their scales."""
    import torch  # noqa: PLC0415

    raw = _read_raw(source, codes, start, stop)
    if codes.dtype in FP8_DTYPES:
        return raw.view(_torch_dtype(codes)).to(torch.float32)
    values = (*_FP4_VALUES, *(-value for value in _FP4_VALUES))
    pairs = torch.tensor([(values[byte & 15], values[byte >> 4]) for byte in range(256)])  # the low half comes first
    return pairs.index_select(0, raw.flatten().to(torch.int32))


def _read_scales(source: Source, weight: Quantized, start: int, stop: int) -> "torch.Tensor":
    """The scales that cover rows `start` to `stop`: float32, (rows of scales, *scale_grid[1:])."""
    import torch  # noqa: PLC0415

    first, last = start // weight.block[0], math.ceil(stop / weight.block[0])
    grid = scale_grid(weight.shape, weight.block)
    if weight.scales.dtype in FLOAT_SIZES:
        scales = _read_raw(source, weight.scales, first, last).view(_torch_dtype(weight.scales)).to(torch.float32)
    else:
        powers = torch.tensor([2.0 ** (code - 127) for code in range(255)] + [math.nan])
        scales = powers[_read_raw(source, weight.scales, first, last).to(torch.int32)]
    return scales.reshape(last - first, *grid[1:])


def _read_raw(source: Source, tensor: Tensor, start: int, stop: int) -> "torch.Tensor":
    """The bytes of rows of a tensor."""
    import torch  # noqa: PLC0415

    row_bytes = tensor.size_bytes // tensor.shape[0] if tensor.shape and tensor.shape[0] else tensor.size_bytes
    raw = torch.empty(((stop - start) * row_bytes,), dtype=torch.uint8)
    source.read(tensor.shard, tensor.start + start * row_bytes, raw.numpy().data)
    return raw


def _torch_dtype(tensor: Tensor) -> "torch.dtype":
    import torch  # noqa: PLC0415

    dtype: torch.dtype = getattr(torch, TORCH_NAMES[tensor.dtype])
    return dtype
