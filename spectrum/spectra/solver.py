"""Matrix to singular values, by the cheapest of four paths that is accurate enough.

Paths, measurements and rejected alternatives: docs/explanation/accuracy.md.
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
from spectrum.spectra.accuracy import FLOAT32, FLOAT32_GRAM, FLOAT64, Rounding, resolved, score_error
from spectrum.spectra.gram import Gram, ReadRows, exact_products, gram_matrices, gram_matrix, panels
from spectrum.spectra.snr import Array

Precision = Literal["auto", "float32", "float64"]
Path = Literal["gram", "gram-float64-eigenvalues", "gram-float64", "svd-float64"]  # in the order they are tried

# Counted up when results of the former method can no longer be trusted: stored spectra are then computed again.
# 1 was release 0.1.0, whose numbers were wrong for matrices with repeated bfloat16 rows and for some sparse ones.
ALGORITHM = 2
ONE_THREAD = 1024  # up to this p, two matrices at once are faster than two threads on each
TOLERANCE = 1e-4  # relative, of SNR and threshold: the accuracy contract
GRAM_PATHS: dict[Precision, tuple[Path, ...]] = {  # before the SVD; 'gram' includes its second look
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
    path: Path
    error: float  # estimated relative error of SNR and threshold; 0 after an SVD


@torch.no_grad()
def singular_values(matrix: Tensor, *, precision: Precision = "auto", device: str = "cpu") -> Spectrum:
    """Singular values of a matrix. Its transpose gives the same bytes, and 2**k times it exactly 2**k times them.

    Args:
        matrix: (rows, cols), bfloat16, float16, float32 or float64, on any device; upcast only slice by slice.
        precision: 'auto' works in float32 and redoes the matrix in float64 if its estimate is above TOLERANCE;
            'float32' does not redo it, unless no result was finite; 'float64' starts in float64.
        device: 'cpu', 'cuda', 'cuda:N' or 'mps' (computed on the CPU, because MPS has no solver).
            A matrix that does not fit into a GPU's memory is computed on the CPU.

    Returns:
        p = min(rows, cols) values. Those at or below q * 2**-52 * sigma_1 are exactly 0.

    Raises:
        ValueError: not a matrix, empty, another dtype, or an entry that is not finite.
        DecompositionError: no solver converged, or memory ran out.
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
    """Singular values of a matrix that is read in slices of rows, so that a tall one is never whole in memory.

    Args:
        read_rows: returns rows start..stop in storage dtype, (stop - start, cols). Called in ascending order, and again
            from the start if the matrix is redone. A wide matrix is read in one call.
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

    On the CPU, matrices of p <= ONE_THREAD are computed in parallel, each on one thread, with the same bytes as
    `singular_values` gives on one thread. Larger ones are computed in turn. On a GPU they are stacked, as many as fit
    into its memory. Options, results and errors as in `singular_values`.
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
    try:  # the precision of products is global: set it once, so that no thread restores it while another multiplies
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
        if "DefaultCPUAllocator" not in str(error):  # torch has no exception type for this
            raise
        raise DecompositionError(f"There is not enough free memory for {matrix}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    return one_line(str(error)).rstrip(".") + "."


def _first_accurate(read_rows: ReadRows, shape: tuple[int, int], precision: Precision, device: str) -> Spectrum:
    for path in GRAM_PATHS[precision]:
        try:
            spectrum = _by_gram(read_rows, shape, path, precision, device)
        except LinAlgError:  # another path may converge
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
    # Otherwise the score of a rank-deficient matrix would be that of its rounding noise.
    resolvable = np.where(values > q * 2.0**-52 * values[0], values, 0.0)
    return Spectrum(np.ldexp(resolvable, exponent), path, error)


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
