"""A choice in words, and as part of a file name."""

import hashlib
import re

from spectrum.results.scan import Settings
from spectrum.selection.choice import Choice, Count, MaxWeights, MinSnr, PerType, TopPercent
from spectrum.selection.ranking import SCORE_NAMES
from spectrum.spectra.snr import NoiseModel

_LONGEST_TAG = 60  # a file name may have 255 bytes, of which the model's name needs some


def describe(choice: Choice, noise_model: NoiseModel, *, percent: float | None = None) -> str:
    """The choice in words.

    Args:
        choice: what is asked for.
        noise_model: of the SNR.
        percent: what a `MaxWeights` came to.
    """
    by = score_words(choice, noise_model)
    control = {
        "bottom": "the lowest ranked",
        "random": f"drawn at random (seed {choice.seed})",
        "first": "the first layers",
        "last": "the last layers",
    }
    amount = _amount(choice, by, percent)
    return amount if choice.strategy == "top" else f"{control[choice.strategy]}, in the numbers of: {amount}"


def score_words(choice: Choice, noise_model: NoiseModel) -> str:
    """What ranks the parameters."""
    return SCORE_NAMES[choice.score] + (f" (noise model {noise_model})" if _thresholded(choice) else "")


def arguments(choice: Choice, noise_model: NoiseModel) -> tuple[str, ...]:
    """The choice as options of `spectrum select`; what is not there has the default."""
    options: dict[str, str | None] = {
        **_rule_options(choice),
        "--score": None if choice.score == "snr" else choice.score,
        "--strategy": None if choice.strategy == "top" else choice.strategy,
        "--seed": str(choice.seed) if choice.strategy == "random" else None,
        "--modules": ",".join(choice.modules) or None,
        "--exclude": ",".join(choice.exclude) or None,
        "--embeddings": None if choice.embeddings == "train" else choice.embeddings,
        "--norms": None if choice.norms == "freeze" else choice.norms,
        "--noise-model": None if noise_model == "iqr" else noise_model,
    }
    flags = ("--whole-layers",) if choice.whole_layers else ()
    return (*(word for name, value in options.items() if value is not None for word in (name, value)), *flags)


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
    """A number as the user typed it, short of padding; it reads back as the same one."""
    return repr(float(value)).removesuffix(".0")


def _thresholded(choice: Choice) -> bool:
    return choice.score in ("snr", "ratio")


def _amount(choice: Choice, by: str, percent: float | None) -> str:
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
    limit = (
        f"{rule.limit:,} weights" if rule.limit is not None else f"{number(rule.model_percent or 0)} % of all weights"
    )
    return f"top {number(percent or 0)} % {of} by {by}, the most that trains at most {limit}"


def _rule_tag(choice: Choice) -> str:
    rule = choice.rule
    if isinstance(rule, TopPercent):
        return f"{choice.strategy}{number(rule.percent)}"
    if isinstance(rule, Count):
        return f"count{rule.count}"
    if isinstance(rule, MinSnr):
        return f"min-snr{number(rule.snr)}"
    if isinstance(rule, MaxWeights):
        return f"max-params{rule.limit}" if rule.limit is not None else f"trainable{number(rule.model_percent or 0)}"
    return _per_type_tag(rule)


def _rule_options(choice: Choice) -> dict[str, str | None]:
    rule = choice.rule
    if isinstance(rule, TopPercent):
        return {"--top": number(rule.percent)}
    if isinstance(rule, Count):
        return {"--count": str(rule.count)}
    if isinstance(rule, MinSnr):
        return {"--min-snr": number(rule.snr)}
    if isinstance(rule, MaxWeights):
        percent = None if rule.model_percent is None else number(rule.model_percent)
        return {"--max-params": None if rule.limit is None else str(rule.limit), "--trainable": percent}
    rules = ",".join(f"{pattern}={number(share)}" for pattern, share in rule.rules)
    return {"--per-type": rules, "--top": None if rule.otherwise is None else number(rule.otherwise)}


def _per_type_tag(rule: PerType) -> str:
    others = () if rule.otherwise is None else (("*", rule.otherwise),)
    text = ",".join(f"{pattern}={number(share)}" for pattern, share in (*others, *rule.rules))
    return f"per-type-{_readable(text)}"


def _patterns_tag(word: str, patterns: tuple[str, ...]) -> str:
    return f"{word}-{_readable(','.join(patterns))}" if patterns else ""


def _readable(text: str) -> str:
    """Patterns as far as a file name can hold them, and a hash of the whole."""
    plain = re.sub(r"\.\*|(?<![^,])\*(?==)", lambda found: "" if found[0] == ".*" else "all", text)
    readable = re.sub(r"[^A-Za-z0-9=_]+", "_", plain).strip("_")[:_LONGEST_TAG]
    return f"{readable}-{hashlib.sha256(text.encode()).hexdigest()[:6]}"
