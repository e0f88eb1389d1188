"""How many are chosen, by each rule."""

import pytest
from selection.scans import chosen, layers, make_scan

from spectrum.errors import SelectionError, SpectrumError
from spectrum.selection import Choice, Count, MaxWeights, MinSnr, PerType, select

_TYPES = make_scan(layers([1, 2, 3, 4], "mlp.up") + layers([40, 30, 20, 10], "mlp.down") + layers([7, 8], "attn.q"))


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (1, {"attn.q": [1], "mlp.down": [0], "mlp.up": [3]}),
        (3, {"attn.q": [1, 0], "mlp.down": [0, 1, 2], "mlp.up": [3, 2, 1]}),
    ],
)
def test_count(count, expected):
    """N of each module type; all where there are fewer."""
    assert chosen(select(_TYPES, Choice(Count(count)))) == expected


def test_min_snr():
    """All that score at least X, the threshold itself included; a type may get none."""
    assert chosen(select(_TYPES, Choice(MinSnr(10)))) == {"attn.q": [], "mlp.down": [0, 1, 2, 3], "mlp.up": []}
    assert chosen(select(_TYPES, Choice(MinSnr(3.5)))) == {"attn.q": [1, 0], "mlp.down": [0, 1, 2, 3], "mlp.up": [3]}
    assert chosen(select(_TYPES, Choice(MinSnr(10.5))))["mlp.down"] == [0, 1, 2]


def test_saturated_are_above_any_snr():
    """They lead, and no cut is reported among them: all are taken."""
    scan = make_scan(layers([None, 1, None, 3]))
    selection = select(scan, Choice(MinSnr(1e300), embeddings="freeze"))
    assert (chosen(selection), selection.warnings) == ({"mlp.up": [0, 2]}, ())


def test_min_snr_that_nothing_reaches():
    """An error that names the highest."""
    with pytest.raises(SelectionError, match="No parameter has an SNR of 41 or more; the highest is 40."):
        select(_TYPES, Choice(MinSnr(41)))


def test_per_type():
    """Patterns on label or full type; what none matches is left, or follows the other percentage; 0 leaves out."""
    rules = (("mlp.*", 50.0), ("model.layers.[*].attn.q", 100.0))
    assert chosen(select(_TYPES, Choice(PerType(rules)))) == {"attn.q": [1, 0], "mlp.down": [0, 1], "mlp.up": [3, 2]}
    only = PerType((("mlp.up", 25.0),))
    assert chosen(select(_TYPES, Choice(only))) == {"attn.q": [], "mlp.down": [], "mlp.up": [3]}
    others = PerType((("mlp.up", 0.0),), otherwise=50)
    assert chosen(select(_TYPES, Choice(others))) == {"attn.q": [1], "mlp.down": [0, 1], "mlp.up": []}


def test_per_type_percentages_are_exact():
    """57 % of 100 is 57."""
    scan = make_scan(layers(range(100)))
    assert len(select(scan, Choice(PerType((("*", 57.0),)))).weights) == 57
    assert len(select(scan, Choice(PerType((("*", 0.5),)))).weights) == 1


def test_the_last_of_several_patterns_decides():
    """A general rule first, then its exceptions: the usual way, so there is no warning."""
    selection = select(_TYPES, Choice(PerType((("*", 25.0), ("mlp.*", 75.0))), embeddings="freeze"))
    assert chosen(selection) == {"attn.q": [1], "mlp.down": [0, 1, 2], "mlp.up": [3, 2, 1]}
    assert selection.warnings == ()
    reverse = select(_TYPES, Choice(PerType((("mlp.*", 75.0), ("*", 25.0)))))
    assert chosen(reverse) == {"attn.q": [1], "mlp.down": [0], "mlp.up": [3]}


def test_a_pattern_that_matches_nothing():
    """Near ones are suggested."""
    with pytest.raises(SpectrumError, match="No module type matches 'mlp.upp'. Near ones: mlp.up"):
        select(_TYPES, Choice(PerType((("mlp.upp", 50.0),))))


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (lambda: Count(0), "0 of each module type cannot be selected"),
        (lambda: MinSnr(float("nan")), "nan is not an SNR to choose by"),
        (lambda: MinSnr(-1), "-1 is not an SNR to choose by"),
        (lambda: PerType((("mlp.*", 100.5),)), "100.5 % of 'mlp.*': give 0 or more, at most 100"),
        (lambda: PerType((("*", 50), ("mlp.*", -1))), "-1 % of 'mlp.*'"),
        (lambda: PerType((), otherwise=101), "101 % cannot be selected"),
        (lambda: MaxWeights(model_percent=0), "0 % of a model: give more than 0, at most 100"),
        (lambda: MaxWeights(model_percent=float("nan")), "nan % of a model"),
        (lambda: Choice(MinSnr(1), whole_layers=True), "Whole layers have no SNR and no module type"),
        (lambda: Choice(PerType(()), whole_layers=True), "Whole layers have no SNR and no module type"),
        (lambda: Choice(MinSnr(1), score="ratio"), "A lowest SNR cannot be combined with a ranking by ratio"),
    ],
)
def test_what_cannot_be_asked_for(rule, message):
    """Refused where it is made."""
    with pytest.raises(SelectionError, match=message):
        rule()
