"""Which parameters to train: the best of each module type, and what goes with them."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import floor, inf, prod
from typing import Literal

from spectrum.errors import SelectionError
from spectrum.naming import RANKED, common_prefix, natural_key
from spectrum.results.scan import ParameterScore, Scan, Unscored

Treatment = Literal["train", "freeze"]


@dataclass(frozen=True)
class Group:
    """The parameters of one module type.

    Attributes:
        module_type: in full.
        label: without the prefix that all module types share.
        ranked: best first.
        count: how many of them are selected.
    """

    module_type: str
    label: str
    ranked: tuple[ParameterScore, ...]
    count: int

    @property
    def selected(self) -> tuple[ParameterScore, ...]:
        """The best `count`, best first."""
        return self.ranked[: self.count]

    @property
    def saturated(self) -> int:
        """How many of the parameters are saturated."""
        return sum(item.saturated for item in self.ranked)


@dataclass(frozen=True)
class Selection:
    """The parameters to train.

    Attributes:
        top_percent: 0-100.
        groups: one per module type, in natural order.
        embeddings: names of the embedding and head where they are trained.
        norms: names of norm parameters where they are trained.
        biases: selected weight -> its bias.
        trainable: number of weights; None where the scan does not tell shapes.
        warnings: whole sentences on what the user should know of this selection.
    """

    top_percent: float
    groups: tuple[Group, ...]
    embeddings: tuple[str, ...]
    norms: tuple[str, ...]
    biases: dict[str, str]
    trainable: int | None
    warnings: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Every selected parameter: embeddings, norms, then each group best first, a bias after its weight."""
        weights = [item.name for group in self.groups for item in group.selected]
        embeddings = _with_biases(self.embeddings, self.biases)
        return (*embeddings, *self.norms, *_with_biases(weights, self.biases))


def select_top(
    scan: Scan, top_percent: float, *, embeddings: Treatment = "train", norms: Treatment = "freeze"
) -> Selection:
    """The top P percent of each module type by SNR: floor(n * P / 100) of n, but at least one.

    Args:
        scan: to choose from.
        top_percent: 0 < P <= 100.
        embeddings: whether the embedding and the head are trained, whatever their score.
        norms: whether all norms are trained.

    Raises:
        SelectionError: top_percent out of range, or a scan without anything to rank.
    """
    if not 0 < top_percent <= 100:
        raise SelectionError(f"{top_percent} % cannot be selected: give more than 0 and at most 100.")
    groups = tuple(_groups(scan, top_percent))
    if not groups:
        raise SelectionError(f"The scan of '{scan.model.id}' scores no weight matrix, so there is nothing to rank.")
    trained = _names_of(scan, ("embedding", "head")) if embeddings == "train" else ()
    weights = [item.name for group in groups for item in group.selected]
    selection = Selection(
        top_percent=top_percent,
        groups=groups,
        embeddings=trained,
        norms=_names_of(scan, ("norm",)) if norms == "train" else (),
        biases=_biases(scan, [*trained, *weights]),
        trainable=None,
        warnings=(*_cut_warnings(groups), *_scan_warnings(scan, embeddings=embeddings)),
    )
    return _with_trainable(selection, scan)


def rank(parameters: Sequence[ParameterScore]) -> tuple[ParameterScore, ...]:
    """Best first. Saturated ones lead, among them the larger sum(sigma)/sigma_1; what is left is ordered by name."""
    return tuple(sorted(parameters, key=_rank_key))


def _rank_key(item: ParameterScore) -> tuple[float, float, tuple[tuple[int, int | str], ...]]:
    if item.snr is not None:
        return (-item.snr, 0.0, natural_key(item.name))
    spread = item.score.nuclear / item.score.sigma_max if item.score and item.score.sigma_max > 0 else 0.0
    return (-inf, -spread, natural_key(item.name))


def _groups(scan: Scan, top_percent: float) -> list[Group]:
    members: dict[str, list[ParameterScore]] = defaultdict(list)
    for item in scan.parameters:
        if item.kind in RANKED:
            members[item.module_type].append(item)
    prefix = common_prefix(members)
    return [
        Group(name, name.removeprefix(prefix), rank(members[name]), _how_many(len(members[name]), top_percent))
        for name in sorted(members, key=natural_key)
    ]


def _how_many(n: int, top_percent: float) -> int:
    # Exact: in floats, 7 % of 100 is 7.000000000000001 and 0.57 of 100 is 56.99999999999999.
    return max(1, floor(n * Fraction(str(top_percent)) / 100))


def _names_of(scan: Scan, kinds: tuple[str, ...]) -> tuple[str, ...]:
    entries: tuple[ParameterScore | Unscored, ...] = (*scan.parameters, *scan.unscored)
    names = [item.name for item in entries if item.kind in kinds]
    return tuple(sorted(names, key=natural_key))


def _biases(scan: Scan, weights: Sequence[str]) -> dict[str, str]:
    known = {item.name for item in scan.unscored}
    found = {name: bias for name in weights for bias in _bias_names(name) if bias in known}
    return dict(sorted(found.items(), key=lambda pair: natural_key(pair[0])))


def _bias_names(weight: str) -> tuple[str, ...]:
    """What a bias beside this weight is called: `x.bias` beside `x.weight`, `x_bias` beside a bare parameter `x`."""
    return (f"{weight.removesuffix('.weight')}.bias",) if weight.endswith(".weight") else (f"{weight}_bias",)


def _with_biases(weights: Sequence[str], biases: dict[str, str]) -> list[str]:
    return [name for weight in weights for name in (weight, biases.get(weight)) if name is not None]


def _with_trainable(selection: Selection, scan: Scan) -> Selection:
    entries: tuple[ParameterScore | Unscored, ...] = (*scan.parameters, *scan.unscored)
    shapes = {item.name: item.shape for item in entries}
    sizes = [None if (shape := shapes[name]) is None else prod(shape) for name in selection.names]
    known = [size for size in sizes if size is not None]
    trainable = sum(known) if len(known) == len(sizes) else None
    return Selection(**{**vars(selection), "trainable": trainable})


def _cut_warnings(groups: Sequence[Group]) -> list[str]:
    saturated = [
        f"{group.label}: {group.saturated} of {len(group.ranked)} parameters are saturated (nothing below the "
        f"threshold) and {group.count} are selected, so the cut falls among them. {_order_of_ties(group)}"
        for group in groups
        if group.saturated > group.count
    ]
    tied = [
        f"{group.label}: the last parameter selected and the first one left out both score {group.selected[-1].snr:g}, "
        "so their names decide between them."
        for group in groups
        if group.count < len(group.ranked) and group.selected[-1].snr == group.ranked[group.count].snr is not None
    ]
    return saturated + tied


def _order_of_ties(group: Group) -> str:
    if group.ranked[0].score is None:
        return "They are ordered by name, for an imported scan holds no spectra; scan the model to tell them apart."
    return "They are ordered by sum(sigma)/sigma_1; another noise model, such as mp, may tell them apart."


def _scan_warnings(scan: Scan, *, embeddings: Treatment) -> list[str]:
    warnings = []
    stacked = next((item.name for item in scan.parameters if "*" in item.name), None)
    if stacked and scan.model.name_mapping == "identity":
        warnings.append(
            f"The names of the experts, such as '{stacked}', are those of transformers 4. Since transformers 5 the "
            "experts of a layer are one parameter: there these names match nothing. Scan the model again."
        )
    if embeddings == "train" and not _names_of(scan, ("embedding", "head")):
        warnings.append(
            f"The scan of '{scan.model.id}' lists no embedding and no head, so none is selected. "
            "Add theirs by hand, or pass --embeddings freeze."
        )
    return warnings
