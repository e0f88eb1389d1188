"""What is chosen among what: parameters within their module type, or whole layers within their stack."""

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
    """What is chosen or left as a whole: one parameter, or a layer's ranked parameters."""

    name: str
    key: Key
    members: tuple[ParameterScore, ...]


@dataclass(frozen=True)
class Pool:
    """What units are chosen among.

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
    return [
        Pool(
            name,
            name.removeprefix(prefix),
            tuple(Unit(item.name, keys[item.name], (item,)) for item in rank(members[name], keys)),
        )
        for name in sorted(members, key=natural_key)
    ]


def layer_pools(types: list[Pool]) -> list[Pool]:
    """A pool for each stack of layers, such as an encoder's and a decoder's.

    A layer scores the mean, over its ranked parameters, of their place within the module type: (n - rank + 1/2) / n
    for rank 1 to n. So scales do not mix, and a parameter that is alone in its type weighs neither way. Equal layers
    are ordered by number. Parameters outside numbered layers are in no pool.
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
        return tuple(sorted(pool.units, key=lambda unit: _draw(unit.name, seed)))
    by_layer = tuple(sorted(pool.units, key=lambda unit: natural_key(unit.name)))
    return by_layer if strategy == "first" else by_layer[::-1]


def _places(pool: Pool) -> list[Fraction]:
    """(n - rank + 1/2) / n of each unit; those with equal keys share the mean of theirs."""
    n = len(pool.units)
    places: list[Fraction] = []
    for _, tied in groupby(pool.units, key=lambda unit: unit.key):
        count = len(tuple(tied))
        places += [Fraction(2 * (n - len(places)) - count, 2 * n)] * count
    return places


def _draw(name: str, seed: int) -> bytes:
    """A number by chance that depends on seed and name alone: on no version of Python, and on no other parameter."""
    return hashlib.sha256(f"{seed}:{name}".encode()).digest()
