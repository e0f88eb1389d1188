"""Two scans compared."""

from dataclasses import replace

import numpy as np
import pytest
from selection.scans import entry, layers, make_scan

from spectrum.errors import SelectionError, SpectrumError
from spectrum.results import Unscored
from spectrum.selection.diff import Move, SharedTop, TypeChange, compare_scans


def test_a_scan_and_itself():
    """All correlations 1, all selections shared, nothing moved."""
    scan = make_scan(layers([3, 1, 2, 5], "a") + layers([4, 4, None, None], "b"))
    found = compare_scans(scan, scan, percents=(25, 100))
    assert [change.spearman for change in found.module_types] == [1.0, 1.0]
    assert found.overlaps == (SharedTop(25, 2, 2, 2, 1.0), SharedTop(100, 8, 8, 8, 1.0))
    assert (found.moves, found.missing, found.new, found.reshaped) == ((), (), (), ())


def test_every_part():
    """Two types, a parameter missing, one new, one of another shape; written out by hand."""
    first = make_scan([*layers([9, 7, 5, 3, 1], "a"), *layers([1, 2], "b"), entry("model.layers.9.a.weight", 8)])
    second = make_scan(
        [*layers([1, 7, 5, 3, 9], "a"), *layers([1, 2], "b", shape=(5, 4)), entry("model.layers.3.b.weight", 0)]
    )
    found = compare_scans(first, second, percents=(40,))
    # Ranks of a: 1 2 3 4 5 against 5 2 3 4 1, d^2 = 16 + 16: 1 - 6 * 32 / (5 * 24).
    assert found.module_types == (
        TypeChange("model.layers.*.a", "a", 5, pytest.approx(-0.6), missing=1, new=0),
        TypeChange("model.layers.*.b", "b", 2, 1.0, missing=0, new=1),
    )
    # A: layers 0 and 9 of a, 1 of b; B: layers 4 and 1 of a, 1 of b.
    assert found.overlaps == (SharedTop(40, 3, 3, 1, 1 / 5),)
    assert found.moves == (Move("model.layers.0.a.weight", 1, 5, 5), Move("model.layers.4.a.weight", 5, 1, 5))
    assert (found.missing, found.new) == (("model.layers.9.a.weight",), ("model.layers.3.b.weight",))
    assert found.reshaped == ("model.layers.0.b.weight", "model.layers.1.b.weight")
    assert found.weakest == found.module_types[0]


def test_saturated_rank_as_in_a_selection():
    """Above every number and among each other by spread: the same order by other means is no change."""
    first = make_scan(
        [entry("l.0.w.weight", None, nuclear=9), entry("l.1.w.weight", None, nuclear=8), entry("l.2.w.weight", 7)]
    )
    second = make_scan(entry(f"l.{n}.w.weight", 3.0 - n) for n in range(3))
    found = compare_scans(first, second)
    assert (found.module_types[0].spearman, found.moves) == (1.0, ())
    other = compare_scans(first, make_scan(entry(f"l.{n}.w.weight", None, nuclear=n) for n in range(3)))
    assert other.module_types[0].spearman == -1.0


@pytest.mark.parametrize("scores", [[1.0], [2.0, 2.0, 2.0]])
def test_no_correlation(scores):
    """One parameter, or all equal: none, and none is the weakest."""
    scan = make_scan(layers(scores))
    found = compare_scans(scan, scan)
    assert (found.module_types[0].spearman, found.weakest) == (None, None)


def test_a_type_that_only_one_has():
    """It is listed, with nothing compared."""
    found = compare_scans(make_scan(layers([1, 2], "a")), make_scan(layers([1, 2], "a") + layers([3, 4], "b")))
    assert found.module_types[1] == TypeChange("model.layers.*.b", "b", 0, None, missing=0, new=2)


def test_embeddings_and_norms_are_not_compared():
    """They have no rank, and would make every selection look alike."""
    others = [Unscored("embed.weight", "embedding", (9, 4)), Unscored("norm.weight", "norm", (4,))]
    first = make_scan([*layers([1, 2, 3, 4]), entry("head.weight", 1.0, kind="head")], others)
    found = compare_scans(first, make_scan(layers([4, 3, 2, 1])), percents=(50,))
    assert (found.overlaps, found.missing) == ((SharedTop(50, 2, 2, 0, 0.0),), ())


def test_moves_are_in_order():
    """Largest first, then natural order; ranks count from 1."""
    order = np.random.default_rng(0).permutation(30)
    first, second = make_scan(layers(range(30, 0, -1))), make_scan(layers((30 - order).tolist()))
    found = compare_scans(first, second)
    expected = sorted(
        ((-abs(int(order[layer]) - layer), layer) for layer in range(30) if order[layer] != layer),
    )
    assert [(-abs(move.second - move.first), int(move.name.split(".")[2])) for move in found.moves] == expected
    assert all(move.second == order[int(move.name.split(".")[2])] + 1 for move in found.moves)


def test_nothing_in_common():
    """Names of different classes, perhaps: what to do is said."""
    one, other = make_scan(layers([1, 2])), make_scan([entry("h.0.w.weight", 1.0)])
    other = replace(other, model=replace(other.model, id="other"))
    with pytest.raises(SpectrumError, match="The scans of 'm' and 'other' have no scored parameter in common. Compare"):
        compare_scans(one, other)


def test_percentage_out_of_range():
    """As of a selection."""
    with pytest.raises(SelectionError, match="give more than 0 and at most 100"):
        compare_scans(make_scan(layers([1])), make_scan(layers([1])), percents=(0,))
