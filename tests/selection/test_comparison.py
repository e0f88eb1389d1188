"""Rank correlation and overlap."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spectrum.selection.comparison import jaccard, spearman


def _pearson_of_average_ranks(first, second):
    """Spearman's definition, written out in float64."""

    def _ranks(values):
        values = np.asarray(values, dtype=np.float64)
        below = (values[None, :] < values[:, None]).sum(axis=1)
        same = (values[None, :] == values[:, None]).sum(axis=1)
        return below + (same + 1) / 2

    one, other = _ranks(first), _ranks(second)
    one, other = one - one.mean(), other - other.mean()
    return (one * other).sum() / np.sqrt((one**2).sum() * (other**2).sum())


_PAIRS = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=2, max_size=30)


@given(_PAIRS)
def test_spearman_is_pearson_of_average_ranks(pairs):
    """With ties, against the definition; symmetric."""
    first, second = ([(float(value),) for value in values] for values in zip(*pairs, strict=True))
    found = spearman(first, second)
    if len(set(first)) == 1 or len(set(second)) == 1:
        assert found is None
    else:
        assert found == pytest.approx(_pearson_of_average_ranks(*zip(*pairs, strict=True)), abs=1e-12)
        assert found == spearman(second, first)


def test_spearman_of_textbook_numbers():
    """IQ and hours of television of ten people, the usual example: -29/165."""
    iq = [106, 86, 100, 101, 99, 103, 97, 113, 112, 110]
    hours = [7, 0, 27, 50, 28, 29, 20, 12, 6, 17]
    assert spearman([(x,) for x in iq], [(x,) for x in hours]) == pytest.approx(-29 / 165, abs=1e-15)


@pytest.mark.parametrize("n", [2, 3, 7, 24, 1000])
def test_equal_and_opposite_rankings(n):
    """Exactly 1 and -1, ties included; numbers that mean the same order are the same ranking."""
    keys = [(float(index // 2),) for index in range(n)] if n > 2 else [(0.0,), (1.0,)]
    assert spearman(keys, [(7 * key[0] ** 3,) for key in keys]) == 1.0
    assert spearman(keys, [(-key[0],) for key in keys]) == -1.0


def test_keys_of_several_numbers():
    """The second decides where the first is equal, as among saturated scores."""
    assert spearman([(0.0, 1.0), (0.0, 2.0)], [(5.0,), (6.0,)]) == 1.0


@pytest.mark.parametrize("keys", [[], [(1.0,)], [(1.0,), (1.0,)]])
def test_no_correlation(keys):
    """Nothing, one thing, or all equal."""
    assert spearman(keys, keys) is None


def test_rankings_of_different_length():
    """They are not of the same things."""
    with pytest.raises(ValueError, match="1 and 0 keys"):
        spearman([(1.0,)], [])


def test_jaccard():
    """Shared over all; two empty sets are equal."""
    assert jaccard("abc", "bcd") == 0.5
    assert jaccard("ab", "cd") == 0
    assert jaccard([], []) == 1
    assert jaccard("a", []) == 0
