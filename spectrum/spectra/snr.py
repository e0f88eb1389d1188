"""Threshold and signal-to-noise ratio of singular values: pure arithmetic, without torch.

The noise models differ only in the threshold; docs/explanation/score.md says what each of them means.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[np.float64]
NoiseModel = Literal["iqr", "mp", "gavish-donoho", "std"]
NOISE_MODELS: tuple[NoiseModel, ...] = get_args(NoiseModel)

NORMAL_IQR = 1.349  # interquartile range of a unit normal, rounded as in the authors' program


@dataclass(frozen=True)
class Score:
    """The numbers that summarise a spectrum. For several matrices, each number is a median.

    Attributes:
        snr: ratio / sigma_max, in units of 1/weight; None if saturated.
        saturated: nothing lies at or below the threshold, or only exact zeros do.
        ratio: sum of the singular values above the threshold over the sum of the rest; None if saturated.
        sigma_max: largest singular value.
        threshold: singular values above it are signal.
        signal_count: number of singular values above it.
        nuclear: sum of all singular values.
        stable_rank: sum of squares over the largest square; 0 for a zero matrix.
    """

    snr: float | None
    saturated: bool
    ratio: float | None
    sigma_max: float
    threshold: float
    signal_count: float
    nuclear: float
    stable_rank: float


def snr(spectrum: Array, shape: tuple[int, int], *, noise_model: NoiseModel = "iqr") -> Score:
    """Signal-to-noise ratio of a weight matrix, divided by its largest singular value.

    Args:
        spectrum: (p,), descending, finite, non-negative; p = min(shape).
        shape: (rows, cols) of the matrix; only its smaller and larger side enter, so a transpose scores the same.
        noise_model: defines the threshold, see `threshold`.

    Returns:
        A score in units of 1/weight: scaling the matrix by c > 0 scales it by 1/c. It is 0 if no value is above the
        threshold, and saturated if none, or only zeros, are at or below it.

    Raises:
        ValueError: wrong number of values, values that are negative, not finite or not descending, or so small
            or large that the score leaves the range of a float.

    Source: arXiv 2406.06623, section 3.6. The noise scale of `iqr` is the interquartile range of the singular
        values, not of the entries, so the threshold is not the Marchenko-Pastur edge of entry noise.
    """
    sigma = _checked(spectrum, shape)
    with np.errstate(over="ignore"):
        nuclear = _finite(float(sigma.sum()))
    eps = threshold(sigma, shape, noise_model=noise_model)
    is_signal = sigma > eps  # strictly: a value on the threshold is noise, as in the authors' program
    signal, noise = float(sigma[is_signal].sum()), float(sigma[~is_signal].sum())
    saturated = signal > 0 and noise == 0
    ratio = None if saturated else signal / noise if signal > 0 else 0.0
    sigma_max = float(sigma[0])
    return Score(
        snr=None if ratio is None else _finite(ratio / sigma_max) if ratio > 0 else 0.0,
        saturated=saturated,
        ratio=ratio,
        sigma_max=sigma_max,
        threshold=eps,
        signal_count=int(is_signal.sum()),
        nuclear=nuclear,
        stable_rank=float(np.square(sigma / sigma_max).sum()) if sigma_max > 0 else 0.0,
    )


def threshold(sigma: Array, shape: tuple[int, int], *, noise_model: NoiseModel = "iqr") -> float:
    """The value above which a singular value counts as signal.

    Args:
        sigma: (p,), descending; p = min(shape).
        shape: (rows, cols) of the matrix; p is its smaller, q its larger side.
        noise_model:
            iqr: s * (1 + sqrt(p/q)), s = interquartile range of the singular values / 1.349 (arXiv 2406.06623, 3.6).
            std: the same with s = standard deviation of the singular values, the paper's formula
                before it is made robust.
            mp: noise * (sqrt(p) + sqrt(q)), the upper edge of the Marchenko-Pastur law for entries of standard
                deviation `noise`, which is the median singular value over the law's median.
            gavish-donoho: the hard threshold that is optimal for unknown noise (arXiv 1305.5870, section III.E),
                lambda(p/q) / sqrt(median of the law) times the median singular value.

    Returns:
        Same unit as the singular values.
    """
    return float(_THRESHOLDS[noise_model](sigma, min(shape), max(shape)))


def snr_of_each(spectra: Array, shape: tuple[int, int], *, noise_model: NoiseModel = "iqr") -> Array:
    """The SNR of many matrices of one shape at once; equal to `snr` up to rounding.

    Args:
        spectra: (k, p), each descending, finite, non-negative; p = min(shape).
        shape: (rows, cols) of every matrix.
        noise_model: defines the thresholds.

    Returns:
        (k,); infinity if saturated.

    Raises:
        ValueError: as for `snr`.
    """
    sigma = _checked(spectra, shape, stacked=True)
    is_signal = sigma > _THRESHOLDS[noise_model](sigma, min(shape), max(shape))[:, np.newaxis]
    with np.errstate(over="ignore"):
        signal, noise = np.where(is_signal, sigma, 0).sum(axis=1), np.where(is_signal, 0, sigma).sum(axis=1)
        saturated = (signal > 0) & (noise == 0)
        scored = (signal > 0) & ~saturated
        values = np.where(saturated, math.inf, 0.0)
        values[scored] = signal[scored] / noise[scored] / sigma[scored, 0]
        _finite(float((signal + noise).max()))
    _finite(float(values[scored].max(initial=0)))
    return values


# Each takes the values of one matrix, or of several of one shape: (..., p) to (...).
def _iqr_threshold(sigma: Array, p: int, q: int) -> Array:
    lower, upper = np.quantile(sigma, [0.25, 0.75], axis=-1)  # linear interpolation between order statistics
    return np.asarray((upper - lower) / NORMAL_IQR * (1 + math.sqrt(p / q)))


def _std_threshold(sigma: Array, p: int, q: int) -> Array:
    return np.asarray(np.std(sigma, axis=-1) * (1 + math.sqrt(p / q)))


def _mp_threshold(sigma: Array, p: int, q: int) -> Array:
    noise = np.median(sigma, axis=-1) / math.sqrt(q * marchenko_pastur_median(p / q))
    return np.asarray(noise * (math.sqrt(p) + math.sqrt(q)))


def _gavish_donoho_threshold(sigma: Array, p: int, q: int) -> Array:
    beta = p / q
    coefficient = math.sqrt(2 * (beta + 1) + 8 * beta / (beta + 1 + math.sqrt(beta**2 + 14 * beta + 1)))
    return np.asarray(coefficient / math.sqrt(marchenko_pastur_median(beta)) * np.median(sigma, axis=-1))


_THRESHOLDS: dict[NoiseModel, Callable[[Array, int, int], Array]] = {
    "iqr": _iqr_threshold,
    "std": _std_threshold,
    "mp": _mp_threshold,
    "gavish-donoho": _gavish_donoho_threshold,
}


@lru_cache(maxsize=256)
def marchenko_pastur_median(beta: float) -> float:
    """Median of the Marchenko-Pastur law for unit noise, of the eigenvalues of (1/q) W W^T with aspect beta = p/q.

    Args:
        beta: 0 < beta <= 1.

    Returns:
        Between (1 - sqrt(beta))^2 and (1 + sqrt(beta))^2; 0.6528 at beta = 1.

    Source: density sqrt((b-x)(x-a)) / (2 pi beta x), Marchenko and Pastur 1967. Substituting x = a + (b-a) sin(t)^2
        removes the square roots, and t = (pi/2) u^4 makes the grid finest at the lower edge, where the density of a
        nearly square matrix turns within (1 - sqrt(beta)) / 2 of t. The trapezoid rule on 20001 points agrees with one
        on ten times as many to 1e-8 for every beta.
    """
    a, b = (1 - math.sqrt(beta)) ** 2, (1 + math.sqrt(beta)) ** 2
    u = np.linspace(0, 1, 20_001)
    t = math.pi / 2 * u**4
    x = a + (b - a) * np.sin(t) ** 2
    with np.errstate(invalid="ignore"):
        density = (np.sin(t) * np.cos(t)) ** 2 / x * u**3  # up to a constant factor
    density[0] = 0.0  # 0/0 if beta = 1
    cumulative = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2)])
    middle = np.interp(cumulative[-1] / 2, cumulative, u)
    return float(a + (b - a) * math.sin(math.pi / 2 * middle**4) ** 2)


def median_score(scores: Sequence[Score]) -> Score:
    """Score of a parameter that holds several matrices: the median of each number.

    A saturated matrix counts as infinite. A median that falls on one, or between one and an unsaturated one, is
    saturated.
    """
    if len(scores) == 1:
        return scores[0]
    medians = {
        field.name: float(np.median([_or_infinite(getattr(score, field.name)) for score in scores]))
        for field in fields(Score)
        if field.name != "saturated"
    }
    saturated = math.isinf(medians["snr"])
    ratio = None if saturated else medians["ratio"]
    value = None if saturated else medians["snr"]
    return Score(**{**medians, "snr": value, "ratio": ratio, "saturated": saturated})  # type: ignore[arg-type]


def _or_infinite(number: float | None) -> float:
    return math.inf if number is None else number


def _checked(spectrum: Array, shape: tuple[int, int], *, stacked: bool = False) -> Array:
    sigma = np.asarray(spectrum, dtype=np.float64)
    if sigma.shape[stacked:] != (min(shape),) or not sigma.size:
        raise ValueError(f"a matrix of shape {shape} has {min(shape)} singular values, got an array {sigma.shape}")
    # Order first: then the first value is the largest and the last the smallest. NaN fails every comparison.
    ordered = (sigma[..., :-1] >= sigma[..., 1:]).all()
    if not ordered or not np.isfinite(sigma[..., 0]).all() or (sigma[..., -1] < 0).any():
        raise ValueError("singular values must be finite, non-negative and descending")
    return sigma


def _finite(number: float) -> float:
    if not math.isfinite(number):
        raise ValueError("the singular values are too small or too large: their score leaves the range of a float")
    return number
