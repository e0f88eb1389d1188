"""A choice as options of `spectrum select`, written and read back; the header of a list holds them."""

from argparse import ArgumentParser
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn, cast, get_args

from spectrum.errors import SelectionError
from spectrum.selection import choice as choices
from spectrum.selection.choice import Choice, Count, MaxWeights, MinSnr, PerType, Rule, TopPercent
from spectrum.selection.wording import number, per_type, rule_option
from spectrum.spectra.snr import NOISE_MODELS, NoiseModel

# Option -> its default, and its values if they are not any text.
_WORDS: Mapping[str, tuple[str, Sequence[str] | None]] = {
    "--score": ("snr", get_args(choices.ScoreName)),
    "--strategy": ("top", get_args(choices.Strategy)),
    "--modules": ("", None),
    "--exclude": ("", None),
    "--embeddings": ("train", get_args(choices.Treatment)),
    "--norms": ("freeze", get_args(choices.Treatment)),
    "--noise-model": ("iqr", NOISE_MODELS),
}


def arguments(choice: Choice, noise_model: NoiseModel) -> tuple[str, ...]:
    """The choice as options of `spectrum select`; those that have their default are left out."""
    options = {
        **_rule_options(choice.rule),
        "--score": choice.score,
        "--strategy": choice.strategy,
        **({"--seed": str(choice.seed)} if choice.strategy == "random" else {}),
        "--modules": ",".join(choice.modules),
        "--exclude": ",".join(choice.exclude),
        "--embeddings": choice.embeddings,
        "--norms": choice.norms,
        "--noise-model": noise_model,
    }
    given = [(name, value) for name, value in options.items() if name not in _WORDS or value != _WORDS[name][0]]
    flags = ("--whole-layers",) if choice.whole_layers else ()
    return (*(word for pair in given for word in pair), *flags)


def _rule_options(rule: Rule) -> dict[str, str]:
    if not isinstance(rule, PerType):
        return dict([rule_option(rule)])
    others = {} if rule.otherwise is None else {"--top": number(rule.otherwise)}
    return {"--per-type": per_type(rule.rules), **others}


class _Parser(ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise SelectionError(message)


def read_arguments(words: Sequence[str]) -> tuple[Choice, NoiseModel]:
    """The reverse of `arguments`: a choice and the noise model of its scores.

    Raises:
        SelectionError: the words are not options that choose, or contradict each other.
    """
    parser = _Parser(add_help=False, allow_abbrev=False)
    for name, (read, _) in _RULES.items():
        parser.add_argument(name, type=read)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--whole-layers", action="store_true")
    for name, (default, values) in _WORDS.items():
        parser.add_argument(name, default=default, choices=values)
    given = {f"--{name.replace('_', '-')}": value for name, value in vars(parser.parse_args(words)).items()}
    choice = Choice(
        _rule({name: given[name] for name in _RULES if given[name] is not None}),
        score=given["--score"],
        strategy=given["--strategy"],
        seed=given["--seed"],
        whole_layers=given["--whole-layers"],
        modules=_patterns(given["--modules"]),
        exclude=_patterns(given["--exclude"]),
        embeddings=given["--embeddings"],
        norms=given["--norms"],
    )
    return choice, cast("NoiseModel", given["--noise-model"])


def shares(text: str) -> tuple[tuple[str, float], ...]:
    """Rules as `--per-type` takes them."""
    pairs = [part.rpartition("=") for part in text.split(",")]
    return tuple((pattern, float(percent)) for pattern, _, percent in pairs)


# Option -> how its value is read, and the rule that it makes.
_RULES: Mapping[str, tuple[Callable[[str], Any], Callable[[Any], Rule]]] = {
    "--top": (float, TopPercent),
    "--per-type": (shares, PerType),
    "--count": (int, Count),
    "--min-snr": (float, MinSnr),
    "--max-params": (int, lambda limit: MaxWeights(limit=limit)),
    "--trainable": (float, lambda percent: MaxWeights(model_percent=percent)),
}


def _rule(given: Mapping[str, Any]) -> Rule:
    if given.keys() == {"--top", "--per-type"}:
        return PerType(given["--per-type"], otherwise=given["--top"])
    if len(given) > 1:
        raise SelectionError(f"{' and '.join(given)} exclude each other")
    return next((_RULES[name][1](value) for name, value in given.items()), TopPercent(25))


def _patterns(text: str) -> tuple[str, ...]:
    return tuple(pattern for pattern in text.split(",") if pattern)
