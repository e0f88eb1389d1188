"""What changed between two scans: of two models, of two revisions, or of one under two noise models."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from spectrum.errors import SpectrumError
from spectrum.naming import RANKED, common_prefix, natural_key
from spectrum.results.scan import ParameterScore, Scan
from spectrum.selection import Choice, TopPercent, correlations, rank, score_keys, select
from spectrum.selection.comparison import jaccard


@dataclass(frozen=True)
class TypeChange:
    """The ranking of one module type in both scans.

    Attributes:
        module_type: in full.
        label: without the prefix that all module types share.
        compared: number of parameters that both scans have.
        spearman: correlation of their rankings; None where fewer than two are compared or one ranking is constant.
        missing: number of parameters of the first scan that the second lacks.
        new: number of parameters of the second scan that the first lacks.
    """

    module_type: str
    label: str
    compared: int
    spearman: float | None
    missing: int
    new: int


@dataclass(frozen=True)
class SharedTop:
    """The top percent of each module type in both scans; embeddings, norms and biases do not count.

    Attributes:
        percent: 0-100.
        first: number of parameters selected from the first scan.
        second: from the second.
        shared: in both.
        jaccard: those over the number in either.
    """

    percent: float
    first: int
    second: int
    shared: int
    jaccard: float


@dataclass(frozen=True)
class Move:
    """A parameter whose rank changed; rank 1 is the best.

    Attributes:
        name: of the parameter.
        first: rank within its module type in the first scan, among the parameters that both have.
        second: in the second.
        compared: the lowest rank there is.
    """

    name: str
    first: int
    second: int
    compared: int


@dataclass(frozen=True)
class Diff:
    """Two scans compared.

    Attributes:
        module_types: in natural order.
        overlaps: one per percentage asked for.
        moves: every parameter whose rank changed, largest change first, then in natural order.
        missing: scored parameters of the first scan that the second lacks.
        new: scored parameters of the second scan that the first lacks.
        reshaped: parameters of different shape in the two.
    """

    module_types: tuple[TypeChange, ...]
    overlaps: tuple[SharedTop, ...]
    moves: tuple[Move, ...]
    missing: tuple[str, ...]
    new: tuple[str, ...]
    reshaped: tuple[str, ...]

    @property
    def weakest(self) -> TypeChange | None:
        """The module type of the lowest correlation; None where there is no correlation at all."""
        known = [change for change in self.module_types if change.spearman is not None]
        return min(known, key=lambda change: change.spearman or 0.0, default=None)


def compare_scans(first: Scan, second: Scan, *, percents: Sequence[float] = (10, 25, 50)) -> Diff:
    """Compare two scans, parameter by parameter of the same name. Saturated ones rank as they do in a selection.

    Args:
        first: what is compared with.
        second: what is compared.
        percents: of which the selections are compared, each 0 < P <= 100.

    Raises:
        SelectionError: a percentage out of range, or a scan without anything to rank.
        SpectrumError: the scans have no scored parameter in common.
    """
    one, other = _ranked(first), _ranked(second)
    if not one.keys() & other.keys():
        raise SpectrumError(
            f"The scans of '{first.model.id}' and '{second.model.id}' have no scored parameter in common. Compare "
            "scans of models of one architecture, named by the same class and version of transformers."
        )
    missing = sorted(one.keys() - other.keys(), key=natural_key)
    new = sorted(other.keys() - one.keys(), key=natural_key)
    return Diff(
        module_types=_types(first, second, missing, new),
        overlaps=tuple(_overlap(first, second, percent) for percent in percents),
        moves=_moves(one, other),
        missing=tuple(missing),
        new=tuple(new),
        reshaped=tuple(
            name
            for name in one
            if name in other and None not in (a := one[name].shape, b := other[name].shape) and a != b
        ),
    )


def _ranked(scan: Scan) -> dict[str, ParameterScore]:
    return {item.name: item for item in scan.parameters if item.kind in RANKED}


def _types(first: Scan, second: Scan, missing: Sequence[str], new: Sequence[str]) -> tuple[TypeChange, ...]:
    one, other = _ranked(first), _ranked(second)
    both = {name: item.module_type for name, item in (other | one).items()}
    known = correlations(first, score_keys(first), score_keys(second))
    prefix = common_prefix(both.values())
    counts: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
    lost, added = set(missing), set(new)
    for name, module_type in both.items():
        counts[module_type][1 if name in lost else 2 if name in added else 0] += 1
    return tuple(
        TypeChange(
            name,
            name.removeprefix(prefix),
            compared=counts[name][0],
            spearman=known.get(name),
            missing=counts[name][1],
            new=counts[name][2],
        )
        for name in sorted(counts, key=natural_key)
    )


def _overlap(first: Scan, second: Scan, percent: float) -> SharedTop:
    choice = Choice(TopPercent(percent))
    one, other = (frozenset(select(scan, choice).weights) for scan in (first, second))
    return SharedTop(percent, len(one), len(other), len(one & other), jaccard(one, other))


def _moves(one: dict[str, ParameterScore], other: dict[str, ParameterScore]) -> tuple[Move, ...]:
    before, after = (_places([scores[name] for name in one if name in other]) for scores in (one, other))
    moves = [
        Move(name, place, after[name][0], compared)
        for name, (place, compared) in before.items()
        if place != after[name][0]
    ]
    return tuple(sorted(moves, key=lambda move: (-abs(move.second - move.first), natural_key(move.name))))


def _places(parameters: Sequence[ParameterScore]) -> dict[str, tuple[int, int]]:
    """Name -> rank within the module type, and how many there are."""
    types: dict[str, list[ParameterScore]] = defaultdict(list)
    for item in parameters:
        types[item.module_type].append(item)
    return {
        item.name: (place, len(members))
        for members in types.values()
        for place, item in enumerate(rank(members), start=1)
    }
