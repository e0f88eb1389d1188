"""Samples of experts."""

import pytest

from spectrum.naming import Matrix, Parameter, sample_experts


def _experts(name, count, parts=("gate_proj", "up_proj")):
    matrices = tuple(Matrix(f"{e}.{part}", (64, 64), "t", (e,)) for e in range(count) for part in parts)
    return Parameter(name, (count, 128, 64), "BF16", "experts", ("t",), matrices)


def _numbers(parameter):
    return sorted({int(matrix.label.partition(".")[0]) for matrix in parameter.matrices})


def test_whole_experts_are_drawn():
    """Gate and up of each drawn expert, in their order; the parameter stays as large as it is."""
    sampled = sample_experts(_experts("model.layers.0.mlp.experts.gate_up_proj", 64), 5)
    assert len(_numbers(sampled)) == 5
    assert [matrix.label for matrix in sampled.matrices] == [
        f"{number}.{part}" for number in _numbers(sampled) for part in ("gate_proj", "up_proj")
    ]
    assert sampled.shape == (64, 128, 64)


def test_the_draw_is_seeded_by_the_layer():
    """The same twice and for both projections of a layer; another one in the next layer."""
    first = _numbers(sample_experts(_experts("model.layers.0.mlp.experts.gate_up_proj", 64), 8))
    again = _numbers(sample_experts(_experts("model.layers.0.mlp.experts.down_proj", 64, ("down_proj",)), 8))
    other = _numbers(sample_experts(_experts("model.layers.1.mlp.experts.gate_up_proj", 64), 8))
    assert first == again
    assert first != other
    one = _numbers(sample_experts(_experts("l.0.experts.*.w1.weight", 64, ("gate_proj",)), 8))
    assert one == _numbers(sample_experts(_experts("l.0.experts.*.w2.weight", 64, ("down_proj",)), 8))


@pytest.mark.parametrize("count", [4, 5])
def test_no_more_than_there_are(count):
    """Asked for all of them or more: nothing changes."""
    parameter = _experts("l.0.experts.x", 4)
    assert sample_experts(parameter, count) is parameter


def test_plain_matrices_are_left_alone():
    """Only experts are sampled."""
    plain = Parameter("w", (64, 64), "F32", "matrix", ("w",), (Matrix("", (64, 64), "w"),))
    assert sample_experts(plain, 1) is plain
