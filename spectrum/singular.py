"""Singular values of a weight matrix: the only caller of torch.linalg.

The plain method: one SVD without vectors. A float32 SVD errs by a few roundings of the largest singular value
(LAPACK Users' Guide, 4.9: backward stable), which is harmless unless the threshold lies far below it; such a matrix
is redone in float64.
"""

from typing import Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt
import torch

Precision = Literal["auto", "float32", "float64"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
Array: TypeAlias = npt.NDArray[np.float64]


def singular_values(matrix: torch.Tensor, *, precision: Precision = "auto", device: str = "cpu") -> Array:
    """Singular values of one matrix.

    Args:
        matrix: (rows, cols), of any float dtype.
        precision: 'float32' or 'float64' as said; 'auto' takes float32 and redoes in float64 what it cannot resolve.
        device: where to decompose, as torch names it.

    Returns:
        (min(rows, cols),), descending, finite, non-negative. Values at or below max(rows, cols) * 2^-52 times the
        largest are exactly zero: no float64 decomposition tells them from zero.

    Raises:
        ValueError: the matrix is empty, not 2-D, or holds a NaN or an infinity.
    """
    check_matrix(matrix)
    wanted = torch.float64 if precision == "float64" or matrix.dtype == torch.float64 else torch.float32
    sigma = _decompose(matrix, wanted, device)
    if precision == "auto" and wanted == torch.float32 and not _resolved(sigma):
        sigma = _decompose(matrix, torch.float64, device)
    sigma[sigma <= max(matrix.shape) * np.finfo(np.float64).eps * sigma[0]] = 0.0
    return sigma


def check_matrix(matrix: torch.Tensor) -> None:
    """Raise ValueError unless the matrix is 2-D, not empty and finite."""
    if matrix.ndim != 2 or not matrix.numel():
        raise ValueError(f"shape {tuple(matrix.shape)} is no matrix")
    if not torch.isfinite(matrix).all():
        kind = "NaN" if torch.isnan(matrix).any() else "an infinite value"
        raise ValueError(f"it holds {kind}")


def _decompose(matrix: torch.Tensor, dtype: torch.dtype, device: str) -> Array:
    values = torch.linalg.svdvals(matrix.to(device=device, dtype=dtype))
    array: Array = values.to(device="cpu", dtype=torch.float64).numpy()
    return array.clip(min=0.0)


def _resolved(sigma: Array) -> bool:
    """Whether a float32 SVD resolves the bulk to 1e-5: its absolute error is a few float32 roundings of sigma[0]."""
    bulk = float(np.quantile(sigma, 0.25))
    return bool(bulk >= 4 * np.finfo(np.float32).eps * sigma[0] / 1e-5)
