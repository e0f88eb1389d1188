"""Threshold and SNR by float64 NumPy, and how far a found spectrum is off."""

import math

import numpy as np
import torch
from numpy.typing import NDArray

Array = NDArray[np.float64]


def reference_values(matrix: torch.Tensor) -> Array:
    """Singular values, (p,), descending, with those that float64 cannot tell from 0 set to 0."""
    values = np.linalg.svd(matrix.to(torch.float64).numpy(), compute_uv=False)
    return np.where(values > max(matrix.shape) * 2.0**-52 * values[0], values, 0.0)


def threshold_and_snr(values: Array, shape: tuple[int, ...]) -> tuple[float, float]:
    """The score as DESIGN writes it, noise model iqr; infinite when saturated."""
    p, q = min(shape), max(shape)
    lower, upper = np.quantile(values, [0.25, 0.75])
    threshold = (upper - lower) / 1.349 * (1 + math.sqrt(p / q))
    signal, noise = values[values > threshold].sum(), values[values <= threshold].sum()
    if signal == 0.0:
        return threshold, 0.0
    return threshold, signal / noise / values[0] if noise > 0 else math.inf


def relative(found: float, expected: float) -> float:
    """Relative difference; infinite if one of the two is 0 or infinite."""
    if found == expected:
        return 0.0
    return math.inf if expected in (0.0, math.inf) or math.isinf(found) else abs(found / expected - 1)


def score_difference(found: Array, expected: Array, shape: tuple[int, ...]) -> float:
    """The larger of the relative differences of threshold and SNR."""
    pairs = zip(threshold_and_snr(found, shape), threshold_and_snr(expected, shape), strict=True)
    return max(relative(ours, theirs) for ours, theirs in pairs)
