"""Layouts against NumPy: whatever is done to a layout, its matrices hold the numbers NumPy computes."""

import numpy as np
import pytest

from spectrum.naming import layout
from spectrum.naming.layout import UntraceableError
from spectrum.naming.parameters import Matrix

ARRAYS = {
    "a": np.arange(60).reshape(3, 4, 5),
    "b": np.arange(100, 160).reshape(3, 4, 5),
    "c": np.arange(200, 220).reshape(4, 5),
    "d": np.arange(300, 320).reshape(4, 5),
    "e": np.arange(400, 460).reshape(12, 5),
}


def tensor(name):
    return layout.whole(name, ARRAYS[name].shape)


def values(matrix: Matrix):
    if matrix.pieces:
        return np.concatenate([values(piece) for piece in matrix.pieces], axis=matrix.axis)
    array = ARRAYS[matrix.tensor]
    return (array if matrix.view is None else array.reshape(matrix.view))[matrix.index]


def pair(kind):
    """A layout of shape (3, 8, 5) or (2, 4, 5) or ..., and the array it stands for."""
    a, b, c, d, e = (ARRAYS[name] for name in "abcde")
    return {
        "plain": (tensor("a"), a),
        "transposed": (layout.transpose(tensor("a"), 1, 2), a.transpose(0, 2, 1)),
        "rows": (layout.concatenate([tensor("a"), tensor("b")], 1), np.concatenate([a, b], 1)),
        "columns": (layout.concatenate([tensor("a"), tensor("b")], 2), np.concatenate([a, b], 2)),
        "more": (layout.concatenate([tensor("a"), tensor("b")], 0), np.concatenate([a, b], 0)),
        "stacked": (layout.stack([tensor("c"), tensor("d")]), np.stack([c, d])),
        "stacked then joined": (
            layout.concatenate([layout.stack([tensor("c"), tensor("d")]), layout.stack([tensor("d"), tensor("c")])], 1),
            np.concatenate([np.stack([c, d]), np.stack([d, c])], 1),
        ),
        "viewed": (layout.viewed(tensor("e"), (3, 4, 5)), e.reshape(3, 4, 5)),
        "both turned": (
            layout.transpose(layout.concatenate([tensor("a"), tensor("b")], 1), 1, 2),
            np.concatenate([a, b], 1).transpose(0, 2, 1),
        ),
        "stack turned": (layout.transpose(layout.stack([tensor("c"), tensor("d")]), 1, 2), np.stack([c.T, d.T])),
        "odd rows": (layout.take(tensor("a"), 1, slice(1, None, 2)), a[:, 1::2]),
    }[kind]  # fmt: skip


KINDS = [
    "plain", "transposed", "rows", "columns", "more", "stacked", "stacked then joined", "viewed", "both turned",
    "stack turned", "odd rows",
]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_every_expert_of_a_stack(kind):
    """Selecting along the first axis gives the slice NumPy gives, up to a transpose, shape and all."""
    where, array = pair(kind)
    assert where.shape == array.shape
    for number, expected in enumerate(array):
        matrix = layout.matrix(layout.select(where, number), "x")
        found = values(matrix)
        assert found.shape == matrix.shape
        assert np.array_equal(found, expected) or np.array_equal(found.T, expected)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("axis", [1, 2])
def test_slices_of_every_expert(kind, axis):
    """A half, and a cut that runs across the border of two tensors."""
    where, array = pair(kind)
    size = array.shape[axis]
    for wanted in (slice(None, size // 2), slice(size // 2, None), slice(1, size - 1)):
        if wanted.stop is not None and wanted.stop - (wanted.start or 0) < 1:
            continue
        part = layout.take(where, axis, wanted)
        expected = array[:, wanted] if axis == 1 else array[:, :, wanted]
        assert part.shape == expected.shape
        found = values(layout.matrix(layout.select(part, 1)))
        assert np.array_equal(found, expected[1]) or np.array_equal(found.T, expected[1])


def test_slices_of_slices():
    """Slices compose, steps too, and the index says it in NumPy's words."""
    part = layout.take(layout.take(tensor("e"), 0, slice(2, 11)), 0, slice(1, None, 2))
    matrix = layout.matrix(part)
    assert matrix.index == (slice(3, 11, 2),)
    assert np.array_equal(values(matrix), ARRAYS["e"][2:11][1::2])


def test_the_index_leaves_out_what_is_taken_whole():
    """All of a tensor has the empty index; an expert only its number."""
    assert layout.matrix(tensor("c")).index == ()
    assert layout.matrix(layout.select(tensor("a"), 2)).index == (2,)
    half = layout.take(layout.select(tensor("a"), 2), 1, slice(0, None, 2))
    assert layout.matrix(half).index == (2, slice(None), slice(None, None, 2))


@pytest.mark.parametrize(
    "make, reason",
    [
        (lambda: layout.stack([tensor("c"), tensor("e")]), "tensors of different shapes are stacked"),
        (lambda: layout.concatenate([tensor("c"), tensor("a")], 0), "tensors of different shapes are concatenated"),
        (
            lambda: layout.take(layout.concatenate([tensor("c"), tensor("d")], 0), 0, slice(None, None, 2)),
            "every 2th row of a concatenation of tensors is taken",
        ),
        (
            lambda: layout.transpose(layout.stack([tensor("c"), tensor("d")]), 0, 1),
            "a stack of tensors is transposed along the stack",
        ),
        (
            lambda: layout.viewed(layout.take(tensor("e"), 0, slice(6)), (2, 3, 5)),
            "a part of a tensor is given another shape",
        ),
        (
            lambda: layout.matrix(
                layout.concatenate([tensor("c"), layout.transpose(layout.take(tensor("e"), 0, slice(5)), 0, 1)], 0)
            ),
            "some pieces of the matrix are transposed and others not",
        ),
    ],
)
def test_what_cannot_be_traced_says_why(make, reason):
    """No wrong matrix is ever made."""
    with pytest.raises(UntraceableError, match=reason):
        make()
