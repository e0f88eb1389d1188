"""How a selection compares with the plain one."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from spectrum.naming import RANKED
from spectrum.results.scan import Scan
from spectrum.selection.choice import Choice, PerType, TopPercent
from spectrum.selection.choosing import select
from spectrum.selection.comparison import Key, jaccard, spearman
from spectrum.selection.ranking import score_keys
from spectrum.selection.types import Selection


@dataclass(frozen=True)
class Overlap:
    """A selection against the top percent of each module type by SNR; embeddings, norms and biases do not count.

    Attributes:
        plain: what it is compared with, in words.
        shared: number of parameters in both.
        jaccard: that over the number of those in either.
        correlations: label of each module type -> Spearman's correlation of the two rankings, None where there is
            none; empty where both rank alike.
    """

    plain: str
    shared: int
    jaccard: float
    correlations: Mapping[str, float | None]


def overlap(
    selection: Selection, choice: Choice, scan: Scan, plain: Scan, *, conditions: Mapping[str, float] | None = None
) -> Overlap | None:
    """Compare a selection with the plain one of the same scan.

    Args:
        selection: made by the choice from `scan`.
        choice: that made it.
        scan: under the noise model asked for.
        plain: the same parameters, scored as the scan file has them.
        conditions: as for `select`.

    Returns:
        None where the selection is the plain one: the comparison is with its percentage, else with 25 %.
    """
    percent = choice.rule.otherwise if isinstance(choice.rule, PerType) else selection.top_percent
    rule = TopPercent(25 if percent is None else percent)
    rescored = scan.settings.noise_model != plain.settings.noise_model
    if not rescored and selection.top_percent == rule.percent and _takes_the_best(choice):
        return None
    other = select(plain, Choice(rule, modules=choice.modules, exclude=choice.exclude))
    labels = {group.module_type: group.label for group in other.groups}
    other_ranking = rescored or choice.score != "snr"
    keys = score_keys(scan, choice.score, conditions=conditions)
    return Overlap(
        plain=other.description,
        shared=len({*selection.weights} & {*other.weights}),
        jaccard=jaccard(selection.weights, other.weights),
        correlations={
            labels[name]: value
            for name, value in correlations(scan, keys, score_keys(plain)).items()
            if other_ranking and name in labels
        },
    )


def correlations(scan: Scan, first: Mapping[str, Key], second: Mapping[str, Key]) -> dict[str, float | None]:
    """Module type -> Spearman's correlation of two rankings of its parameters, over those that both have."""
    members: dict[str, list[str]] = defaultdict(list)
    for item in scan.parameters:
        if item.kind in RANKED and item.name in first and item.name in second:
            members[item.module_type].append(item.name)
    return {
        module_type: spearman([first[name] for name in names], [second[name] for name in names])
        for module_type, names in members.items()
    }


def _takes_the_best(choice: Choice) -> bool:
    return choice.score == "snr" and choice.strategy == "top" and not choice.whole_layers
