"""The order within a module type, by each score."""

from collections.abc import Iterable, Mapping
from itertools import groupby
from math import inf
from pathlib import Path
from statistics import median
from typing import Literal

from spectrum.errors import SelectionError
from spectrum.naming import RANKED, natural_key
from spectrum.results import read_extremes
from spectrum.results.scan import ParameterScore, Scan
from spectrum.results.spectra import matrix_key
from spectrum.selection.choice import Choice, ScoreName
from spectrum.selection.comparison import Key

SCORE_NAMES: Mapping[ScoreName, str] = {
    "snr": "SNR", "ratio": "ratio", "stable-rank": "stable rank", "condition": "condition number, lowest first",
}  # fmt: skip


def rank(parameters: Iterable[ParameterScore], keys: Mapping[str, Key] | None = None) -> tuple[ParameterScore, ...]:
    """Best first. Saturated ones lead, the larger sum(sigma)/sigma_1 first; remaining ties are ordered by name.

    Args:
        parameters: of one module type.
        keys: name -> key of another score; by default that of the SNR.
    """

    def key(item: ParameterScore) -> Key:
        return keys[item.name] if keys else _signal_key(item, item.snr)

    # Names are compared only if scores are equal: natural keys are the most expensive part.
    ranked: list[ParameterScore] = []
    for _, tied in groupby(sorted(parameters, key=key), key=key):
        items = list(tied)
        ranked += sorted(items, key=lambda item: natural_key(item.name)) if len(items) > 1 else items
    return tuple(ranked)


def score_keys(
    scan: Scan, score: ScoreName = "snr", *, conditions: Mapping[str, float] | None = None
) -> dict[str, Key]:
    """Keys that order the ranked parameters by a score, better ones first; equal keys are ties.

    snr, ratio: higher is better. stable-rank: higher is better, because the weight is spread over more directions.
    condition: lower is better, the order in which PEFT's KappaTune trains.

    Args:
        scan: whose parameters are ordered.
        score: by which they are ordered.
        conditions: name -> condition number; needed for 'condition' only.

    Raises:
        SelectionError: an imported scan, which holds SNR only.
    """
    items = [item for item in scan.parameters if item.kind in RANKED]
    if score == "condition":
        if conditions is None:
            raise SelectionError("Condition numbers are computed from the spectra of a scan; give them.")
        return {item.name: (conditions[item.name],) for item in items}
    if score == "snr":
        return {item.name: _signal_key(item, item.snr) for item in items}
    return {item.name: _fact_key(item, scan, score) for item in items}


def read_conditions(scan: Scan, choice: Choice, spectra: Path) -> dict[str, float] | None:
    """Condition numbers from the file of the scan's singular values if the choice ranks by them, else None.

    Raises:
        SelectionError: an imported scan, which has no spectra.
        ScanFileError: the file is missing, damaged or of other weights.
    """
    if choice.score != "condition":
        return None
    if scan.settings.origin is not None:
        raise SelectionError(
            f"The scan was imported from '{scan.settings.origin}', which holds SNR only: no singular values, and so no "
            "condition numbers. Choose by --score snr, or scan the model."
        )
    return condition_numbers(scan, read_extremes(spectra, fingerprint=scan.model.fingerprint))


def condition_numbers(scan: Scan, extremes: Mapping[str, tuple[float, float]]) -> dict[str, float]:
    """sigma_1 / sigma_p of each ranked parameter, the median over its matrices; infinite for singular ones.

    Args:
        scan: whose parameters are asked for.
        extremes: matrix key -> (largest, smallest) singular value.

    Raises:
        SelectionError: a matrix without singular values.
    """
    keys = {
        item.name: [matrix_key(item.name, matrix.label) for matrix in item.matrices] or [item.name]
        for item in scan.parameters
        if item.kind in RANKED
    }
    try:
        ends = {name: [extremes[key] for key in matrices] for name, matrices in keys.items()}
    except KeyError as error:
        raise SelectionError(f"The spectra file lacks the matrix {error}. Scan the model again.") from error
    return {name: median(large / small if small > 0 else inf for large, small in pairs) for name, pairs in ends.items()}


def _fact_key(item: ParameterScore, scan: Scan, score: Literal["ratio", "stable-rank"]) -> Key:
    if item.score is None:
        raise SelectionError(
            f"'{item.name}' has no {SCORE_NAMES[score]}: the scan was imported from "
            f"'{scan.settings.origin}', which holds SNR only. Choose by --score snr, or scan the model."
        )
    return (-item.score.stable_rank,) if score == "stable-rank" else _signal_key(item, item.score.ratio)


def _signal_key(item: ParameterScore, value: float | None) -> Key:
    """Sorts higher values first, and saturated ones before any number."""
    if value is not None:
        return (-value, 0.0)
    spread = item.score.nuclear / item.score.sigma_max if item.score and item.score.sigma_max > 0 else 0.0
    return (-inf, -spread)
