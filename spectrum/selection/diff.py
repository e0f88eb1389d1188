"""Two scans compared, of two models, revisions or noise models; and a selection with the plain one."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from spectrum.errors import SpectrumError
from spectrum.naming import RANKED, common_prefix, natural_key
from spectrum.results.scan import ParameterScore, Scan
from spectrum.selection.choice import Choice, PerType, Selection, TopPercent
from spectrum.selection.choosing import select, select_top
from spectrum.selection.comparison import correlations, jaccard
from spectrum.selection.ranking import rank, score_keys


@dataclass(frozen=True)
class Overlap:
    """A selection against the plain one; embeddings, norms and biases do not count.

    Attributes:
        plain: the selection it is compared with, in words.
        shared: number of parameters in both.
        jaccard: that over the number of those in either.
        correlations: label of each module type -> Spearman's correlation of the two rankings, None if it has none;
            empty if both rank alike.
    """

    plain: str
    shared: int
    jaccard: float
    correlations: Mapping[str, float | None]


@dataclass(frozen=True)
class TypeChange:
    """The ranking of one module type in both scans.

    Attributes:
        module_type: in full.
        label: without the prefix that all module types share.
        compared: number of parameters that both scans have.
        spearman: correlation of their rankings; None if fewer than two are compared or one ranking is constant.
        missing: number of parameters that only the first scan has.
        new: number of parameters that only the second scan has.
    """

    module_type: str
    label: str
    compared: int
    spearman: float | None
    missing: int
    new: int


@dataclass(frozen=True)
class SharedTop:
    """How many parameters the top percent of each module type selects from the first scan, the second, and both.

    Embeddings, norms and biases do not count. `jaccard` is the number in both over that in either.
    """

    percent: float
    first: int
    second: int
    shared: int
    jaccard: float


@dataclass(frozen=True)
class Move:
    """A parameter and its different ranks in both scans, of `compared` in its module type; 1 is the best."""

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
        missing: scored parameters that only the first scan has.
        new: scored parameters that only the second scan has.
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
        """The module type of the lowest correlation; None if no module type has one."""
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
    shapes = {name: (one[name].shape, other[name].shape) for name in one if name in other}
    return Diff(
        module_types=_types(one, other, correlations(first, score_keys(first), score_keys(second))),
        overlaps=tuple(_overlap(first, second, percent) for percent in percents),
        moves=_moves(one, other),
        missing=tuple(sorted(one.keys() - other.keys(), key=natural_key)),
        new=tuple(sorted(other.keys() - one.keys(), key=natural_key)),
        reshaped=tuple(name for name, (a, b) in shapes.items() if a is not None and b is not None and a != b),
    )


def overlap(
    selection: Selection, scan: Scan, plain: Scan, *, conditions: Mapping[str, float] | None = None
) -> Overlap | None:
    """Compare a selection with the plain one of the same percentage, or of 25 % if it has no single percentage.

    Args:
        selection: made from `scan`.
        scan: under the noise model asked for.
        plain: the same parameters, scored as the scan file has them.
        conditions: as for `select`.

    Returns:
        None if the selection is the plain one.
    """
    choice = selection.choice
    percent = choice.rule.otherwise if isinstance(choice.rule, PerType) else selection.top_percent
    rule = TopPercent(25 if percent is None else percent)
    rescored = scan.settings.noise_model != plain.settings.noise_model
    usual = choice.score == "snr" and choice.strategy == "top" and not choice.whole_layers
    if usual and not rescored and selection.top_percent == rule.percent:
        return None
    other = select(plain, Choice(rule, modules=choice.modules, exclude=choice.exclude))
    found = {}
    if rescored or choice.score != "snr":
        found = correlations(scan, score_keys(scan, choice.score, conditions=conditions), score_keys(plain))
    labels = {group.module_type: group.label for group in other.groups}
    return Overlap(
        plain=other.description,
        shared=len({*selection.weights} & {*other.weights}),
        jaccard=jaccard(selection.weights, other.weights),
        correlations={labels[name]: value for name, value in found.items() if name in labels},
    )


_Scores = Mapping[str, ParameterScore]


def _ranked(scan: Scan) -> _Scores:
    return {item.name: item for item in scan.parameters if item.kind in RANKED}


def _types(one: _Scores, other: _Scores, known: Mapping[str, float | None]) -> tuple[TypeChange, ...]:
    compared = Counter(item.module_type for name, item in one.items() if name in other)
    missing = Counter(item.module_type for name, item in one.items() if name not in other)
    new = Counter(item.module_type for name, item in other.items() if name not in one)
    names = sorted({*compared, *missing, *new}, key=natural_key)
    prefix = common_prefix(names)
    return tuple(
        TypeChange(name, name.removeprefix(prefix), compared[name], known.get(name), missing[name], new[name])
        for name in names
    )


def _overlap(first: Scan, second: Scan, percent: float) -> SharedTop:
    one, other = (frozenset(select_top(scan, percent).weights) for scan in (first, second))
    return SharedTop(percent, len(one), len(other), len(one & other), jaccard(one, other))


def _moves(one: _Scores, other: _Scores) -> tuple[Move, ...]:
    before, after = (_places(scores[name] for name in one if name in other) for scores in (one, other))
    counts = Counter(one[name].module_type for name in before)
    moves = [
        Move(name, place, after[name], counts[one[name].module_type])
        for name, place in before.items()
        if place != after[name]
    ]
    return tuple(sorted(moves, key=lambda move: (-abs(move.second - move.first), natural_key(move.name))))


def _places(parameters: Iterable[ParameterScore]) -> dict[str, int]:
    """Name -> rank within the module type."""
    seen: Counter[str] = Counter()
    places = {}
    for item in rank(parameters):
        seen[item.module_type] += 1
        places[item.name] = seen[item.module_type]
    return places
