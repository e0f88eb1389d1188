"""How many of each pool a rule takes."""

from bisect import bisect_right
from collections.abc import Sequence
from fractions import Fraction
from itertools import accumulate
from math import ceil, floor

from spectrum.errors import SelectionError
from spectrum.naming import match_module_types
from spectrum.results.scan import ParameterScore, Scan
from spectrum.selection.choice import Choice, Count, MaxWeights, MinSnr, TopPercent, with_biases
from spectrum.selection.companions import always_trained, biases, sizes
from spectrum.selection.pools import Pool


def amounts(scan: Scan, choice: Choice, pools: Sequence[Pool]) -> tuple[float | None, list[int]]:
    """The one percentage of all pools, if there is one, and how many of each pool.

    Raises:
        SelectionError: no parameter reaches the smallest SNR, or not even the smallest choice fits.
        SpectrumError: a pattern that matches no module type.
    """
    rule = choice.rule
    if isinstance(rule, MaxWeights):
        rule = TopPercent(_fitting_percent(scan, choice, rule, pools))
    if isinstance(rule, TopPercent):
        return rule.percent, [_how_many(len(pool.units), _exact(rule.percent)) for pool in pools]
    if isinstance(rule, Count):
        return None, [min(rule.count, len(pool.units)) for pool in pools]
    if isinstance(rule, MinSnr):
        return None, _scoring_at_least(pools, rule.snr)
    names = [pool.name for pool in pools]
    percents = dict.fromkeys(names, rule.otherwise)
    for pattern, percent in rule.rules:
        percents |= dict.fromkeys(match_module_types(names, [pattern], ()), percent)
    shares = [(len(pool.units), percents[pool.name]) for pool in pools]
    return None, [_how_many(n, _exact(share)) if share else 0 for n, share in shares]


def weight_limit(scan: Scan, rule: MaxWeights) -> int:
    """How many weights may be trained.

    Raises:
        SelectionError: a share of a model whose size the scan does not hold.
    """
    if rule.limit is not None:
        return rule.limit
    if not scan.model.parameters:
        raise SelectionError(_no_sizes(scan))
    return floor(scan.model.parameters * _exact(rule.model_percent or 0) / 100)


def _how_many(n: int, percent: Fraction) -> int:
    return max(1, floor(n * percent / 100))


def _exact(percent: float) -> Fraction:
    """A percentage as the decimal number that was typed: in floats, 7 % of 100 is 7.000000000000001."""
    return Fraction(str(percent))


def _scoring_at_least(pools: Sequence[Pool], snr: float) -> list[int]:
    def reaches(item: ParameterScore) -> bool:
        return item.snr is None or item.snr >= snr

    counts = [sum(reaches(unit.members[0]) for unit in pool.units) for pool in pools]
    if not any(counts):
        best = max(unit.members[0].snr or 0.0 for pool in pools for unit in pool.units)
        raise SelectionError(f"No parameter has an SNR of {snr:g} or more; the highest is {best:g}.")
    return counts


def _fitting_percent(scan: Scan, choice: Choice, rule: MaxWeights, pools: Sequence[Pool]) -> float:
    """The largest percentage of every pool that fits together with all that is trained beside it."""
    limit, known = weight_limit(scan, rule), sizes(scan)
    units = [[[item.name for item in unit.members] for unit in pool.units] for pool in pools]
    bias_of = biases(scan, [name for pool in units for unit in pool for name in unit])
    try:
        beside = sum(known[name] for name in always_trained(scan, choice))
        needed = [[sum(known[name] for name in with_biases(unit, bias_of)) for unit in pool] for pool in units]
    except KeyError as error:
        raise SelectionError(_no_sizes(scan)) from error
    percent = _largest(needed, limit - beside)
    if percent is None:
        least = beside + sum(pool[0] for pool in needed)
        smallest = "one layer" if choice.whole_layers else "one parameter of each module type"
        frozen = ", or pass --embeddings freeze" if choice.embeddings == "train" and beside else ""
        raise SelectionError(
            f"Not even the smallest choice fits: {smallest} and what is trained beside it are {least:,} weights, more "
            f"than {limit:,}. Allow that many, or leave module types out with --exclude{frozen}."
        )
    return percent


def _no_sizes(scan: Scan) -> str:
    return f"The scan of '{scan.model.id}' does not hold shapes, so nothing can be fitted. Scan the model."


def _largest(needed: Sequence[Sequence[int]], room: int) -> float | None:
    """The largest percentage of every pool whose best units need at most `room` weights.

    Of all percentages that choose as much, the one with the fewest digits; None if one unit of each pool is too much.
    """
    sums = [list(accumulate(pool, initial=0)) for pool in needed]
    steps = sorted({Fraction(100 * k, n) for n in {len(pool) for pool in needed} for k in range(2, n + 1)})

    def weights(percent: Fraction) -> int:
        return sum(before[_how_many(len(before) - 1, percent)] for before in sums)

    if weights(Fraction(0)) > room:
        return None
    fitting = bisect_right(steps, room, key=weights)
    if fitting == len(steps):
        return 100.0
    return float(_shortest_decimal(steps[fitting - 1] if fitting else Fraction(0), steps[fitting]))


def _shortest_decimal(lower: Fraction, upper: Fraction) -> Fraction:
    """The positive decimal number of fewest digits from `lower` to below `upper`."""
    scale = 1
    while True:
        found = Fraction(max(1, ceil(lower * scale)), scale)
        if found < upper:
            return found
        scale *= 10
