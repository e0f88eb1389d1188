"""The options that say what to select, read together."""

import re
from collections.abc import Mapping
from fractions import Fraction
from statistics import median

import typer

from spectrum.cli.options import ChoiceOptions, ModuleOptions, read_percent, warn_of_fraction
from spectrum.errors import SelectionError
from spectrum.exporting import default_embeddings
from spectrum.selection import Choice, Count, MaxWeights, MinSnr, Overlap, PerType, Rule, TopPercent
from spectrum.untrusted import shown

_SCALES = {"": 1, "K": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}


def read_choice(options: ChoiceOptions, modules: ModuleOptions, *, format: str = "axolotl") -> Choice:  # noqa: A002
    """The choice that the options make together; those that exclude each other are wrong usage."""
    rules = {
        "--top": options.top,
        "--count": options.count,
        "--min-snr": options.min_snr,
        "--max-params": options.max_params,
        "--trainable": options.trainable,
        "--per-type": options.per_type,
    }
    given = [name for name, value in rules.items() if value is not None]
    if len(given) > 1 and given != ["--top", "--per-type"]:
        raise typer.BadParameter(f"give {given[0]} or {given[1]}, not both.", param_hint=given[0])
    if options.seed is not None and options.strategy != "random":
        raise typer.BadParameter("only --strategy random draws by a seed.", param_hint="--seed")
    try:
        return Choice(
            _rule(options),
            score=options.score,
            strategy=options.strategy,
            seed=options.seed or 0,
            whole_layers=options.whole_layers,
            modules=tuple(modules.modules or ()),
            exclude=tuple(modules.exclude or ()),
            embeddings=options.embeddings or default_embeddings(format),
            norms=options.norms,
        )
    except SelectionError as error:
        raise typer.BadParameter(str(error)) from error


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


def _rule(options: ChoiceOptions) -> Rule:
    if options.count is not None:
        return Count(options.count)
    if options.min_snr is not None:
        return MinSnr(options.min_snr)
    if options.max_params is not None:
        return MaxWeights(limit=weights(options.max_params))
    if options.trainable is not None:
        return MaxWeights(model_percent=options.trainable)
    if options.per_type is not None:
        return PerType(tuple(map(_per_type, options.per_type.split(","))), otherwise=options.top)
    return TopPercent(25 if options.top is None else options.top)


def weights(text: str) -> int:
    """A number of weights such as 2.5B, exactly."""
    found = re.fullmatch(r"([0-9]{1,18}(?:\.[0-9]{1,18})?) ?([KMBT]?)", text.strip(), flags=re.ASCII | re.IGNORECASE)
    number = Fraction(found[1]) * _SCALES[found[2].upper()] if found else Fraction(0)
    if number < 1 or number.denominator > 1:
        raise typer.BadParameter(
            f"{shown(text)} is not a number of weights: give a whole number, or one such as 30k, 800M or 2.5B.",
            param_hint="--max-params",
        )
    return int(number)


def _per_type(text: str) -> tuple[str, float]:
    pattern, equals, percent = text.strip().rpartition("=")
    if not equals or not pattern:
        raise typer.BadParameter(
            f"{shown(text)} is not a rule: give PATTERN=PERCENT, as in 'mlp.*=50,self_attn.*=25'.",
            param_hint="--per-type",
        )
    share = read_percent(percent)
    warn_of_fraction(share)
    return pattern.strip(), share
