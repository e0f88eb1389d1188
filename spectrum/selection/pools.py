"""Candidates to choose among: parameters within their module type, or whole layers within their stack."""

import hashlib
from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from fractions import Fraction
from itertools import groupby

from spectrum.naming import RANKED, common_prefix, natural_key
from spectrum.results.scan import ParameterScore, Scan
from spectrum.selection.choice import Strategy
from spectrum.selection.comparison import Key
from spectrum.selection.ranking import rank


@dataclass(frozen=True)
class Unit:
    """A candidate, chosen or left as a whole: one parameter, or a layer's ranked parameters."""

    name: str
    key: Key
    members: tuple[ParameterScore, ...]


@dataclass(frozen=True)
class Pool:
    """Units that compete.

    Attributes:
        name: the module type, or the stack of layers such as `model.layers.*`.
        label: without the prefix that all module types share.
        units: best first.
    """

    name: str
    label: str
    units: tuple[Unit, ...]


def module_type_pools(scan: Scan, keys: Mapping[str, Key], module_types: Collection[str]) -> list[Pool]:
    """A pool for each of these module types, in natural order."""
    members: dict[str, list[ParameterScore]] = defaultdict(list)
    for item in scan.parameters:
        if item.kind in RANKED and item.module_type in module_types:
            members[item.module_type].append(item)
    prefix = common_prefix(members)
    units = {
        name: tuple(Unit(item.name, keys[item.name], (item,)) for item in rank(items, keys))
        for name, items in members.items()
    }
    return [Pool(name, name.removeprefix(prefix), units[name]) for name in sorted(units, key=natural_key)]


def layer_pools(types: list[Pool]) -> list[Pool]:
    """A pool for each stack of layers, such as an encoder's and a decoder's.

    A layer scores the mean, over its ranked parameters, of (n - rank + 1/2) / n, where rank is that among the n of the
    module type. So the scales of module types do not mix, and a parameter that is alone in its type counts 1/2. Equal
    layers are ordered by number. Parameters outside numbered layers are in no pool.
    """
    layers: dict[tuple[str, int], list[tuple[Fraction, ParameterScore]]] = defaultdict(list)
    for pool in types:
        for unit, place in zip(pool.units, _places(pool), strict=True):
            (item,) = unit.members
            if item.layer is not None:
                layers[pool.name.partition("*")[0], item.layer].append((place, item))
    stacks: dict[str, list[Unit]] = defaultdict(list)
    for (stack, number), entries in sorted(layers.items()):
        mean = sum((place for place, _ in entries), Fraction()) / len(entries)
        # Exact up to here: equal means are equal floats.
        stacks[stack].append(Unit(f"{stack}{number}", (-float(mean),), tuple(item for _, item in entries)))
    return [
        Pool(f"{stack}*", f"{stack}*", tuple(sorted(units, key=lambda unit: unit.key)))
        for stack, units in stacks.items()
    ]


def in_order(pool: Pool, strategy: Strategy, seed: int) -> tuple[Unit, ...]:
    """The units of a pool in the order in which a strategy takes them."""
    if strategy == "top":
        return pool.units
    if strategy == "bottom":
        return pool.units[::-1]
    if strategy == "random":
        # A hash and not a generator: the same on every version of Python, whatever other parameters there are.
        return tuple(sorted(pool.units, key=lambda unit: hashlib.sha256(f"{seed}:{unit.name}".encode()).digest()))
    by_layer = tuple(sorted(pool.units, key=lambda unit: natural_key(unit.name)))
    return by_layer if strategy == "first" else by_layer[::-1]


def _places(pool: Pool) -> list[Fraction]:
    """(n - rank + 1/2) / n of each unit; those with equal keys share their mean."""
    n = len(pool.units)
    places: list[Fraction] = []
    for _, tied in groupby(pool.units, key=lambda unit: unit.key):
        count = len(tuple(tied))
        places += [Fraction(2 * (n - len(places)) - count, 2 * n)] * count
    return places
