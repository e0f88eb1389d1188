"""How many of each pool a rule takes."""

from collections.abc import Sequence
from fractions import Fraction
from itertools import chain
from math import floor

from spectrum.errors import SelectionError
from spectrum.naming import match_module_types
from spectrum.results.scan import ParameterScore
from spectrum.selection.choice import Count, MinSnr, PerType, TopPercent
from spectrum.selection.pools import Pool


def how_many(n: int, percent: Fraction) -> int:
    """floor(n * percent / 100), at least one."""
    return max(1, floor(n * percent / 100))


def exact(percent: float) -> Fraction:
    """A percentage as the decimal number that was typed: in floats, 7 % of 100 is 7.000000000000001."""
    return Fraction(str(percent))


def amounts(pools: Sequence[Pool], rule: TopPercent | Count | MinSnr | PerType) -> list[int]:
    """How many of each pool.

    Raises:
        SelectionError: no parameter reaches the smallest SNR.
        SpectrumError: a pattern that matches no module type.
    """
    if isinstance(rule, TopPercent):
        return [how_many(len(pool.units), exact(rule.percent)) for pool in pools]
    if isinstance(rule, Count):
        return [min(rule.count, len(pool.units)) for pool in pools]
    if isinstance(rule, MinSnr):
        return _scoring_at_least(pools, rule.snr)
    decided = {name: percents[-1][1] for name, percents in matching_rules(pools, rule).items()}
    percents = [decided.get(pool.name, rule.otherwise) for pool in pools]
    return [
        how_many(len(pool.units), exact(percent)) if percent else 0
        for pool, percent in zip(pools, percents, strict=True)
    ]


def matching_rules(pools: Sequence[Pool], rule: PerType) -> dict[str, list[tuple[str, float]]]:
    """Module type -> the rules whose pattern matches it, in the order given.

    Raises:
        SpectrumError: a pattern that matches none.
    """
    names = [pool.name for pool in pools]
    found: dict[str, list[tuple[str, float]]] = {}
    for pattern, percent in rule.rules:
        for name in match_module_types(names, [pattern], ()):
            found.setdefault(name, []).append((pattern, percent))
    return found


def _scoring_at_least(pools: Sequence[Pool], snr: float) -> list[int]:
    items = list(chain.from_iterable(unit.members for pool in pools for unit in pool.units))
    if not any(_reaches(item, snr) for item in items):
        best = max(item.snr for item in items if item.snr is not None)
        raise SelectionError(f"No parameter has an SNR of {snr:g} or more; the highest is {best:g}.")
    return [sum(_reaches(unit.members[0], snr) for unit in pool.units) for pool in pools]


def _reaches(item: ParameterScore, snr: float) -> bool:
    return item.snr is None or item.snr >= snr
