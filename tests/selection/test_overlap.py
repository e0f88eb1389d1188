"""The comparison with the plain selection."""

from dataclasses import replace

import pytest
from selection.scans import entry, layers, make_scan

from spectrum.results import Settings
from spectrum.selection import Choice, Count, MaxWeights, PerType, TopPercent, overlap, select

_SCAN = make_scan(
    [entry(f"l.{n}.w.weight", float(n), ratio=float(n * 7 % 8)) for n in range(8)] + layers([1.0], "mlp.alone")
)


def _compare(choice, scan=_SCAN, plain=_SCAN):
    return overlap(select(scan, choice), scan, plain)


def test_another_score():
    """Top half by SNR 7 6 5 4; by ratio, n * 7 mod 8, 1 2 3 4: opposite but for the 0, whose score is 0 in both."""
    found = _compare(Choice(TopPercent(50), score="ratio"))
    assert found.plain == "top 50 % of each module type by SNR (noise model iqr)"
    assert (found.shared, found.jaccard) == (2, 2 / 8)
    # Ranks 1..8 against 1 8 7 6 5 4 3 2: sum of d^2 is 2 * (36 + 16 + 4) = 112, 1 - 6 * 112 / 504.
    assert found.correlations == {"l.*.w": pytest.approx(1 - 6 * 112 / 504), "model.layers.*.mlp.alone": None}


def test_a_control_ranks_alike():
    """Another order of taking is no other ranking."""
    found = _compare(Choice(TopPercent(50), strategy="bottom"))
    assert (found.shared, found.correlations) == (1, {})


def test_another_noise_model():
    """Compared with the scan as its file has it."""
    other = replace(make_scan(reversed_scores()), settings=Settings(noise_model="mp"))
    found = _compare(Choice(), scan=other)
    assert found.plain == "top 25 % of each module type by SNR (noise model iqr)"
    assert (found.shared, found.correlations["l.*.w"]) == (1, -1.0)


def reversed_scores():
    return [replace(item, snr=8.0 - item.snr) for item in _SCAN.parameters]


def test_the_plain_selection_is_not_compared_with_itself():
    """Whatever is trained beside it, and however its percentage came about."""
    assert _compare(Choice(TopPercent(33))) is None
    assert _compare(Choice(embeddings="freeze", norms="train")) is None
    assert _compare(Choice(MaxWeights(limit=64))) is None


@pytest.mark.parametrize(
    ("choice", "percent"),
    [
        (Choice(Count(2)), 25),
        (Choice(PerType((("l.*", 40),))), 25),
        (Choice(PerType((("l.*", 40),), 60)), 60),
        (Choice(MaxWeights(limit=64), strategy="random"), 37.5),
        (Choice(TopPercent(75), whole_layers=True), 75),
    ],
)
def test_which_percentage_is_compared_with(choice, percent):
    """The one there is, else 25."""
    assert _compare(choice).plain.startswith(f"top {38 if percent == 37.5 else percent} % of")
