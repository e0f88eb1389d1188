"""Estimate how far the score of rounded eigenvalues can be off, which decides whether a matrix is redone.

The formula, its constants and their calibration: docs/explanation/accuracy.md.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from spectrum.spectra.snr import NORMAL_IQR, Array

EDGE = 0.05  # share of the values, at either end of the spectrum, that counts as its edge


@dataclass(frozen=True)
class Rounding:
    """How much the eigenvalues are off, in units of `unit`, for one way to compute them.

    Attributes:
        unit: half the spacing of floats at 1.
        local: of the eigenvalue itself.
        spread: of norm(G) / p.
        largest: of lambda_1, for lambda_1 alone.
        edge: factor for values at the edge of the spectrum, which matters if the threshold lies there.
    """

    unit: float
    local: float
    spread: float
    largest: float
    edge: float


FLOAT32 = Rounding(unit=2.0**-24, local=40.0, spread=50.0, largest=600.0, edge=10.0)
# Float64 eigenvalues of a float32 Gram matrix: only the rounding of the matrix remains.
FLOAT32_GRAM = Rounding(unit=2.0**-24, local=4.0, spread=30.0, largest=20.0, edge=2.0)
FLOAT64 = Rounding(unit=2.0**-53, local=40.0, spread=50.0, largest=600.0, edge=10.0)


def score_error(eigenvalues: Array, q: int, rounding: Rounding, entry_error: float = 0.0) -> float:
    """Estimate the relative error of threshold and SNR (noise model iqr) that come from rounded eigenvalues.

    For other noise models the sums and the threshold are as good, but a value too near that other threshold goes
    unnoticed.

    Args:
        eigenvalues: (p,), descending, of the Gram matrix of the smaller side; slightly negative ones count as 0.
        q: the longer side.
        rounding: FLOAT32, FLOAT32_GRAM or FLOAT64.
        entry_error: see `Gram.entry_error`; on the scale of the eigenvalues.

    Returns:
        The larger of the two relative errors. A singular value too near the threshold to be called signal or noise
        counts with its whole size. Infinite if that could empty or fill a part, or if the threshold may be 0.
    """
    values = np.sqrt(np.maximum(eigenvalues, 0.0))  # (p,), descending
    errors = value_errors(eigenvalues, rounding, entry_error)
    factor = float(1.0 + np.sqrt(values.size / q)) / NORMAL_IQR
    threshold = float((_quartile(values, 0.75) - _quartile(values, 0.25)) * factor)
    threshold_error = float(np.hypot(_quartile(errors, 0.75), _quartile(errors, 0.25))) * factor
    if threshold_error >= threshold:
        return float("inf")
    undecided = np.abs(values - threshold) <= np.hypot(_widened(errors, rounding.edge), threshold_error)
    signal, noise = values > threshold, values <= threshold
    moving = values[undecided].sum()  # counted in both parts, since it may leave either
    parts = sum(
        _relative(float(errors[part & ~undecided].sum() + moving), float(values[part].sum()))
        for part in (signal, noise)
    )
    return max(threshold_error / threshold, parts + 0.5 * rounding.largest * rounding.unit)


def value_errors(eigenvalues: Array, rounding: Rounding, entry_error: float = 0.0) -> Array:
    """Error of each singular value, (p,): to first order if it is larger than its error, else a bound on its size."""
    clipped = np.maximum(eigenvalues, 0.0)
    moved = _eigenvalue_errors(eigenvalues, rounding, entry_error)
    slope = np.sqrt(np.maximum(clipped, moved)) + np.sqrt(np.maximum(clipped - moved, 0.0))
    # Twice the root, because rank-deficient matrices came close to the plain root.
    return np.where(clipped > moved, moved / slope, 2.0 * np.sqrt(moved))


def resolved(eigenvalues: Array, rounding: Rounding, entry_error: float = 0.0) -> bool:
    """Whether every eigenvalue is larger than its error."""
    return bool(np.all(eigenvalues > _eigenvalue_errors(eigenvalues, rounding, entry_error)))


def _eigenvalue_errors(eigenvalues: Array, rounding: Rounding, entry_error: float) -> Array:
    spread = float(np.linalg.norm(eigenvalues)) / eigenvalues.size
    return rounding.unit * (rounding.local * np.maximum(eigenvalues, 0.0) + rounding.spread * spread) + entry_error


def _widened(errors: Array, factor: float) -> Array:
    """The errors, `factor` times larger at both edges of the spectrum."""
    count = math.ceil(EDGE * errors.size)
    widened: Array = errors.copy()
    widened[:count] *= factor
    widened[max(count, errors.size - count) :] *= factor  # max: no value is widened twice
    return widened


def _quartile(descending: Array, fraction: float) -> float:
    """Linear interpolation between order statistics, also of the errors that belong to them."""
    return float(np.interp((1.0 - fraction) * (descending.size - 1), np.arange(descending.size), descending))


def _relative(error: float, total: float) -> float:
    if error == 0.0:
        return 0.0
    return error / total if total > 0.0 else float("inf")
