"""The largest choice that trains no more than so many weights."""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from fractions import Fraction
from itertools import accumulate
from math import ceil, floor

from spectrum.errors import SelectionError
from spectrum.results.scan import Scan
from spectrum.selection.amounts import exact, how_many
from spectrum.selection.choice import Choice, MaxWeights
from spectrum.selection.companions import always_trained, biases, sizes, total
from spectrum.selection.pools import Pool, Unit


def fitting_percent(scan: Scan, choice: Choice, rule: MaxWeights, pools: Sequence[Pool]) -> float:
    """The largest percentage of every pool that, with all that is trained beside it, fits.

    Raises:
        SelectionError: not even one of each pool fits; the scan does not tell sizes.
    """
    limit = weight_limit(scan, rule)
    known = _sizes_with_biases(scan, pools)
    beside = total(always_trained(scan, choice), sizes(scan))
    if known is None or beside is None:
        raise SelectionError(_no_sizes(scan))
    percent = _largest(pools, known, limit - beside)
    if percent is None:
        least = beside + sum(_size(pool.units[0], known) for pool in pools)
        smallest = "one layer" if choice.whole_layers else "one parameter of each module type"
        frozen = " or pass --embeddings freeze" if choice.embeddings == "train" and beside else ""
        raise SelectionError(
            f"Not even the smallest choice fits: {smallest} and what is trained beside it are {least:,} weights, more "
            f"than {limit:,}. Allow that many, or leave module types out with --exclude{frozen}."
        )
    return percent


def weight_limit(scan: Scan, rule: MaxWeights) -> int:
    """How many weights may be trained.

    Raises:
        SelectionError: a share of a model whose size the scan does not tell.
    """
    if rule.limit is not None:
        return rule.limit
    if not scan.model.parameters:
        raise SelectionError(_no_sizes(scan))
    return floor(scan.model.parameters * exact(rule.model_percent or 0) / 100)


def _no_sizes(scan: Scan) -> str:
    return f"The scan of '{scan.model.id}' does not hold shapes, so nothing can be fitted. Scan the model."


def _sizes_with_biases(scan: Scan, pools: Sequence[Pool]) -> dict[str, int] | None:
    """Ranked parameter -> number of weights that come with it; None where one is unknown."""
    known = sizes(scan)
    names = [member.name for pool in pools for unit in pool.units for member in unit.members]
    beside = biases(scan, names)
    together = {name: total([name, *([beside[name]] if name in beside else [])], known) for name in names}
    found = {name: size for name, size in together.items() if size is not None}
    return found if len(found) == len(together) else None


def _largest(pools: Sequence[Pool], sizes: Mapping[str, int], room: int) -> float | None:
    """The largest percentage of every pool that has at most `room` weights.

    Args:
        pools: to choose the best of.
        sizes: parameter -> number of weights that come with it, its bias included.
        room: for the ranked parameters.

    Returns:
        Of all percentages that choose as much, the one with the fewest digits; None where one of each pool is too much.
    """
    sums = [list(accumulate((_size(unit, sizes) for unit in pool.units), initial=0)) for pool in pools]
    steps = sorted({Fraction(100 * k, n) for n in {len(pool.units) for pool in pools} for k in range(2, n + 1)})

    def needed(percent: Fraction) -> int:
        return sum(before[how_many(len(before) - 1, percent)] for before in sums)

    if needed(Fraction(0)) > room:
        return None
    fitting = bisect_right(steps, room, key=needed)
    if fitting == len(steps):
        return 100.0
    return float(_shortest_decimal(steps[fitting - 1] if fitting else Fraction(0), steps[fitting]))


def _size(unit: Unit, sizes: Mapping[str, int]) -> int:
    """Number of weights of what is chosen as a whole."""
    return sum(sizes[member.name] for member in unit.members)


def _shortest_decimal(lower: Fraction, upper: Fraction) -> Fraction:
    """The decimal number of fewest digits from `lower` (above it where that is 0) to below `upper`."""
    scale = 1
    while True:
        found = Fraction(max(1, ceil(lower * scale)), scale)
        if found < upper:
            return found
        scale *= 10
