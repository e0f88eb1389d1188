"""Whole layers, and the orders of the controls."""

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from selection.scans import chosen, entry, layers, make_scan

from spectrum.errors import SelectionError
from spectrum.selection import Choice, Count, MaxWeights, MinSnr, PerType, TopPercent, select, select_top


def _whole(scan, rule, **options):
    return select(scan, Choice(rule, whole_layers=True, embeddings="freeze", **options))


@given(st.lists(st.permutations(range(8)), min_size=1, max_size=5), st.integers(1, 100))
def test_layers_by_mean_place(orders, percent):
    """The mean of (n - rank + 1/2) / n, written out; floor rule on the layers; ties by number; scales do not mix."""
    n = 8
    scan = make_scan(
        entry(f"model.layers.{layer}.m{kind}.weight", 10.0**kind * (1 + order[layer]))
        for kind, order in enumerate(orders) for layer in range(n)
    )  # fmt: skip
    ranks = n - np.array(orders)  # the score grows with the number drawn: n-1 is rank 1
    score = np.round(((n - ranks + 0.5) / n).mean(axis=0), 12)
    best = sorted(range(n), key=lambda layer: (-score[layer], layer))[: max(1, n * percent // 100)]
    selection = _whole(scan, TopPercent(percent))
    assert {frozenset(numbers) for numbers in chosen(selection).values()} == {frozenset(best)}
    assert len(selection.weights) == len(best) * len(orders)


def test_layers_that_lack_a_type():
    """Means over what a layer has: 5/6, then (1/6 + 3/4) / 2, then (1/2 + 1/4 + 1/2) / 3, for one alone counts 1/2."""
    scan = make_scan(layers([3, 2, 1], "a") + layers([1, 2, 3], "b")[1:] + layers([0, 0, 9], "c")[1:2])
    assert chosen(_whole(scan, Count(1))) == {"a": [0], "b": [], "c": []}
    assert chosen(_whole(scan, Count(2))) == {"a": [0, 2], "b": [2], "c": []}


def test_equal_scores_share_their_place():
    """All of a type equal: the type decides nothing, whatever the order of names."""
    scan = make_scan(layers([5, 5, 5, 5], "a") + layers([1, 2, 4, 3], "b"))
    assert chosen(_whole(scan, Count(2))) == {"a": [2, 3], "b": [2, 3]}


def test_some_equal_scores_share_the_mean_of_their_places():
    """Places 4/6 4/6 1/6 in one type, 3/6 1/6 5/6 in the other: layer 2 comes second."""
    scan = make_scan(layers([5, 5, 1], "a") + layers([2, 1, 3], "b"))
    assert chosen(_whole(scan, Count(2)))["b"] == [2, 0]


def test_a_tie_among_layers_is_reported():
    """Layers 0 and 1 are mirror images."""
    selection = _whole(make_scan(layers([1, 2], "a") + layers([2, 1], "b")), Count(1))
    assert selection.warnings == (
        "model.layers.*: the last layer selected and the first one left out rank equal, so their numbers decide.",
    )
    assert chosen(selection) == {"a": [0], "b": [0]}


def test_each_stack_by_itself():
    """The layers of an encoder are not those of the decoder; what stands outside layers is frozen, and said."""
    entries = [
        entry(f"{stack}.{n}.w.weight", n * factor) for stack, factor in (("enc", 1), ("dec", 9)) for n in range(4)
    ]
    selection = _whole(make_scan([*entries, entry("projector.weight", 5.0)]), TopPercent(50))
    assert {name.removesuffix(".w.weight") for name in selection.weights} == {"enc.3", "enc.2", "dec.3", "dec.2"}
    (warning,) = selection.warnings
    assert warning == (
        "1 ranked parameters outside numbered layers, such as 'projector.weight', are frozen, "
        "because whole layers are chosen."
    )


def test_no_layers_at_all():
    """Nothing to choose whole."""
    with pytest.raises(SelectionError, match="scores nothing inside numbered layers"):
        _whole(make_scan([entry("projector.weight", 5.0)]), Count(1))


_SCAN = make_scan(layers([3, 1, 4, 1.5, 9, 2, 6, 5, 3.5, 8], "up") + layers([None, 2, None, 1, None], "down"))


@pytest.mark.parametrize(
    ("strategy", "expected"),
    [
        ("top", {"down": [0], "up": [4, 9, 6]}),
        ("bottom", {"down": [3], "up": [5, 3, 1]}),
        ("first", {"down": [0], "up": [2, 0, 1]}),
        ("last", {"down": [4], "up": [9, 7, 8]}),
    ],
)
def test_controls(strategy, expected):
    """The best, the worst, the first and the last layers; listed best first."""
    assert chosen(select(_SCAN, Choice(TopPercent(30), strategy=strategy))) == expected


@pytest.mark.parametrize("strategy", ["bottom", "random", "first", "last"])
@pytest.mark.parametrize(
    "rule", [TopPercent(30), Count(3), MinSnr(2), MaxWeights(limit=100), PerType((("up", 70),), 20)], ids=str
)
def test_controls_are_of_the_same_size(strategy, rule):
    """As many of each module type as the best."""
    best = {label: len(found) for label, found in chosen(select(_SCAN, Choice(rule))).items()}
    control = select(_SCAN, Choice(rule, strategy=strategy, seed=5))
    assert {label: len(found) for label, found in chosen(control).items()} == best
    assert not any("cut" in warning or "tied" in warning for warning in control.warnings)


def test_chance_has_a_seed():
    """The same seed, the same selection; others differ, and every parameter has its chance."""
    draws = [frozenset(select(_SCAN, Choice(Count(3), strategy="random", seed=seed)).weights) for seed in range(200)]
    again = [frozenset(select(_SCAN, Choice(Count(3), strategy="random", seed=seed)).weights) for seed in range(200)]
    assert draws == again
    counts = np.array([sum(item.name in draw for draw in draws) for item in _SCAN.parameters[:10]])
    assert np.abs(counts - 200 * 3 / 10).max() < 4 * np.sqrt(200 * 0.3 * 0.7)
    assert len(set(draws)) > 150


def test_the_draw_is_the_same_everywhere():
    """By the SHA-256 of seed and name, not by a generator that another version of Python may change."""
    draws = {n: hashlib.sha256(f"7:model.layers.{n}.up.weight".encode()).digest() for n in range(10)}
    selection = select(_SCAN, Choice(Count(3), strategy="random", seed=7))
    assert set(chosen(selection)["up"]) == set(sorted(draws, key=draws.__getitem__)[:3])


def test_the_order_of_the_file_does_not_matter():
    """Shuffled entries give the same selection."""
    shuffled = make_scan(_SCAN.parameters[::-1])
    for strategy in ("top", "bottom", "random", "first", "last"):
        choice = Choice(TopPercent(40), strategy=strategy)
        assert select(shuffled, choice) == select(_SCAN, choice)


@given(st.integers(1, 99), st.integers(1, 99))
def test_a_larger_percentage_only_adds(one, other):
    """Also of the controls, and of whole layers."""
    less, more = sorted((one, other))
    for options in ({}, {"strategy": "random"}, {"strategy": "bottom"}, {"whole_layers": True}, {"score": "ratio"}):
        small, large = (select(_SCAN, Choice(TopPercent(p), **options)) for p in (less, more))
        assert set(small.names) <= set(large.names)
    assert set(select_top(_SCAN, less).names) <= set(select_top(_SCAN, more).names)
