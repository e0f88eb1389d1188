"""A choice in words, and as part of a file name."""

import hashlib
import re
from collections.abc import Iterable

from spectrum.results.scan import Settings
from spectrum.selection.choice import Choice, Count, MaxWeights, MinSnr, PerType, TopPercent
from spectrum.selection.ranking import SCORE_NAMES
from spectrum.spectra.snr import NoiseModel

_LONGEST_TAG = 60  # a file name may have 255 bytes, of which the model's name needs some


def describe(choice: Choice, noise_model: NoiseModel, *, percent: float | None = None) -> str:
    """The choice in words; `percent` is what a `MaxWeights` allows."""
    control = {
        "bottom": "the lowest ranked",
        "random": f"drawn at random (seed {choice.seed})",
        "first": "the first layers",
        "last": "the last layers",
    }
    amount = _amount(choice, noise_model, percent)
    return amount if choice.strategy == "top" else f"{control[choice.strategy]}, in the numbers of: {amount}"


def tag(choice: Choice, settings: Settings) -> str:
    """The choice and the scan's scope as part of a file name.

    Different ones have different tags, except for embeddings, whose default depends on the format of the file.
    """
    plain_percent = isinstance(choice.rule, TopPercent)
    parts = (
        "layers" if choice.whole_layers else "",
        _rule_tag(choice),
        "" if plain_percent or choice.strategy == "top" else choice.strategy,
        f"seed{choice.seed}" if choice.strategy == "random" else "",
        "" if choice.score == "snr" else choice.score,
        "" if settings.noise_model == "iqr" or not _thresholded(choice) else settings.noise_model,
        _patterns_tag("modules", choice.modules),
        _patterns_tag("exclude", choice.exclude),
        "norms" if choice.norms == "train" else "",
        "all-modules" if settings.all_modules else "",
        "" if settings.experts is None else f"experts{settings.experts}",
        _patterns_tag("class", (settings.model_class,) if settings.model_class else ()),
    )
    return "-".join(part for part in parts if part)


def number(value: float) -> str:
    """A number as the user typed it, without padding; it reads back as the same one."""
    return repr(float(value)).removesuffix(".0")


def per_type(rules: Iterable[tuple[str, float]]) -> str:
    """Rules of a `PerType` as `--per-type` takes them."""
    return ",".join(f"{pattern}={number(share)}" for pattern, share in rules)


def rule_option(rule: TopPercent | Count | MinSnr | MaxWeights) -> tuple[str, str]:
    """A rule as an option of `spectrum select`, and its value."""
    if isinstance(rule, TopPercent):
        return "--top", number(rule.percent)
    if isinstance(rule, Count):
        return "--count", str(rule.count)
    if isinstance(rule, MinSnr):
        return "--min-snr", number(rule.snr)
    return ("--max-params", str(rule.limit)) if rule.limit is not None else ("--trainable", _model_percent(rule))


def _thresholded(choice: Choice) -> bool:
    return choice.score in ("snr", "ratio")


def _amount(choice: Choice, noise_model: NoiseModel, percent: float | None) -> str:
    by = SCORE_NAMES[choice.score] + (f" (noise model {noise_model})" if _thresholded(choice) else "")
    of = "of the layers, whole," if choice.whole_layers else "of each module type"
    rule = choice.rule
    if isinstance(rule, TopPercent):
        return f"top {number(rule.percent)} % {of} by {by}"
    if isinstance(rule, Count):
        return f"the {rule.count} best {of} by {by}"
    if isinstance(rule, MinSnr):
        return f"every parameter with an {by} of at least {number(rule.snr)}"
    if isinstance(rule, PerType):
        others = () if rule.otherwise is None else (("the others", rule.otherwise),)
        parts = [f"{number(share)} % of {pattern}" for pattern, share in (*rule.rules, *others)]
        return f"top {', '.join(parts)} by {by}"
    limit = f"{rule.limit:,} weights" if rule.limit is not None else f"{_model_percent(rule)} % of all weights"
    return f"top {number(percent or 0)} % {of} by {by}, the most that trains at most {limit}"


def _model_percent(rule: MaxWeights) -> str:
    return number(rule.model_percent or 0)


def _rule_tag(choice: Choice) -> str:
    rule = choice.rule
    if isinstance(rule, PerType):
        others = () if rule.otherwise is None else (("*", rule.otherwise),)
        return f"per-type-{_readable(per_type((*others, *rule.rules)))}"
    name, value = rule_option(rule)
    return f"{choice.strategy if name == '--top' else name.removeprefix('--')}{value}"


def _patterns_tag(word: str, patterns: tuple[str, ...]) -> str:
    return f"{word}-{_readable(','.join(patterns))}" if patterns else ""


def _readable(text: str) -> str:
    """Patterns as far as a file name can hold them, and a hash of the whole."""
    plain = re.sub(r"\.\*|(?<![^,])\*(?==)", lambda found: "" if found[0] == ".*" else "all", text)
    readable = re.sub(r"[^A-Za-z0-9=_]+", "_", plain).strip("_")[:_LONGEST_TAG]
    return f"{readable}-{hashlib.sha256(text.encode()).hexdigest()[:6]}"
