"""Slices of a matrix, scaled and upcast, and the Gram matrix of the smaller side accumulated over them.

A matrix is seen as q rows of p numbers, q >= p: its longer side first. A panel is a slice of it, transposed: (p, k).
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
    """A slice times 2**-exponent; `shrink` <= 1 brings what was accumulated from earlier panels to that exponent."""

    values: Tensor  # (p, k), float32 or float64, entries at most 1 in magnitude but for extreme exponents
    exponent: int
    shrink: float


def panels(read_rows: ReadRows, shape: tuple[int, int], step: int, dtype: torch.dtype, device: str) -> Iterator[Panel]:
    """Read, check, upcast and scale a matrix slice by slice; slices of zeros are left out.

    Scaling by the power of two of the largest entry so far keeps squares from under- and overflowing and makes the
    result of a scaled matrix the scaled result, bit for bit.

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
    """Rows to read at a time; at least p / 8, so that the products stay large against their result."""
    return max(p // 8, 1, min(LONGEST_SLICE, PANEL_NUMBERS // p))


def gram_matrix(read_rows: ReadRows, shape: tuple[int, int], dtype: torch.dtype, device: str) -> tuple[Tensor, int]:
    """Lower triangle of the (p, p) Gram matrix times 4**-exponent, and the exponent; above it lies nothing."""
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
    total.diagonal().copy_(diagonal)
    return total, exponent


def gram_matrices(talls: Sequence[Tensor], device: str) -> tuple[Tensor, list[int]]:
    """Float32 Gram matrices (b, p, p) of equal-shaped matrices (q, p), scaled as in `gram_matrix`, and the exponents.

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
    torch.diagonal(grams, dim1=1, dim2=2).copy_(scaled.square().sum(dim=1, dtype=torch.float64))
    return grams, exponents


@contextmanager
def exact_products() -> Iterator[None]:
    """Float32 products in float32, whatever TF32 or bfloat16 shortcuts the program around has allowed."""
    # torch before 2.9 lacks the setting; there both shortcuts are off unless a program allows TF32 by older names.
    candidates = (getattr(torch.backends.cuda, "matmul", None), getattr(torch.backends.mkldnn, "matmul", None))
    backends: list[Any] = [backend for backend in candidates if hasattr(backend, "fp32_precision")]
    before = [backend.fp32_precision for backend in backends]
    try:
        for backend in backends:
            backend.fp32_precision = "ieee"
        yield
    finally:
        for backend, precision in zip(backends, before, strict=True):
            backend.fp32_precision = precision


def _exponent(low: float, high: float, dtype: torch.dtype) -> int | None:
    """Exponent e with every magnitude <= 2**e, None for all zeros; the one place that meets NaN and infinity."""
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ValueError("The matrix holds a number that is not finite.")
    largest = max(-low, high)
    # Beyond these the factor itself would be subnormal or overflow; squares are still far from doing so.
    limit = 1000 if dtype == torch.float64 else 120
    return max(-limit, min(limit, math.frexp(largest)[1])) if largest > 0.0 else None


def _scaled(rows: Tensor, exponent: int, dtype: torch.dtype) -> Tensor:
    """(k, p) in storage dtype to (p, k) in `dtype`, contiguous: the one place that upcasts."""
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
    # torch.mm goes to MKL, which leaves AVX-512 unused on AMD; F.linear of mkldnn tensors is oneDNN's product.
    return torch.backends.mkl.is_available() and bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]


def _add_tiles(total: Tensor, panel: Tensor, step: int) -> None:
    strips = [strip.to_mkldnn() for strip in torch.split(panel, step)]
    for i, left in enumerate(strips):
        for j, right in enumerate(strips[: i + 1]):
            tile = total[i * step : (i + 1) * step, j * step : (j + 1) * step]
            tile += torch.nn.functional.linear(left, right).to_dense()


def _sums_of_squares(panel: Tensor) -> Tensor:
    """Diagonal of the product, (p,), summed in float64.

    Squares of bfloat16 numbers meet ties at nearly every step of a float32 sum, and ties to even lose the small ones
    again and again. The product's diagonal came out 1e-6 too small, which lowers every eigenvalue alike and put the SNR
    of bfloat16 matrices with a steep spectrum 2e-4 off; with this diagonal it is 1e-7. A float32 norm is biased too.
    """
    parts = torch.split(panel, 512, dim=1)  # one square at a time in the cache: 5 times faster than the whole
    return torch.stack([part.square().sum(dim=1, dtype=torch.float64) for part in parts]).sum(dim=0)
