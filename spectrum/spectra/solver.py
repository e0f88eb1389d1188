"""Matrix to singular values: the only caller of torch.linalg's decompositions.

Four paths, the next where the estimate of `accuracy` is above TOLERANCE or the solver does not converge:
    gram                      float32 Gram matrix of the smaller side, then its eigenvalues;
    gram-float64-eigenvalues  the same Gram matrix, its eigenvalues in float64, where that is expected to do;
    gram-float64              both in float64, where it resolves every eigenvalue;
    svd-float64               SVD, of the triangle of a QR by slices where the matrix is tall.

Measured on an AMD EPYC (Zen 5, x86-64), 2 cores, torch 2.13.0+cpu with MKL 2024.2, against torch.linalg.svdvals of
the float32 matrix, pair by pair in one run, medians of n pairs:
    shape                    plain      here   ratio   n
    384 x 384, 16 of them   9.6 ms    4.0 ms     2.5   9
    1536 x 384, 16         17.0 ms    5.3 ms     3.1   9
    384 x 1536, 16         31.3 ms    5.4 ms     5.7   9
    1024 x 4096             782 ms     74 ms    10.7   3   (4096 x 1024: 192 ms, 2.8: MKL's SVD likes tall matrices)
    4096 x 4096             7.5 s     1.35 s     5.8   3
    14336 x 4096           10.0 s     1.91 s     5.3   3
    4096 x 14336           39.6 s     2.06 s    19.2   2
    a Llama-3-8B layer       76 s      8.7 s     8.7   (2 + 2 + 2 + 1 of the last four shapes)
Peak memory of the process, imports (0.23 GB) and the bfloat16 matrix included: 4096 x 14336 0.61 GB, 128256 x 4096 by
slices 0.52 GB, 8192 x 28672 1.35 GB.

Tried, on the same machine:
    Product, effective rate at p = 4096: full torch.mm 150-190 GFLOP/s, its lower triangle 280, NumPy's (OpenBLAS) syrk
    300, oneDNN's product by tiles 550 (used), oneDNN's private operator on strips 600. bfloat16 in and out reaches 820
    but rounds; the setting fp32_precision = "bf16" changes neither speed nor result on this processor.
    Eigenvalues at p = 4096, three quarters of the time: torch (MKL ssyevd) 1.0 s, float64 2.5 s, SciPy's ssyevr 1.6 s,
    ssyevd 3.1 s, NumPy 3.9 s; two at once take as long as one after the other (but see ONE_THREAD). Neither torch nor
    SciPy offers a two-stage reduction or the tridiagonal matrix alone. SciPy gains nothing here.
    A second look, p = q = 4096: float64 eigenvalues 1.8 s; with a float64 Gram matrix, whose product alone takes up to
    1.4 s (grows with q) and which reads the matrix again, 3 s. Settling only what decides, by factorising at the
    threshold and at both quartiles, would take 1.1 s (LU, float32) to 2 s (LDL, float64): little less, for much code.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.linalg import LinAlgError  # type: ignore[attr-defined]

from spectrum.errors import DecompositionError, one_line
from spectrum.spectra.accuracy import FLOAT32, FLOAT32_GRAM, FLOAT64, Array, Rounding, resolved, score_error
from spectrum.spectra.gram import Gram, ReadRows, exact_products, gram_matrices, gram_matrix, panels

Precision = Literal["auto", "float32", "float64"]
Path = Literal["gram", "gram-float64-eigenvalues", "gram-float64", "svd-float64"]

# Counted up when results of the former method can no longer be trusted: stored spectra are then computed again.
# 1 was release 0.1.0, whose numbers were wrong for matrices with repeated bfloat16 rows and for some sparse ones.
ALGORITHM = 2
ONE_THREAD = 1024  # up to this p, two matrices side by side beat two threads on each
TOLERANCE = 1e-4  # relative, of SNR and threshold: the accuracy contract
GRAM_PATHS: dict[Precision, tuple[Path, ...]] = {  # before the SVD; the second look belongs to the first
    "auto": ("gram", "gram-float64"),
    "float32": ("gram",),
    "float64": ("gram-float64",),
}
ROUNDINGS: dict[Path, Rounding] = {
    "gram": FLOAT32,
    "gram-float64-eigenvalues": FLOAT32_GRAM,
    "gram-float64": FLOAT64,
}


@dataclass(frozen=True)
class Spectrum:
    """Singular values of one matrix, and how they were found."""

    values: Array  # (p,), descending, finite, >= 0
    path: Path  # 'gram' is the fast one
    error: float  # estimated relative error of SNR and threshold; 0 after an SVD, which is the reference itself


@torch.no_grad()
def singular_values(matrix: Tensor, *, precision: Precision = "auto", device: str = "cpu") -> Spectrum:
    """Singular values of a matrix in storage dtype: its transpose has the same bytes, 2**k times it 2**k times them.

    Args:
        matrix: (rows, cols), bfloat16, float16, float32 or float64, on any device; upcast only slice by slice.
        precision: 'auto' works in float32 and redoes in float64 what is not within TOLERANCE by estimate;
            'float32' never redoes; 'float64' starts there.
        device: where to compute: 'cpu', 'cuda', 'cuda:N' or 'mps' (which has no solver: the CPU does it).
            A matrix that a GPU has no memory for goes to the CPU.

    Returns:
        p = min(rows, cols) values. Those at or below q * 2**-52 * sigma_1 are exactly 0.

    Raises:
        ValueError: not a matrix, empty, another dtype, or an entry that is not finite.
        DecompositionError: no solver converged, or the machine's memory does not suffice.
    """
    if matrix.ndim != 2:
        raise ValueError(f"Expected a matrix, got a tensor of {matrix.ndim} dimensions.")
    tall = _longer_side_first(matrix)
    return singular_values_of_rows(
        lambda start, stop: tall[start:stop], _shape(tall), precision=precision, device=device
    )


@torch.no_grad()
def singular_values_of_rows(
    read_rows: ReadRows, shape: tuple[int, int], *, precision: Precision = "auto", device: str = "cpu"
) -> Spectrum:
    """Singular values of a matrix read in slices of rows, so that a tall one is never whole in memory.

    Args:
        read_rows: gives rows start..stop in storage dtype, (stop - start, cols). Called in ascending order, and again
            from the start when the matrix is redone. The rows of a wide matrix are asked for in one call.
        shape: (rows, cols).
        precision: as in `singular_values`, as are the result and the errors.
        device: the same.
    """
    if shape[0] < shape[1]:
        return singular_values(read_rows(0, shape[0]), precision=precision, device=device)
    if shape[1] < 1:
        raise ValueError(f"A matrix of shape {shape} holds no singular values.")
    device = "cpu" if device == "mps" else device
    with _clear_errors(shape):
        try:
            return _first_accurate(read_rows, shape, precision, device)
        except torch.OutOfMemoryError:  # raised by GPUs only
            return _first_accurate(read_rows, shape, precision, "cpu")


@torch.no_grad()
def batch_singular_values(
    matrices: Sequence[Tensor], *, precision: Precision = "auto", device: str = "cpu"
) -> list[Spectrum]:
    """Singular values of many matrices of one shape and dtype: experts, or one module type of a small model.

    On the CPU, matrices of p <= ONE_THREAD go side by side, each on one thread: its bytes are those of
    `singular_values` under one thread, whatever their number. Larger ones go one after the other. On a GPU they are
    stacked, as many as memory holds. Options, results and errors as in `singular_values`.
    """
    if not matrices:
        return []
    on_gpu = torch.device(device).type == "cuda"
    if not on_gpu and min(matrices[0].shape) <= ONE_THREAD:
        return _side_by_side(matrices, precision)
    if not on_gpu or precision == "float64":
        return [singular_values(matrix, precision=precision, device=device) for matrix in matrices]
    fitting = _fitting_count(matrices[0], device)
    groups = [matrices[start : start + fitting] for start in range(0, len(matrices), fitting)]
    return [spectrum for group in groups for spectrum in _halved_until_it_fits(group, precision, device)]


def _side_by_side(matrices: Sequence[Tensor], precision: Precision) -> list[Spectrum]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:  # the products' setting is one for the whole process: held here, so that no thread restores it under another
        with exact_products(), ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return list(pool.map(lambda matrix: singular_values(matrix, precision=precision), matrices))
    finally:
        torch.set_num_threads(threads)


@contextmanager
def _clear_errors(shape: tuple[int, int]) -> Iterator[None]:
    matrix = f"a matrix with sides {shape[0]} and {shape[1]}"
    try:
        yield
    except LinAlgError as error:
        raise DecompositionError(f"No solver converged for {matrix}: {_reason(error)}") from error
    except RuntimeError as error:
        if "DefaultCPUAllocator" not in str(error):  # torch has no type for want of the machine's own memory
            raise
        raise DecompositionError(f"The free memory does not suffice for {matrix}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    return one_line(str(error)).rstrip(".") + "."


def _first_accurate(read_rows: ReadRows, shape: tuple[int, int], precision: Precision, device: str) -> Spectrum:
    for path in GRAM_PATHS[precision]:
        try:
            spectrum = _by_gram(read_rows, shape, path, precision, device)
        except LinAlgError:  # has not converged, which another path may
            continue
        if spectrum.error <= TOLERANCE or precision == "float32":
            return spectrum
    return _by_svd(read_rows, shape, device)


def _by_gram(read_rows: ReadRows, shape: tuple[int, int], path: Path, precision: Precision, device: str) -> Spectrum:
    gram = gram_matrix(read_rows, shape, torch.float32 if path == "gram" else torch.float64, device)
    spectrum = _from_eigenvalues(torch.linalg.eigvalsh(gram.values), gram, shape[0], path)
    return _second_look(spectrum, gram, shape[0]) if precision == "auto" else spectrum


def _second_look(fast: Spectrum, gram: Gram, q: int) -> Spectrum:
    """Float64 eigenvalues of the same float32 Gram matrix, if only the eigenvalue solver was inaccurate."""
    if fast.path != "gram" or fast.error <= TOLERANCE:
        return fast
    eigenvalues = np.square(np.ldexp(fast.values, -gram.exponent))
    if _error(eigenvalues, gram, q, FLOAT32_GRAM) > TOLERANCE:
        return fast
    return _from_eigenvalues(torch.linalg.eigvalsh(gram.values.double()), gram, q, "gram-float64-eigenvalues")


def _by_svd(read_rows: ReadRows, shape: tuple[int, int], device: str) -> Spectrum:
    """Float64 SVD; a taller matrix is first reduced to its triangle, slice by slice."""
    q, p = shape
    triangle, exponent = torch.zeros(0, p, dtype=torch.float64, device=device), 0
    for panel in panels(read_rows, shape, max(1024, p), torch.float64, device):
        exponent = panel.exponent
        stacked = torch.cat([triangle * panel.shrink, panel.values.T])
        triangle = stacked if len(stacked) <= p else torch.linalg.qr(stacked, mode="r").R
    values = np.zeros(p)
    values[: len(triangle)] = _finite(torch.linalg.svdvals(triangle)).cpu().numpy()
    return _spectrum(values, exponent, q, "svd-float64", 0.0)


def _from_eigenvalues(ascending: Tensor, gram: Gram, q: int, path: Path) -> Spectrum:
    eigenvalues = _finite(ascending).double().cpu().numpy()[::-1]  # (p,), descending
    error = _error(eigenvalues, gram, q, ROUNDINGS[path]) if eigenvalues[0] > 0.0 else 0.0
    if path == "gram-float64" and not resolved(eigenvalues, FLOAT64, gram.entry_error()):
        error = float("inf")  # rank-deficient as far as float64 can tell: only the SVD finds exact zeros
    return _spectrum(np.sqrt(np.maximum(eigenvalues, 0.0)), gram.exponent, q, path, error)


def _error(eigenvalues: Array, gram: Gram, q: int, rounding: Rounding) -> float:
    error = score_error(eigenvalues, q, rounding, gram.entry_error())
    return error if error <= TOLERANCE else score_error(eigenvalues, q, rounding, gram.closer_entry_error())


def _finite(values: Tensor) -> Tensor:
    """Treat NaN as a failure to converge: MKL returns it for some Gram matrices of mostly zero matrices."""
    if not values.isfinite().all():
        raise LinAlgError("The solver returned values that are not finite.")
    return values


def _spectrum(values: Array, exponent: int, q: int, path: Path, error: float) -> Spectrum:
    # What float64 cannot tell from 0 is 0: without this rule rank-deficient matrices would score their rounding noise.
    told_apart = np.where(values > q * 2.0**-52 * values[0], values, 0.0)
    return Spectrum(np.ldexp(told_apart, exponent), path, error)


def _halved_until_it_fits(matrices: Sequence[Tensor], precision: Precision, device: str) -> list[Spectrum]:
    try:
        return _stacked(matrices, precision, device)
    except (torch.OutOfMemoryError, LinAlgError):
        middle = len(matrices) // 2
    if middle == 0:
        return [singular_values(matrices[0], precision=precision, device="cpu")]
    halves = (matrices[:middle], matrices[middle:])
    return [spectrum for half in halves for spectrum in _halved_until_it_fits(half, precision, device)]


def _stacked(matrices: Sequence[Tensor], precision: Precision, device: str) -> list[Spectrum]:
    """One batched product and one batched eigenvalue call; a matrix that is not accurate enough is redone alone."""
    stack, grams = gram_matrices([_longer_side_first(matrix) for matrix in matrices], device)
    ascending = torch.linalg.eigvalsh(stack).cpu()  # (b, p)
    return [
        _accurate(matrix, gram, row, precision, device)
        for matrix, gram, row in zip(matrices, grams, ascending, strict=True)
    ]


def _accurate(matrix: Tensor, gram: Gram, ascending: Tensor, precision: Precision, device: str) -> Spectrum:
    """The spectrum of one matrix of a stack from its eigenvalues, or a redone one."""
    try:
        fast = _from_eigenvalues(ascending, gram, max(matrix.shape), "gram")
        if precision == "float32":
            return fast
        found = _second_look(fast, gram, max(matrix.shape))
    except LinAlgError:
        return singular_values(matrix, precision=precision, device=device)
    return found if found.error <= TOLERANCE else singular_values(matrix, precision="float64", device=device)


def _fitting_count(matrix: Tensor, device: str) -> int:
    """How many matrices to stack in half the free memory: stored, three float32 copies, four Gram matrices each."""
    p, q = min(matrix.shape), max(matrix.shape)
    size_bytes = p * q * (matrix.element_size() + 3 * 4) + 4 * p * p * 4
    free_bytes, _ = torch.cuda.mem_get_info(torch.device(device))
    return max(1, free_bytes // 2 // max(1, size_bytes))


def _longer_side_first(matrix: Tensor) -> Tensor:
    return matrix if matrix.shape[0] >= matrix.shape[1] else matrix.T


def _shape(matrix: Tensor) -> tuple[int, int]:
    return matrix.shape[0], matrix.shape[1]
