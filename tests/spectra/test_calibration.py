"""A seeded slice of the calibration: every family and dtype, and copied rows at the sizes that failed."""

import numpy as np
import pytest
import torch
from spectra.calibrate import is_decided
from spectra.families import DTYPES, FAMILIES, REPEATED, make, minilm
from spectra.reference import reference_values, score_difference

from spectrum.spectra.gram import gram_matrix
from spectrum.spectra.solver import TOLERANCE, singular_values

SHAPES = [(8, 8), (24, 64), (64, 64), (96, 384)]


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def assert_within_contract(matrix):
    expected = reference_values(matrix)
    error = score_difference(singular_values(matrix).values, expected, tuple(matrix.shape))
    assert error <= TOLERANCE or not is_decided(matrix, expected)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family(family):
    """SNR and threshold within the contract, in all dtypes and small shapes of both orientations."""
    for number, dtype in enumerate(DTYPES):
        for index, shape in enumerate(SHAPES):
            assert_within_contract(make(family, shape, dtype, 100 + index + number))


@pytest.mark.parametrize("family", REPEATED)
def test_rows_stored_several_times_in_bfloat16(family):
    """Sums of squares are biased in float32, and of their differences the small singular values consist."""
    for shape, index in (((128, 512), 1), ((192, 1536), 0), ((256, 1024), 1), ((256, 1024), 2)):
        assert_within_contract(make(family, shape, torch.bfloat16, index))


def _gram_and_exact(rows):
    gram = gram_matrix(lambda start, stop: rows[start:stop], tuple(rows.shape), torch.float32, "cpu")
    scaled = rows.double() * 2.0**-gram.exponent
    return gram, torch.tril(scaled.T @ scaled, -1)


@pytest.mark.parametrize("family", ["every row twice", "nearly every row twice", "repeated heads", "gaussian"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_entry_error_covers_the_entries(family, dtype):
    """What the diagonal's sums show bounds how far the other entries are off, and is close where rows are copies."""
    gram, exact = _gram_and_exact(make(family, (256, 2048), dtype, 1))
    worst = (torch.tril(gram.values, -1) - exact).abs().max().item()
    assert 0.5 * worst <= gram.closer_entry_error() <= gram.entry_error()
    if family == "every row twice":
        assert gram.entry_error() <= 4 * worst


def test_large_rows_do_harm_only_if_they_are_parallel():
    """Of rows 30 times as long as the others, a pair at 60 degrees moves no small eigenvalue; a parallel pair does."""
    random = np.random.default_rng(0)
    rows = torch.from_numpy(random.standard_normal((512, 64)))
    half, parallel = rows.clone(), rows.clone()
    half[:, :2] = 30 * torch.stack([rows[:, 0], rows[:, 0] + 1.7 * rows[:, 1]], dim=1)
    parallel[:, :2] = 30 * rows[:, :1]
    for matrix, seen in ((half, False), (parallel, True)):
        gram, _ = _gram_and_exact(matrix.to(torch.bfloat16))
        assert (gram.closer_entry_error() >= 0.99 * gram.entry_error()) is seen
        assert seen or gram.closer_entry_error() <= 0.1 * gram.entry_error()


def test_trained_weights_are_not_redone():
    """MiniLM in every dtype takes the fast path."""
    for name, matrix in minilm()[::9]:
        for dtype in DTYPES:
            assert singular_values(matrix.to(dtype)).path == "gram", name
