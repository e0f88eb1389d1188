"""The options that say what to select, read together."""

import re
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from statistics import median

import typer

from spectrum.errors import SpectrumError
from spectrum.results import Scan, read_extremes
from spectrum.selection import (
    Choice,
    Count,
    MaxWeights,
    MinSnr,
    Overlap,
    PerType,
    Rule,
    ScoreName,
    Strategy,
    TopPercent,
    Treatment,
    condition_numbers,
)
from spectrum.untrusted import shown

_SCALES = {"": 1, "K": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}


def read_choice(
    *,
    top: float | None,
    count: int | None,
    min_snr: float | None,
    max_params: str | None,
    trainable: str | None,
    per_type: str | None,
    whole_layers: bool,
    score: ScoreName,
    strategy: Strategy,
    seed: int | None,
    embeddings: Treatment,
    norms: Treatment,
) -> Choice:
    """The choice that the options make together; those that exclude each other are wrong usage."""
    rules = {
        "--top": top,
        "--count": count,
        "--min-snr": min_snr,
        "--max-params": max_params,
        "--trainable": trainable,
        "--per-type": per_type,
    }
    given = [name for name, value in rules.items() if value is not None]
    if len(given) > 1 and given != ["--top", "--per-type"]:
        _refuse(given[0], given[1])
    if whole_layers and given in (["--min-snr"], ["--per-type"], ["--top", "--per-type"]):
        _refuse("--whole-layers", given[-1])
    if min_snr is not None and score != "snr":
        _refuse("--min-snr", f"--score {score}")
    if seed is not None and strategy != "random":
        raise typer.BadParameter("only --strategy random draws by a seed.", param_hint="--seed")
    return Choice(
        _rule(top, count, min_snr, max_params, trainable, per_type),
        score=score,
        strategy=strategy,
        seed=seed or 0,
        whole_layers=whole_layers,
        embeddings=embeddings,
        norms=norms,
    )


def read_conditions(scan: Scan, choice: Choice, spectra: Path) -> dict[str, float] | None:
    """Condition numbers from the stored spectra, where the choice ranks by them.

    Raises:
        SpectrumError: an imported scan has no spectra; the file is missing, damaged or of other weights.
    """
    if choice.score != "condition":
        return None
    if scan.settings.origin is not None:
        raise SpectrumError(
            f"The scan was imported from '{scan.settings.origin}', which holds SNR only: no singular values, and so no "
            "condition numbers. Choose by --score snr, or scan the model."
        )
    return condition_numbers(scan, read_extremes(spectra, fingerprint=scan.model.fingerprint))


def overlap_lines(found: Overlap | None) -> list[str]:
    """The comparison with the plain selection, in words."""
    if found is None:
        return []
    parameters = "1 parameter" if found.shared == 1 else f"{found.shared} parameters"
    lines = [f"overlap with {found.plain}: {parameters} in both, Jaccard {found.jaccard:.3f}"]
    return lines + ([f"rankings against those: Spearman {_spread(found.correlations)}"] if found.correlations else [])


def _spread(correlations: Mapping[str, float | None]) -> str:
    known = {name: value for name, value in correlations.items() if value is not None}
    if not known:
        return "-"
    low, high = min(known, key=known.__getitem__), max(known, key=known.__getitem__)
    return f"{known[low]:.3f} ({low}) to {known[high]:.3f} ({high}), median {median(known.values()):.3f}"


def _refuse(one: str, other: str) -> None:
    raise typer.BadParameter(f"give {one} or {other}, not both.", param_hint=one)


def _rule(
    top: float | None,
    count: int | None,
    min_snr: float | None,
    max_params: str | None,
    trainable: str | None,
    per_type: str | None,
) -> Rule:
    if count is not None:
        return Count(count)
    if min_snr is not None:
        if not 0 <= min_snr < float("inf"):
            raise typer.BadParameter(f"{min_snr:g} is no SNR: give a finite number, 0 or more.", param_hint="--min-snr")
        return MinSnr(min_snr)
    if max_params is not None:
        return MaxWeights(limit=weights(max_params))
    if trainable is not None:
        return MaxWeights(model_percent=_percent(trainable, "--trainable"))
    if per_type is not None:
        return PerType(tuple(map(_per_type, per_type.split(","))), otherwise=top)
    return TopPercent(25 if top is None else top)


def weights(text: str) -> int:
    """A number of weights such as 2.5B, exactly."""
    found = re.fullmatch(r"([0-9]{1,18}(?:\.[0-9]{1,18})?) ?([KMBT]?)", text.strip(), flags=re.ASCII | re.IGNORECASE)
    number = Fraction(found[1]) * _SCALES[found[2].upper()] if found else Fraction(0)
    if number < 1 or number.denominator > 1:
        raise typer.BadParameter(
            f"{shown(text)} is no number of weights: give a whole number, or one such as 30k, 800M or 2.5B.",
            param_hint="--max-params",
        )
    return int(number)


def _percent(text: str, option: str, *, least: str = "more than 0") -> float:
    found = re.fullmatch(r"([0-9]{1,3}(?:\.[0-9]{1,12})?) ?%?", text.strip(), flags=re.ASCII)
    value = float(found[1]) if found else -1.0
    if not 0 <= value <= 100 or (value == 0 and least != "0"):
        raise typer.BadParameter(f"{shown(text)} is no percentage: give {least} and at most 100.", param_hint=option)
    return value


def _per_type(text: str) -> tuple[str, float]:
    pattern, equals, percent = text.strip().rpartition("=")
    if not equals or not pattern:
        raise typer.BadParameter(
            f"{shown(text)} is no rule: give PATTERN=PERCENT, as in 'mlp.*=50,self_attn.*=25'.", param_hint="--per-type"
        )
    return pattern.strip(), _percent(percent, "--per-type", least="0")
