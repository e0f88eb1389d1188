"""Singular values against float64 NumPy."""

import numpy as np
import pytest
import torch
from conftest import gaussian, planted

from spectrum.singular import singular_values

FLOAT32 = 1e-5
FLOAT64 = 1e-12


@pytest.mark.parametrize("shape", [(40, 40), (40, 100), (100, 40), (1, 7), (7, 1)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_values_of_every_dtype_and_shape(shape, dtype):
    """Descending, float64, the values of the numbers as stored."""
    matrix = gaussian(*shape, seed=1, dtype=dtype)
    expected = np.linalg.svd(matrix.to(torch.float64).numpy(), compute_uv=False)
    values = singular_values(matrix)
    assert values.dtype == np.float64
    tolerance = FLOAT64 if dtype == torch.float64 else FLOAT32
    np.testing.assert_allclose(values, expected, rtol=tolerance, atol=tolerance * expected[0])


def test_float64_on_request():
    """With precision float64 a float32 matrix is decomposed to float64 accuracy."""
    matrix = gaussian(60, 90, seed=2)
    expected = np.linalg.svd(matrix.double().numpy(), compute_uv=False)
    np.testing.assert_allclose(singular_values(matrix, precision="float64"), expected, rtol=FLOAT64)


def test_auto_redoes_what_float32_cannot_resolve():
    """One direction 1e6 times the bulk: plain float32 misses the bulk, auto does not."""
    spectrum = np.concatenate([[1e6], np.linspace(1.5, 0.5, 49)])
    matrix = torch.from_numpy(planted(50, 80, spectrum, seed=3)).float()
    expected = np.linalg.svd(matrix.double().numpy(), compute_uv=False)
    assert np.abs(singular_values(matrix, precision="float32") / expected - 1).max() > 1e-3
    np.testing.assert_allclose(singular_values(matrix), expected, rtol=FLOAT32)


def test_rank_deficient_has_exact_zeros():
    """What float64 cannot tell from zero is zero, so that roundings are never taken for noise."""
    matrix = torch.from_numpy(np.outer(np.arange(1.0, 41.0), np.arange(1.0, 31.0))).float()
    values = singular_values(matrix)
    assert values[0] == pytest.approx(np.linalg.norm(matrix.double().numpy()), rel=FLOAT32)
    assert (values[1:] == 0).all()


def test_zero_matrix():
    """All zeros."""
    assert (singular_values(torch.zeros(5, 8)) == 0).all()


@pytest.mark.parametrize(("value", "message"), [(float("nan"), "NaN"), (float("inf"), "infinite")])
def test_refuses_what_is_not_finite(value, message):
    """One bad number is found, whichever it is."""
    matrix = gaussian(9, 9, seed=4)
    matrix[3, 5] = value
    with pytest.raises(ValueError, match=message):
        singular_values(matrix)


@pytest.mark.parametrize("shape", [(0, 4), (4,), (2, 3, 4)])
def test_refuses_what_is_no_matrix(shape):
    """Empty, 1-D and 3-D are a caller's mistake."""
    with pytest.raises(ValueError, match="no matrix"):
        singular_values(torch.zeros(shape))
