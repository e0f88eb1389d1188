"""The order within a module type, under each score."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from math import inf
from statistics import median
from typing import Literal

from spectrum.errors import SelectionError
from spectrum.naming import RANKED, natural_key
from spectrum.results.scan import ParameterScore, Scan
from spectrum.results.spectra import matrix_key
from spectrum.selection.comparison import Key

ScoreName = Literal["snr", "ratio", "stable-rank", "condition"]
SCORE_NAMES: Mapping[ScoreName, str] = {
    "snr": "SNR",
    "ratio": "ratio",
    "stable-rank": "stable rank",
    "condition": "condition number, lowest first",
}


def rank(parameters: Iterable[ParameterScore], keys: Mapping[str, Key] | None = None) -> tuple[ParameterScore, ...]:
    """Best first. Saturated ones lead, among them the larger sum(sigma)/sigma_1; what is left is ordered by name.

    Args:
        parameters: of one module type.
        keys: name -> key of another score; by default that of the SNR.
    """

    def key(item: ParameterScore) -> Key:
        return keys[item.name] if keys else snr_key(item)

    # Names are compared only where scores are equal: their keys cost more than all else.
    by_score = groupby(sorted(parameters, key=key), key=key)
    return tuple(item for _, tied in by_score for item in _by_name(tuple(tied)))


def snr_key(item: ParameterScore) -> Key:
    """Sorts the higher SNR first, and before any number those that are saturated."""
    return _signal_key(item, item.snr)


def score_keys(
    scan: Scan, score: ScoreName = "snr", *, conditions: Mapping[str, float] | None = None
) -> dict[str, Key]:
    """What orders the ranked parameters under a score, better ones first; equal keys are ties.

    snr, ratio: higher is better. stable-rank: higher is better, as sum(sigma)/sigma_1 is among saturated ones: the
    weight is spread over more directions. condition: lower is better, the order in which PEFT's KappaTune trains.

    Args:
        scan: whose parameters are ordered.
        score: by what.
        conditions: name -> condition number; needed for 'condition' only.

    Raises:
        SelectionError: an imported scan holds nothing but SNR.
    """
    items = [item for item in scan.parameters if item.kind in RANKED]
    if score == "condition":
        if conditions is None:
            raise SelectionError("Condition numbers are computed from the spectra of a scan; give them.")
        return {item.name: (conditions[item.name],) for item in items}
    if score == "snr":
        return {item.name: snr_key(item) for item in items}
    return {item.name: _fact_key(item, scan, score) for item in items}


def condition_numbers(scan: Scan, extremes: Mapping[str, tuple[float, float]]) -> dict[str, float]:
    """sigma_1 / sigma_p of each ranked parameter, the median over its matrices; infinite for singular ones.

    Args:
        scan: whose parameters are asked for.
        extremes: matrix key -> (largest, smallest) singular value.

    Raises:
        SelectionError: a matrix without singular values.
    """
    items = [item for item in scan.parameters if item.kind in RANKED]
    try:
        return {item.name: median(_condition(*extremes[key]) for key in _matrix_keys(item)) for item in items}
    except KeyError as error:
        raise SelectionError(f"The spectra file lacks the matrix {error}. Scan the model again.") from error


def _by_name(tied: Sequence[ParameterScore]) -> Sequence[ParameterScore]:
    return sorted(tied, key=lambda item: natural_key(item.name)) if len(tied) > 1 else tied


def _condition(largest: float, smallest: float) -> float:
    return largest / smallest if smallest > 0 else inf


def _matrix_keys(item: ParameterScore) -> Sequence[str]:
    return [matrix_key(item.name, matrix.label) for matrix in item.matrices] or [item.name]


def _fact_key(item: ParameterScore, scan: Scan, score: Literal["ratio", "stable-rank"]) -> Key:
    if item.score is None:
        raise SelectionError(
            f"'{item.name}' has no {SCORE_NAMES[score]}: the scan was imported from "
            f"'{scan.settings.origin}', which holds SNR only. Choose by --score snr, or scan the model."
        )
    return (-item.score.stable_rank,) if score == "stable-rank" else _signal_key(item, item.score.ratio)


def _signal_key(item: ParameterScore, value: float | None) -> Key:
    if value is not None:
        return (-value, 0.0)
    spread = item.score.nuclear / item.score.sigma_max if item.score and item.score.sigma_max > 0 else 0.0
    return (-inf, -spread)
