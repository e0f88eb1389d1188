"""The score against float64 NumPy written out, its invariances, and the noise models' edges."""

import math

import numpy as np
import pytest
from conftest import planted

from spectrum.spectra.snr import NOISE_MODELS, Score, marchenko_pastur_median, median_score, snr, snr_of_each, threshold

EXACT = 1e-12


def _spectrum(p, *, seed):
    """A bulk and a few outliers, no value near the threshold, where the score jumps."""
    random = np.random.default_rng(seed)
    values = np.concatenate([random.uniform(9.0, 11.0, size=p - p // 8), random.uniform(0.05, 0.5, size=p // 8)])
    return np.sort(values)[::-1]


def test_iqr_score_by_hand():
    """Eight values whose quartiles, threshold and sums are worked out on paper."""
    sigma = np.array([40.0, 9.0, 8.0, 7.0, 6.0, 5.0, 4.0, 1.0])  # quartiles 4.75 and 8.25
    scale = (8.25 - 4.75) / 1.349
    score = snr(sigma, (8, 32))
    assert score.threshold == pytest.approx(scale * 1.5, rel=EXACT)  # 3.8918: only the 1 lies below
    assert score.ratio == pytest.approx(79.0, rel=EXACT)
    assert score.snr == pytest.approx(79.0 / 40, rel=EXACT)
    assert (score.signal_count, score.nuclear, score.sigma_max) == (7, 80.0, 40.0)
    assert score.stable_rank == pytest.approx((1600 + 81 + 64 + 49 + 36 + 25 + 16 + 1) / 1600, rel=EXACT)


@pytest.mark.parametrize("shape", [(64, 64), (48, 160), (160, 48), (33, 1000)])
def test_iqr_score_of_planted_spectra(shape):
    """A matrix with a chosen spectrum, decomposed by NumPy in float64, scores as the formula says."""
    matrix = planted(*shape, _spectrum(min(shape), seed=1), seed=2)
    sigma = np.linalg.svd(matrix, compute_uv=False)
    scale = (np.percentile(sigma, 75) - np.percentile(sigma, 25)) / 1.349
    eps = scale * math.sqrt((1 + math.sqrt(min(shape) / max(shape))) ** 2)
    expected = sigma[sigma > eps].sum() / sigma[sigma <= eps].sum() / sigma[0]
    score = snr(sigma, shape)
    assert score.threshold == pytest.approx(eps, rel=EXACT)
    assert score.snr == pytest.approx(expected, rel=EXACT)


@pytest.mark.parametrize("model", NOISE_MODELS)
@pytest.mark.parametrize("factor", [1e-6, 0.1, 1e6])
def test_score_scales_by_the_inverse(model, factor):
    """c W scores 1/c of W, has c times its threshold and the same ratio, under every noise model."""
    sigma = _spectrum(96, seed=3)
    one, scaled = snr(sigma, (96, 200), noise_model=model), snr(factor * sigma, (96, 200), noise_model=model)
    assert scaled.threshold == pytest.approx(factor * one.threshold, rel=EXACT)
    if one.snr is not None:
        assert scaled.snr == pytest.approx(one.snr / factor, rel=EXACT)
        assert scaled.ratio == pytest.approx(one.ratio, rel=EXACT)
    assert scaled.stable_rank == pytest.approx(one.stable_rank, rel=EXACT)


@pytest.mark.parametrize("model", NOISE_MODELS)
def test_transpose_scores_the_same(model):
    """Only the smaller and the larger side enter."""
    sigma = _spectrum(40, seed=4)
    assert snr(sigma, (40, 100), noise_model=model) == snr(sigma, (100, 40), noise_model=model)


def test_a_value_on_the_threshold_is_noise():
    """The comparison is strict. Of five values the quartiles are the second and the fourth, whatever the third is."""
    sigma = np.array([10.0, 6.0, 5.0, 3.0, 0.1])
    sigma[2] = threshold(sigma, (5, 5))
    score = snr(sigma, (5, 5))
    assert score.threshold == sigma[2]
    assert score.signal_count == 2
    assert score.ratio == pytest.approx(16.0 / (sigma[2] + 3.1), rel=EXACT)
    assert snr_of_each(sigma[np.newaxis], (5, 5)) == pytest.approx([score.snr], rel=EXACT)


def test_saturated_where_nothing_lies_below():
    """A flat spectrum has no spread, hence threshold 0: no ratio, no number that stands for infinity."""
    score = snr(np.full(16, 2.5), (16, 64))
    assert (score.saturated, score.snr, score.ratio, score.signal_count) == (True, None, None, 16)


def test_saturated_where_only_zeros_lie_below():
    """Rank one: the rest is exactly zero, so its sum cannot be divided by."""
    score = snr(np.array([7.0, 0.0, 0.0, 0.0, 0.0]), (5, 9))
    assert (score.saturated, score.snr, score.signal_count, score.threshold) == (True, None, 1, 0.0)


def test_zero_matrix_is_silent():
    """Zeros score 0, without a division by the largest singular value."""
    score = snr(np.zeros(8), (8, 8))
    assert score == Score(0.0, False, 0.0, 0.0, 0.0, 0, 0.0, 0.0)


def test_silent_where_nothing_lies_above():
    """Two far groups of values spread the quartiles so wide that all is noise."""
    sigma = np.array([10.0] * 8 + [0.1] * 8)
    score = snr(sigma, (16, 16))
    assert score.threshold > 10.0
    assert (score.snr, score.ratio, score.signal_count, score.saturated) == (0.0, 0.0, 0, False)


def test_one_row():
    """A single singular value has no quartile range: saturated, as the authors' infinities for vectors."""
    assert snr(np.array([3.0]), (1, 100)).saturated


@pytest.mark.parametrize(
    "spectrum",
    [
        np.array([2.0, 1.0]),
        np.array([]),
        np.array([1.0, 2.0, 3.0]),
        np.array([3.0, 2.0, -1.0]),
        np.array([3, np.nan, 1]),
    ],
)
def test_refuses_what_is_no_spectrum(spectrum):
    """Wrong length, ascending, negative or NaN is a caller's mistake."""
    with pytest.raises(ValueError, match="singular values"):
        snr(spectrum, (3, 5))


def test_refuses_a_score_beyond_the_floats():
    """1 / 1e-320 is no float: an error, never an infinity in a scan file."""
    with pytest.raises(ValueError, match="too small"):
        snr(np.array([4e-320, 3e-320, 2e-320, 0.0]), (4, 4))


@pytest.mark.parametrize("beta", [1.0, 0.5, 0.25, 0.125, 0.01])
def test_marchenko_pastur_median_of_a_sample(beta):
    """The law's median is that of the eigenvalues of a large Gaussian sample."""
    q = 800
    sample = np.random.default_rng(5).standard_normal((int(beta * q), q))
    eigenvalues = np.linalg.svd(sample, compute_uv=False) ** 2 / q
    assert marchenko_pastur_median(beta) == pytest.approx(np.median(eigenvalues), rel=0.03)


def test_marchenko_pastur_median_near_square():
    """0.652776 at beta = 1 (4/sqrt(3) over its root is Gavish and Donoho's 2.858), and no jump beside it."""
    assert 4 / math.sqrt(3) / math.sqrt(marchenko_pastur_median(1.0)) == pytest.approx(2.858, abs=5e-4)
    for gap in (1e-4, 1e-5, 1e-6, 1e-9):
        assert abs(marchenko_pastur_median(1 - gap) - marchenko_pastur_median(1.0)) < gap


@pytest.mark.parametrize("beta", [1.0, 4095 / 4096, 0.5, 0.125])
def test_marchenko_pastur_median_by_another_rule(beta):
    """Half of the law lies below it, by Gauss-Legendre in the square root of x from the lower edge."""
    a, b = (1 - math.sqrt(beta)) ** 2, (1 + math.sqrt(beta)) ** 2
    nodes, weights = np.polynomial.legendre.leggauss(600)

    def _mass(upper):
        s = (nodes + 1) / 2 * math.sqrt(upper - a)
        x = a + s**2
        values = np.sqrt((b - x) * (x - a)) / (2 * math.pi * beta * x) * 2 * s
        return (values * weights).sum() * math.sqrt(upper - a) / 2

    assert _mass(b) == pytest.approx(1, abs=1e-6)
    assert _mass(marchenko_pastur_median(beta)) == pytest.approx(0.5, abs=1e-7)


def test_gavish_donoho_constants():
    """Their table: omega(1) = 2.858; their polynomial agrees within its stated 0.02 elsewhere (1305.5870, III.E)."""
    for beta in (1.0, 0.5, 0.25, 0.125):
        p, q = int(1000 * beta), 1000
        omega = threshold(np.ones(p), (p, q), noise_model="gavish-donoho")
        assert omega == pytest.approx(0.56 * beta**3 - 0.95 * beta**2 + 1.82 * beta + 1.43, abs=0.02)
    assert omega != pytest.approx(2.858, abs=0.1)
    assert threshold(np.ones(9), (9, 9), noise_model="gavish-donoho") == pytest.approx(2.858, abs=1e-3)


def test_std_threshold():
    """The same formula with the standard deviation of the singular values."""
    sigma = np.array([5.0, 4.0, 1.0])
    assert threshold(sigma, (3, 12), noise_model="std") == pytest.approx(math.sqrt(26 / 9) * 1.5, rel=EXACT)


@pytest.mark.parametrize(("p", "q"), [(512, 512), (512, 1024), (512, 2048), (256, 2048)])
def test_mp_edge_on_pure_noise_and_what_iqr_calls_signal(p, q):
    """`mp` calls at most 1 % of pure noise signal; `iqr` 24 % to 100 %, as docs/explanation/score.md says."""
    noise = 0.02 * np.random.default_rng(p + q).standard_normal((p, q))
    sigma = np.linalg.svd(noise, compute_uv=False)
    edge = snr(sigma, (p, q), noise_model="mp")
    assert edge.signal_count <= 0.01 * p
    assert edge.threshold == pytest.approx(0.02 * (math.sqrt(p) + math.sqrt(q)), rel=0.02)
    share = snr(sigma, (p, q)).signal_count / p
    low, high = {1.0: (0.22, 0.27), 0.5: (0.62, 0.68), 0.25: (0.99, 1), 0.125: (1, 1)}[p / q]
    assert low <= share <= high


def test_mp_finds_planted_directions():
    """Ten directions well above the edge are counted, no more than one of the noise with them."""
    random = np.random.default_rng(6)
    noise = random.standard_normal((300, 900))
    spikes = planted(300, 900, np.concatenate([np.full(10, 90.0), np.zeros(290)]), seed=7)
    sigma = np.linalg.svd(noise + spikes, compute_uv=False)
    assert snr(sigma, (300, 900), noise_model="mp").signal_count in (10, 11)


def _score(value):
    ratio = None if value is None else 2 * value
    return Score(value, value is None, ratio, 2.0, 1.0, 3, 9.0, 4.0)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1.0, 5.0, 2.0], 2.0),
        ([1.0, 2.0], 1.5),
        ([1.0, None, 3.0], 3.0),
        ([1.0, None], None),
        ([None, None, 1.0], None),
    ],
)
def test_median_over_experts(values, expected):
    """The median, with a saturated expert above all others and an even count that meets one saturated."""
    score = median_score([_score(value) for value in values])
    assert score.snr == expected
    assert score.saturated == (expected is None)
    assert score.ratio == (None if expected is None else 2 * expected)


@pytest.mark.parametrize("model", NOISE_MODELS)
@pytest.mark.parametrize("shape", [(8, 40), (33, 33), (1, 7), (2, 2)])
def test_snr_of_many_is_that_of_each(model, shape):
    """Saturated, silent, zero and ordinary spectra in one stack."""
    random = np.random.default_rng(3)
    p = min(shape)
    rows = np.sort(random.random((20, p)) ** 3, axis=1)[:, ::-1]
    rows = np.vstack([rows, np.zeros(p), np.ones(p), np.eye(p)[0], np.linspace(1.01, 1, p), 1e-9 * rows[0]])
    expected = [math.inf if (value := snr(row, shape, noise_model=model).snr) is None else value for row in rows]
    np.testing.assert_allclose(snr_of_each(rows, shape, noise_model=model), expected, rtol=1e-12)
    assert len(set(expected)) > 10 or p < 8


@pytest.mark.parametrize(
    "row",
    [
        [4, 3, math.nan, 1],
        [math.nan, 3, 2, 1],
        [math.inf, 3, 2, 1],
        [4, 3, 2, -1],
        [4, 3, 3.5, 1],
        [1e308, 1e308, 0, 0],
        [4e-320, 3e-320, 2e-320, 0],
    ],
)
def test_snr_of_many_refuses_what_that_of_one_does(row):
    """In one row of several."""
    rows = np.array([[4.0, 3.0, 2.0, 1.0], row, [4.0, 3.0, 2.0, 1.0]])
    with pytest.raises(ValueError, match="singular values"):
        snr(rows[1], (4, 4))
    with pytest.raises(ValueError, match="singular values"):
        snr_of_each(rows, (4, 4))
    with pytest.raises(ValueError, match="has 5 singular values"):
        snr_of_each(rows[:1], (5, 6))
