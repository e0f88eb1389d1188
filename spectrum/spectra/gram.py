"""Read a matrix in slices, scale and upcast them, and accumulate the Gram matrix of its smaller side.

A matrix is q rows of p numbers, q >= p. A panel is a slice of it, transposed: (p, k).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

ReadRows = Callable[[int, int], Tensor]  # rows start..stop, (stop - start, p), in storage dtype

STORAGE_DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
PANEL_NUMBERS = 2**23  # 32 MiB in float32, so that p = 4096 takes 2048 rows at a time
LONGEST_SLICE = 2048  # rows, and so the terms of one float32 sum
BLOCK = 512  # side of a tile of the lower triangle; 256 saves 10 % at p = 1024 but suffers most on a busy machine


@dataclass(frozen=True)
class Panel:
    """A slice times 2**-exponent; multiply what was accumulated from earlier panels by `shrink` <= 1."""

    values: Tensor  # (p, k), float32 or float64, entries at most 1 in magnitude, except for extreme exponents
    exponent: int
    shrink: float


def panels(read_rows: ReadRows, shape: tuple[int, int], step: int, dtype: torch.dtype, device: str) -> Iterator[Panel]:
    """Read, check, upcast and scale a matrix slice by slice; skip slices of zeros.

    Scaling by a power of two, from the largest entry so far, prevents underflow and overflow of squares and changes
    no digit of the result.

    Raises:
        ValueError: an entry is NaN or infinite.
    """
    exponent: int | None = None
    for start in range(0, shape[0], step):
        rows = read_rows(start, min(start + step, shape[0])).to(device)
        if rows.dtype not in STORAGE_DTYPES:
            raise ValueError(f"Cannot decompose a matrix of {rows.dtype}.")
        low, high = (bound.item() for bound in torch.aminmax(rows))
        largest = _exponent(low, high, rows.dtype)
        if largest is None:
            continue
        before = largest if exponent is None else exponent
        exponent = max(before, largest)
        yield Panel(_scaled(rows, exponent, dtype), exponent, math.ldexp(1.0, before - exponent))


def slice_length(p: int) -> int:
    """Rows to read at a time; at least p / 8, so that a product takes longer than adding its result."""
    return max(p // 8, 1, min(LONGEST_SLICE, PANEL_NUMBERS // p))


@dataclass(frozen=True)
class Gram:
    """A (p, p) Gram matrix times 4**-exponent. Only its lower triangle is defined.

    Attributes:
        values: the diagonal is summed in float64, the rest in the dtype of the matrix.
        exponent: of the scale.
        sum_error: the largest relative error of a diagonal entry before it was replaced by the float64 sum.
        largest: magnitude of the largest entry beside the diagonal.
    """

    values: Tensor
    exponent: int
    sum_error: float
    largest: float

    def entry_error(self) -> float:
        """Bound on the error of an entry: any of them may be relatively as far off as the worst diagonal sum."""
        return self.sum_error * self.largest

    def closer_entry_error(self) -> float:
        """The same, for the eigenvalues up to their mean. Slower, never larger.

        Two rows of correlation r and size d have no eigenvalue below (1 - r) d. A smaller one is therefore moved by
        no more than r / (1 - r) of itself, times the error of the sums: large rows do harm only if they are parallel.
        """
        lengths = self.values.diagonal().clamp(min=0.0).sqrt()
        mean = lengths.square().mean()
        largest = 0.0
        for start in range(0, len(lengths), 256):
            strip = self.values[start : start + 256].tril(start - 1)
            sizes = lengths[start : start + 256, None] * lengths
            correlation = (strip.abs() / sizes).nan_to_num_(0.0).clamp_(max=1.0)
            moved = torch.minimum(sizes, mean / (1.0 - correlation)) * correlation
            largest = max(largest, float(moved.max()))
        return self.sum_error * min(largest, self.largest)


def gram_matrix(read_rows: ReadRows, shape: tuple[int, int], dtype: torch.dtype, device: str) -> Gram:
    """Gram matrix of the smaller side, read slice by slice."""
    p = shape[1]
    total = torch.zeros(p, p, dtype=dtype, device=device)
    diagonal = torch.zeros(p, dtype=torch.float64, device=device)
    exponent = 0
    with exact_products():
        for panel in panels(read_rows, shape, slice_length(p), dtype, device):
            exponent = panel.exponent
            if panel.shrink < 1.0:
                total *= panel.shrink**2
                diagonal *= panel.shrink**2
            _add_lower_triangle(total, panel.values)
            diagonal += _sums_of_squares(panel.values)
    return Gram(total, exponent, *(float(number) for number in _replace_diagonals(total, diagonal)))


def gram_matrices(talls: Sequence[Tensor], device: str) -> tuple[Tensor, list[Gram]]:
    """Float32 Gram matrices of equal-shaped matrices (q, p): the stack (b, p, p) and a view of each.

    Stacked whole, since such matrices are small; the full square, since a GPU's batched product is cheaper than tiles.
    """
    rows = torch.stack(list(talls)).to(device)  # (b, q, p)
    lows, highs = rows.amin(dim=(1, 2)).tolist(), rows.amax(dim=(1, 2)).tolist()
    exponents = [_exponent(low, high, rows.dtype) or 0 for low, high in zip(lows, highs, strict=True)]
    factors = torch.tensor([math.ldexp(1.0, -exponent) for exponent in exponents], dtype=torch.float64)
    wide = torch.float64 if rows.dtype == torch.float64 else torch.float32
    scaled = (rows.to(wide) * factors.to(device, wide)[:, None, None]).float()
    with exact_products():
        grams = torch.bmm(scaled.mT, scaled)
    sum_errors, largest = _replace_diagonals(grams, scaled.square().sum(dim=1, dtype=torch.float64))
    known = zip(grams, exponents, sum_errors.tolist(), largest.tolist(), strict=True)
    return grams, [Gram(*each) for each in known]


def _replace_diagonals(grams: Tensor, exact: Tensor) -> tuple[Tensor, Tensor]:
    """Put float64 sums (..., p) on the diagonals of (..., p, p); return `sum_error` and `largest` of each matrix."""
    diagonals = torch.diagonal(grams, dim1=-2, dim2=-1)
    # Sums this far below the largest may have underflowed; they are too small to matter.
    floor = exact.amax(dim=-1, keepdim=True) * 2.0**-100 + torch.finfo(torch.float64).tiny
    relative = ((diagonals - exact).abs() / exact.maximum(floor)).amax(dim=-1)
    diagonals.zero_()
    largest = torch.maximum(-grams.amin(dim=(-2, -1)), grams.amax(dim=(-2, -1)))
    diagonals.copy_(exact)
    return relative, largest


@contextmanager
def exact_products() -> Iterator[None]:
    """Multiply float32 numbers in float32 although the caller's program may allow TF32 or bfloat16."""
    mkldnn: Any = torch.backends.mkldnn  # untyped
    backends: tuple[Any, ...] = (torch.backends.cuda.matmul, mkldnn.matmul)
    before = [backend.fp32_precision for backend in backends]
    try:
        for backend in backends:
            backend.fp32_precision = "ieee"
        yield
    finally:
        for backend, precision in zip(backends, before, strict=True):
            backend.fp32_precision = precision


def _exponent(low: float, high: float, dtype: torch.dtype) -> int | None:
    """Exponent e with every magnitude <= 2**e, or None for all zeros. Refuses NaN and infinity."""
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ValueError("The matrix holds a number that is not finite.")
    largest = max(-low, high)
    # Beyond these limits the factor itself would be subnormal or overflow; squares are still safe.
    limit = 1000 if dtype == torch.float64 else 120
    return max(-limit, min(limit, math.frexp(largest)[1])) if largest > 0.0 else None


def _scaled(rows: Tensor, exponent: int, dtype: torch.dtype) -> Tensor:
    """(k, p) in storage dtype to (p, k) in `dtype`, contiguous."""
    factor = math.ldexp(1.0, -exponent)
    if rows.dtype == torch.float64:  # scaled first, since its range does not fit float32
        rows, factor = rows * factor, 1.0
    panel = torch.empty(rows.shape[::-1], dtype=dtype, device=rows.device).copy_(rows.T)
    return panel if factor == 1.0 else panel.mul_(factor)


def _add_lower_triangle(total: Tensor, panel: Tensor) -> None:
    p = panel.shape[0]
    step = min(p, BLOCK)
    if panel.device.type == "cpu" and panel.dtype == torch.float32 and _onednn_is_faster():
        _add_tiles(total, panel, step)
        return
    step = step if panel.device.type == "cpu" else max(step, 2048)
    for start in range(0, p, step):
        stop = min(start + step, p)
        total[start:stop, :stop].addmm_(panel[start:stop], panel[:stop].T)


def _onednn_is_faster() -> bool:
    # torch.mm calls MKL, which does not use AVX-512 on AMD; F.linear of mkldnn tensors calls oneDNN.
    return torch.backends.mkl.is_available() and bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]


def _add_tiles(total: Tensor, panel: Tensor, step: int) -> None:
    strips = [strip.to_mkldnn() for strip in torch.split(panel, step)]
    for i, left in enumerate(strips):
        for j, right in enumerate(strips[: i + 1]):
            tile = total[i * step : (i + 1) * step, j * step : (j + 1) * step]
            tile += torch.nn.functional.linear(left, right).to_dense()


def _sums_of_squares(panel: Tensor) -> Tensor:
    """Diagonal of the product, (p,), summed in float64, because float32 sums of squares are biased in bfloat16."""
    parts = torch.split(panel, 512, dim=1)  # one square at a time in the cache: 5 times faster than the whole
    return torch.stack([part.square().sum(dim=1, dtype=torch.float64) for part in parts]).sum(dim=0)
