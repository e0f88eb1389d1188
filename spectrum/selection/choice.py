"""What the user asks for and what is chosen, as values."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias, get_args

from spectrum.errors import SelectionError
from spectrum.results.scan import ParameterScore
from spectrum.untrusted import check_word, shown

ScoreName = Literal["snr", "ratio", "stable-rank", "condition"]
Treatment = Literal["train", "freeze"]
Strategy = Literal["top", "bottom", "random", "first", "last"]


@dataclass(frozen=True)
class TopPercent:
    """floor(n * percent / 100) of n, but at least one; 0 < percent <= 100."""

    percent: float

    def __post_init__(self) -> None:
        if not 0 < self.percent <= 100:
            raise SelectionError(f"{self.percent} % cannot be selected: give more than 0 and at most 100.")


@dataclass(frozen=True)
class Count:
    """This many of each module type, or all if there are fewer."""

    count: int

    def __post_init__(self) -> None:
        if self.count < 1:
            raise SelectionError(f"{self.count} of each module type cannot be selected: give 1 or more.")


@dataclass(frozen=True)
class MinSnr:
    """All that score at least this; saturated ones score more than any number."""

    snr: float

    def __post_init__(self) -> None:
        if not 0 <= self.snr < float("inf"):
            raise SelectionError(f"{self.snr:g} is not an SNR to choose by: give a finite number, 0 or more.")


@dataclass(frozen=True)
class MaxWeights:
    """The largest percentage that trains at most this many weights, or this percentage of the model's."""

    limit: int | None = None
    model_percent: float | None = None

    def __post_init__(self) -> None:
        if self.model_percent is not None and not 0 < self.model_percent <= 100:
            raise SelectionError(f"{self.model_percent:g} % of a model: give more than 0, at most 100.")


@dataclass(frozen=True)
class PerType:
    """A percentage for the module types that match a pattern; the last pattern that matches decides.

    Attributes:
        rules: (shell pattern, percentage 0-100), in the order given; 0 selects nothing.
        otherwise: percentage of module types that no pattern matches; None selects nothing of them.
    """

    rules: tuple[tuple[str, float], ...]
    otherwise: float | None = None

    def __post_init__(self) -> None:
        for pattern, percent in self.rules:
            if not 0 <= percent <= 100:
                raise SelectionError(f"{percent:g} % of {shown(pattern)}: give 0 or more, at most 100.")
        if self.otherwise is not None:
            TopPercent(self.otherwise)  # refuses what is out of range


Rule: TypeAlias = TopPercent | Count | MinSnr | MaxWeights | PerType


@dataclass(frozen=True)
class Choice:
    """How to choose.

    Attributes:
        rule: how many.
        score: what the parameters of a module type are ranked by.
        strategy: 'top' takes the best. The others are controls: they take as many of each module type, but the worst,
            random ones, or those of the first or last layers.
        seed: of the strategy 'random'.
        whole_layers: score and choose layers, and take every ranked parameter of the chosen ones.
        modules: shell patterns of the module types to choose from; () is all.
        exclude: shell patterns of module types to leave out.
        embeddings: whether the embedding and the head are trained, whatever their score.
        norms: whether all norms are trained.

    Raises:
        SpectrumError: a rule out of range, a word that is not one of those above, or parts that exclude each other.
    """

    rule: Rule = field(default_factory=lambda: TopPercent(25))
    score: ScoreName = "snr"
    strategy: Strategy = "top"
    seed: int = 0
    whole_layers: bool = False
    modules: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    embeddings: Treatment = "train"
    norms: Treatment = "freeze"

    def __post_init__(self) -> None:
        words = {"score": ScoreName, "strategy": Strategy, "embeddings": Treatment, "norms": Treatment}
        for name, values in words.items():
            check_word(getattr(self, name), get_args(values), of=name)
        if self.whole_layers and isinstance(self.rule, MinSnr | PerType):
            raise SelectionError("Whole layers have no SNR and no module type: choose them by percentage or count.")
        if isinstance(self.rule, MinSnr) and self.score != "snr":
            raise SelectionError(f"A lowest SNR cannot be combined with a ranking by {self.score}.")


@dataclass(frozen=True)
class Group:
    """The parameters of one module type.

    Attributes:
        module_type: in full.
        label: without the prefix that all module types share.
        ranked: all of them, best first by the score of the choice.
        selected: those that are trained, best first; may be empty.
    """

    module_type: str
    label: str
    ranked: tuple[ParameterScore, ...]
    selected: tuple[ParameterScore, ...]

    @property
    def count(self) -> int:
        """How many are selected."""
        return len(self.selected)

    @property
    def saturated(self) -> int:
        """How many of the parameters are saturated."""
        return sum(item.saturated for item in self.ranked)


@dataclass(frozen=True)
class Selection:
    """The parameters to train.

    Attributes:
        choice: what was asked for.
        options: the same as options of `spectrum select`.
        description: the same in words: 'top 25 % of each module type by SNR (noise model iqr)'.
        tag: the same for a file name: 'top25'.
        top_percent: 0-100 if one percentage of every module type, or of the layers, set how many; else None.
        groups: one per module type, in natural order.
        embeddings: names of the embedding and head if they are trained.
        norms: names of norm parameters if they are trained.
        biases: selected weight -> its bias.
        trainable: number of weights; None if the scan does not hold shapes.
        warnings: whole sentences on what the user should know about this selection.
    """

    choice: Choice
    options: tuple[str, ...]
    description: str
    tag: str
    top_percent: float | None
    groups: tuple[Group, ...]
    embeddings: tuple[str, ...]
    norms: tuple[str, ...]
    biases: Mapping[str, str]
    trainable: int | None
    warnings: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Every selected parameter: embeddings, norms, then each group best first, a bias after its weight."""
        embeddings = with_biases(self.embeddings, self.biases)
        return (*embeddings, *self.norms, *with_biases(self.weights, self.biases))

    @property
    def weights(self) -> tuple[str, ...]:
        """The selected parameters that were ranked: without embeddings, norms and biases."""
        return tuple(item.name for item in self.chosen)

    @property
    def chosen(self) -> tuple[ParameterScore, ...]:
        """The scores of `weights`."""
        return tuple(item for group in self.groups for item in group.selected)


def with_biases(weights: Iterable[str], biases: Mapping[str, str]) -> list[str]:
    """Names, each followed by its bias if it has one."""
    return [name for weight in weights for name in (weight, biases.get(weight)) if name is not None]
