"""How far two rankings or two sets agree: pure arithmetic on whatever can be ordered."""

import math
from collections.abc import Hashable, Iterable, Sequence
from itertools import groupby

Key = tuple[float, ...]


def spearman(first: Sequence[Key], second: Sequence[Key]) -> float | None:
    """Spearman's rank correlation, equal keys sharing the average of their ranks.

    Args:
        first: the key of each thing in one ranking, lower keys ranking higher.
        second: of the same things, in the same order, in the other.

    Returns:
        -1 to 1; None where there is no correlation to speak of, for a ranking is constant or of fewer than two.

    Raises:
        ValueError: rankings of different length.
    """
    if len(first) != len(second):
        raise ValueError(f"{len(first)} and {len(second)} keys are not those of the same things")
    one, other = _centred_ranks(first), _centred_ranks(second)
    squares = sum(x * x for x in one) * sum(y * y for y in other)
    # Whole numbers up to here, so that equal rankings give 1.0 and not 0.9999999999999998.
    root = math.isqrt(squares) if math.isqrt(squares) ** 2 == squares else math.sqrt(squares)
    return sum(x * y for x, y in zip(one, other, strict=True)) / root if squares else None


def jaccard(first: Iterable[Hashable], second: Iterable[Hashable]) -> float:
    """Size of the intersection over that of the union; 1 for two empty sets."""
    one, other = frozenset(first), frozenset(second)
    return len(one & other) / len(one | other) if one or other else 1.0


def _centred_ranks(keys: Sequence[Key]) -> list[int]:
    """Twice the distance of each average rank from the mean rank, which is a whole number whatever the ties."""
    ranks = [0] * len(keys)
    before = 0
    for _, group in groupby(sorted(range(len(keys)), key=keys.__getitem__), key=keys.__getitem__):
        tied = list(group)
        for index in tied:
            ranks[index] = 2 * before + len(tied) - len(keys)
        before += len(tied)
    return ranks
