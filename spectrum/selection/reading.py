"""A choice read back from the options of `spectrum select`, as the header of a list holds them."""

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from typing import NoReturn, cast, get_args

from spectrum.errors import SelectionError
from spectrum.selection.choice import Choice, Count, MaxWeights, MinSnr, PerType, Rule, Strategy, TopPercent, Treatment
from spectrum.selection.ranking import ScoreName
from spectrum.spectra.snr import NOISE_MODELS, NoiseModel


class _Parser(ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise SelectionError(message)


def read_arguments(words: Sequence[str]) -> tuple[Choice, NoiseModel]:
    """The reverse of `arguments`: a choice and the noise model of its scores.

    Raises:
        SelectionError: the words are not options that choose, or contradict each other.
    """
    given = _parser().parse_args(words)
    choice = Choice(
        _rule(given),
        score=given.score,
        strategy=given.strategy,
        seed=given.seed,
        whole_layers=given.whole_layers,
        modules=_patterns(given.modules),
        exclude=_patterns(given.exclude),
        embeddings=given.embeddings,
        norms=given.norms,
    )
    return choice, cast("NoiseModel", given.noise_model)


def _parser() -> ArgumentParser:
    parser = _Parser(add_help=False, allow_abbrev=False)
    for name in ("--top", "--min-snr", "--trainable"):
        parser.add_argument(name, type=float)
    for name in ("--count", "--max-params"):
        parser.add_argument(name, type=int)
    parser.add_argument("--per-type")
    parser.add_argument("--whole-layers", action="store_true")
    parser.add_argument("--score", choices=get_args(ScoreName), default="snr")
    parser.add_argument("--strategy", choices=get_args(Strategy), default="top")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--modules", default="")
    parser.add_argument("--exclude", default="")
    parser.add_argument("--embeddings", choices=get_args(Treatment), default="train")
    parser.add_argument("--norms", choices=get_args(Treatment), default="freeze")
    parser.add_argument("--noise-model", choices=NOISE_MODELS, default="iqr")
    return parser


def _rule(given: Namespace) -> Rule:
    rules: list[Rule] = []
    if given.per_type is not None:
        rules.append(PerType(tuple(map(_share, given.per_type.split(","))), otherwise=given.top))
    elif given.top is not None:
        rules.append(TopPercent(given.top))
    rules += [Count(given.count)] if given.count is not None else []
    rules += [MinSnr(given.min_snr)] if given.min_snr is not None else []
    if given.max_params is not None or given.trainable is not None:
        rules.append(MaxWeights(given.max_params, given.trainable))
    if len(rules) > 1:
        raise SelectionError("they hold several rules")
    return rules[0] if rules else TopPercent(25)


def _share(text: str) -> tuple[str, float]:
    pattern, _, percent = text.rpartition("=")
    try:
        return pattern, float(percent)
    except ValueError as error:
        raise SelectionError(f"'{text}' is not PATTERN=PERCENT") from error


def _patterns(text: str) -> tuple[str, ...]:
    return tuple(pattern for pattern in text.split(",") if pattern)
