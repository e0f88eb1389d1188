"""How far two rankings or two sets agree."""

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from statistics import StatisticsError, correlation

from spectrum.naming import RANKED
from spectrum.results.scan import Scan

Key = tuple[float, ...]


def spearman(first: Sequence[Key], second: Sequence[Key]) -> float | None:
    """Spearman's rank correlation; equal keys share the average of their ranks.

    Args:
        first: the key of each thing in one ranking, lower keys ranking higher.
        second: keys of the same things, in the same order, in the other ranking.

    Returns:
        -1 to 1; None if a ranking is constant or has fewer than two things.

    Raises:
        ValueError: rankings of different length.
    """
    if len(first) != len(second):
        raise ValueError(f"{len(first)} and {len(second)} keys are not those of the same things")
    try:
        return correlation(_doubled_ranks(first), _doubled_ranks(second))
    except StatisticsError:  # constant, or fewer than two
        return None


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


def jaccard(first: Iterable[Hashable], second: Iterable[Hashable]) -> float:
    """Size of the intersection over that of the union; 1 for two empty sets."""
    one, other = frozenset(first), frozenset(second)
    return len(one & other) / len(one | other) if one or other else 1.0


def _doubled_ranks(keys: Sequence[Key]) -> list[int]:
    """Twice the average rank of each key, which is a whole number even with ties: equal rankings correlate by 1.0."""
    ordered = sorted(keys)
    return [bisect_left(ordered, key) + bisect_right(ordered, key) for key in keys]
