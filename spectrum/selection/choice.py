"""What the user asks for, as values."""

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from spectrum.errors import SelectionError
from spectrum.selection.ranking import ScoreName

Treatment = Literal["train", "freeze"]
Strategy = Literal["top", "bottom", "random", "first", "last"]


@dataclass(frozen=True)
class TopPercent:
    """floor(n * percent / 100) of n, at least one.

    Raises:
        SelectionError: percent is not above 0 and at most 100.
    """

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
            raise SelectionError(f"{self.snr} is not an SNR to choose by: give a finite number, 0 or more.")


@dataclass(frozen=True)
class MaxWeights:
    """The largest percentage that trains at most this many weights, or this percentage of the model's."""

    limit: int | None = None
    model_percent: float | None = None


@dataclass(frozen=True)
class PerType:
    """A percentage for the module types that match a pattern, the last match deciding.

    Attributes:
        rules: (shell pattern, percentage 0-100), in the order given; 0 selects nothing.
        otherwise: percentage of module types that no pattern matches; None selects nothing of them.
    """

    rules: tuple[tuple[str, float], ...]
    otherwise: float | None = None


Rule: TypeAlias = TopPercent | Count | MinSnr | MaxWeights | PerType


@dataclass(frozen=True)
class Choice:
    """How to choose.

    Attributes:
        rule: how many.
        score: by what the parameters of a module type are ranked.
        strategy: 'top' takes the best; the others are controls, which take as many of each module type in another
            order: the worst, by chance, by layer from the first or from the last.
        seed: of the strategy 'random'.
        whole_layers: score and choose layers, and take every ranked parameter of those.
        modules: shell patterns of the module types to choose from; () is all.
        exclude: shell patterns of module types to leave out.
        embeddings: whether the embedding and the head are trained, whatever their score.
        norms: whether all norms are trained.

    Raises:
        SelectionError: parts that exclude each other.
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
        if self.whole_layers and isinstance(self.rule, MinSnr | PerType):
            raise SelectionError("Whole layers have no SNR and no module type: choose them by percentage or count.")
        if isinstance(self.rule, MinSnr) and self.score != "snr":
            raise SelectionError(f"A lowest SNR cannot be combined with a ranking by {self.score}.")
