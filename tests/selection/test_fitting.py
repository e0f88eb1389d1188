"""The largest choice that fits."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from selection.scans import chosen, entry, layers, make_scan

from spectrum.errors import SelectionError
from spectrum.results import Unscored
from spectrum.selection import Choice, MaxWeights, select, select_top

_SIZES = st.lists(st.lists(st.integers(1, 50), min_size=1, max_size=9), min_size=1, max_size=4)


def _best_that_fits(types, limit):
    """Every percentage at which something changes, tried one by one; types hold sizes, best first."""
    totals = set()
    for percent in {Fraction(100 * k, len(sizes)) for sizes in types for k in range(1, len(sizes) + 1)} | {Fraction(0)}:
        totals.add(sum(sum(sizes[: max(1, int(percent * len(sizes) / 100))]) for sizes in types))
    return max((total for total in totals if total <= limit), default=None)


@given(_SIZES, st.integers(1, 600))
def test_the_largest_that_fits(types, limit):
    """As much as trying every percentage finds; and --top with the percentage that is named gives the same."""
    scan = make_scan(
        entry(f"l.{number}.m{kind}.weight", 100.0 - number, shape=(size,))
        for kind, sizes in enumerate(types) for number, size in enumerate(sizes)
    )  # fmt: skip
    expected = _best_that_fits(types, limit)
    choice = Choice(MaxWeights(limit=limit))
    if expected is None:
        with pytest.raises(
            SelectionError, match=f"are {sum(sizes[0] for sizes in types):,} weights, more than {limit:,}"
        ):
            select(scan, choice)
    else:
        selection = select(scan, choice)
        assert selection.trainable == expected <= limit
        assert select_top(scan, selection.top_percent).names == selection.names


@given(_SIZES, st.integers(20, 300), st.integers(1, 300))
def test_more_room_never_selects_less(types, limit, more):
    """What fits stays, and something may come."""
    scan = make_scan(
        entry(f"l.{number}.m{kind}.weight", 100.0 - number, shape=(size,))
        for kind, sizes in enumerate(types) for number, size in enumerate(sizes)
    )  # fmt: skip
    try:
        less = select(scan, Choice(MaxWeights(limit=limit)))
    except SelectionError:
        return
    assert set(less.names) <= set(select(scan, Choice(MaxWeights(limit=limit + more))).names)


_OTHERS = [
    Unscored("model.layers.3.mlp.up.bias", "bias", (4,)),
    Unscored("embed.weight", "embedding", (10, 4)),
    Unscored("norm.weight", "norm", (4,)),
]


@pytest.mark.parametrize(
    ("limit", "options", "layers_chosen"),
    [
        (40 + 16 + 4, {}, [3]),
        (40 + 32 + 3, {}, [3]),
        (40 + 32 + 4, {}, [3, 2]),
        (40 + 32 + 7, {"norms": "train"}, [3]),
        (40 + 32 + 8, {"norms": "train"}, [3, 2]),
        (64 + 4, {"embeddings": "freeze"}, [3, 2, 1, 0]),
        (10**12, {}, [3, 2, 1, 0]),
    ],
)
def test_all_that_is_trained_counts(limit, options, layers_chosen):
    """Embeddings, norms and biases included, to the last weight."""
    scan = make_scan(layers([1, 2, 3, 4]), _OTHERS)
    selection = select(scan, Choice(MaxWeights(limit=limit), **options))
    assert chosen(selection) == {"mlp.up": layers_chosen}
    assert selection.trainable <= limit


def test_what_the_smallest_choice_needs():
    """One weight short: the error tells the number that would do."""
    scan = make_scan(layers([1, 2, 3, 4]), _OTHERS)
    with pytest.raises(SelectionError) as error:
        select(scan, Choice(MaxWeights(limit=59)))
    assert str(error.value) == (
        "Not even the smallest choice fits: one parameter of each module type and what is trained beside it are "
        "60 weights, more than 59. Allow that many, or leave module types out with --exclude, or pass "
        "--embeddings freeze."
    )
    assert select(scan, Choice(MaxWeights(limit=60))).trainable == 60


def test_a_share_of_the_model():
    """30 % of 1000 weights are 300, exactly; of 999 they are 299."""
    scan = make_scan(layers(range(20), shape=(100, 1)))
    assert select(scan, Choice(MaxWeights(model_percent=30))).trainable == 300
    fewer = make_scan(layers(range(20), shape=(100, 1)), parameters=999)
    assert select(fewer, Choice(MaxWeights(model_percent=30))).trainable == 200


def test_whole_layers_that_fit():
    """As many layers as have room, each with all its ranked parameters."""
    scan = make_scan(layers([1, 2, 3], "a") + layers([1, 2, 3], "b", shape=(8, 4)))
    selection = select(scan, Choice(MaxWeights(limit=143), whole_layers=True))
    assert chosen(selection) == {"a": [2, 1], "b": [2, 1]}
    with pytest.raises(SelectionError, match="one layer and what is trained beside it are 48 weights, more than 47"):
        select(scan, Choice(MaxWeights(limit=47), whole_layers=True))


def test_a_control_that_is_larger_says_so():
    """Where sizes differ within a module type, as many parameters may be more weights."""
    scan = make_scan([entry("l.0.w.weight", 9, shape=(10,)), entry("l.1.w.weight", 1, shape=(90,))])
    selection = select(scan, Choice(MaxWeights(limit=50), strategy="bottom"))
    assert selection.trainable == 90
    assert any("This control trains 90 weights, more than 50" in warning for warning in selection.warnings)


@pytest.mark.parametrize("rule", [MaxWeights(limit=9), MaxWeights(model_percent=9)])
def test_sizes_that_are_not_known(rule):
    """An imported scan holds no shapes."""
    scan = make_scan(layers([1], shape=None), parameters=None)
    with pytest.raises(SelectionError, match="does not hold shapes, so nothing can be fitted"):
        select(scan, Choice(rule))


def test_the_percentage_named_is_short_and_exact():
    """2 of 3 and 66 of 100 are 66.67 to below 67 %: 66.7, for 67 would be more."""
    scan = make_scan(layers(range(3), "a") + layers(range(100), "b"))
    selection = select(scan, Choice(MaxWeights(limit=16 * 68)))
    assert selection.top_percent == 66.7
    assert (selection.trainable, select_top(scan, 67).trainable) == (16 * 68, 16 * 69)


def test_the_bias_of_a_head_counts():
    """It is trained with the head."""
    others = [Unscored("lm_head.weight", "head", (10, 4)), Unscored("lm_head.bias", "bias", (10,))]
    scan = make_scan(layers([1, 2]), others)
    assert select(scan, Choice(MaxWeights(limit=50 + 32))).trainable == 50 + 32
    assert select(scan, Choice(MaxWeights(limit=50 + 31))).trainable == 50 + 16


def test_a_control_that_just_fits_says_nothing():
    """At most is at most."""
    scan = make_scan([entry("l.0.w.weight", 9, shape=(50,)), entry("l.1.w.weight", 1, shape=(50,))])
    assert select(scan, Choice(MaxWeights(limit=50), strategy="bottom", embeddings="freeze")).warnings == ()
