"""What was chosen, as values."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from spectrum.results.scan import ParameterScore
from spectrum.selection.choice import Choice


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
        options: the same as options of `spectrum select`: 'select SCAN' with them makes this selection.
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
        return tuple(item.name for group in self.groups for item in group.selected)


def with_biases(weights: Sequence[str], biases: Mapping[str, str]) -> list[str]:
    """Names, each followed by its bias if it has one."""
    return [name for weight in weights for name in (weight, biases.get(weight)) if name is not None]
