"""How far the score of an approximate spectrum can be off: the number that decides whether a matrix is redone.

Rounding moves an eigenvalue lambda of the p x p Gram matrix G by about

    unit * (local * lambda + spread * norm(G) / p)

The first term is the eigenvalue solver's, which works at the scale of the eigenvalues around; the second is the
rounding of G's entries, whose root mean square is norm(G) / p, seen by one eigenvector. The worst-case bound unit *
lambda_1 would be about p times larger than the second term and would redo almost everything.

Calibrated twice. Once on 1164 matrices, 8 x 8 to 1024 x 4096, in all four dtypes (MiniLM, Gaussian, 1 and 5 values 10
to 1e5 times the bulk, one large row or column, power laws, Student entries, uneven rows, rank-deficient, equal): the
scores that FLOAT32 let pass were at most 1.7e-5 off and at most 0.35 of their estimate; MiniLM at most 3e-6 and fast.
Then, for FLOAT32_GRAM and the edges, on 1480 matrices of these and more families (64 x 64 to 768 x 6144), and from end
to end on 2812 others of the same (8 x 8 to 1024 x 4096): passed at most 3.2e-5 off and at most 0.5 of the estimate.

A value too near the threshold to call makes SNR jump, by 1e-3 at p = 4096, and is the only reason to doubt a Gaussian
matrix. The solver dominates: but for the ends of a Gaussian spectrum the standard deviation of its error is 7 to 18
units of the eigenvalue (p = 256 to 2048; from p = 2048 on there is a shift too), that of the Gram matrix's 0.3 to 4.
Hence FLOAT32_GRAM. Share of matrices with such a value, from the number within 30 times the doubtful distance:

    matrix                        p      FLOAT32   FLOAT32_GRAM   matrices
    Gaussian, square              512    0.14 %    0.02 %         400
                                  1024   0.3 %     0.05 %         500
    power law 0.5, square         1024   1.8 %     0.4 %          60
                                  2048   2.5 %     1.0 %          20
    power law 0.8, square         1024   4.1 %     2.3 %          40

At p = 4096 FLOAT32 doubts 1.2 % (Gaussian) and 6 % (power law 0.5). A smaller doubt would lower that but is not sound:
of the 20 values nearest the threshold the worst was usually 0.1 to 0.6 of the doubt off, but at p = 2048 it was 0.96 in
one of 19 Gaussian matrices and 1.2 and 1.3 in two of 7 exponential spectra; only a value that lies as near is then
misjudged. To subtract the solver's shift, which the trace tells, helped some families and harmed others.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

NORMAL_IQR = 1.349  # interquartile range of a unit normal; the score's threshold divides by it
EDGE = 0.05  # share of the values, at either end of the spectrum, that counts as its edge


@dataclass(frozen=True)
class Rounding:
    """How much the eigenvalues are off, in units of `unit`, for one way to compute them.

    Attributes:
        unit: half the spacing of floats at 1.
        local: of the eigenvalue itself.
        spread: of norm(G) / p.
        largest: of lambda_1, for lambda_1 alone.
        edge: how many times more a value at the edge is off, which matters where the threshold lies there.
    """

    unit: float
    local: float
    spread: float
    largest: float
    edge: float


# local: the largest seen between the quartiles is 38 (p <= 2048), 57 (p = 4096).
# spread: typical 5; eigenvalues crowded at an edge reach 50 to 400, but no quartile or sum of them did.
# largest: eigenvalues crowded at the edge of a Gaussian bulk reached 558 at p = 4096.
# edge: 8.5 seen, in the lowest twentieth of a Gaussian matrix four times as long as wide.
FLOAT32 = Rounding(unit=2.0**-24, local=40.0, spread=50.0, largest=600.0, edge=10.0)
# The solver's part left out: at most 0.67 of it off, thresholds at an edge included; lambda_1 by 3 units.
FLOAT32_GRAM = Rounding(unit=2.0**-24, local=4.0, spread=30.0, largest=20.0, edge=2.0)
FLOAT64 = Rounding(unit=2.0**-53, local=40.0, spread=50.0, largest=600.0, edge=10.0)


def score_error(eigenvalues: Array, q: int, rounding: Rounding, entry_error: float = 0.0) -> float:
    """Estimate the relative error of threshold and SNR (noise model iqr) that come from rounded eigenvalues.

    For the other noise models, computed later from the same spectrum, the sums and the quantile or moment behind the
    threshold are as good, but nobody has looked whether a value lies too near that other threshold to be called: then
    SNR can be off by what that one value weighs.

    Args:
        eigenvalues: (p,), descending, of the Gram matrix of the smaller side; slightly negative ones count as 0.
        q: the longer side.
        rounding: FLOAT32, FLOAT32_GRAM (float64 eigenvalues of a float32 Gram matrix) or FLOAT64.
        entry_error: of the Gram matrix, on the scale of the eigenvalues.

    Returns:
        The larger of the two relative errors. A singular value too near the threshold to be called signal or noise
        counts with its whole size, so a saturated or an empty noise part that could flip is infinite, and so is a
        threshold that cannot be told from 0.
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
    moving = values[undecided].sum()  # counts in both parts: it leaves one and joins the other, which may be empty
    parts = sum(
        _relative(float(errors[part & ~undecided].sum() + moving), float(values[part].sum()))
        for part in (signal, noise)
    )
    return max(threshold_error / threshold, parts + 0.5 * rounding.largest * rounding.unit)


def value_errors(eigenvalues: Array, rounding: Rounding, entry_error: float = 0.0) -> Array:
    """Error of each singular value, (p,): to first order where it is resolved, else the size it could hide at."""
    clipped = np.maximum(eigenvalues, 0.0)
    moved = _eigenvalue_errors(eigenvalues, rounding, entry_error)
    slope = np.sqrt(np.maximum(clipped, moved)) + np.sqrt(np.maximum(clipped - moved, 0.0))
    # Twice the root: rank-deficient matrices were the only family that came close to the plain root.
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
    widened[max(count, errors.size - count) :] *= factor  # each once, also where there is one value
    return widened


def _quartile(descending: Array, fraction: float) -> float:
    """Linear interpolation between order statistics, also of the errors that belong to them."""
    return float(np.interp((1.0 - fraction) * (descending.size - 1), np.arange(descending.size), descending))


def _relative(error: float, total: float) -> float:
    if error == 0.0:
        return 0.0
    return error / total if total > 0.0 else float("inf")
