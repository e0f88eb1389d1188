"""Where the numbers of a runtime parameter stand in the checkpoint.

A layout is an array put together from parts of checkpoint tensors: a `Region` of one tensor, or a `Joined` of several.
It is closed under what the conversion of transformers does to weights (stack, concatenate, cut, transpose), so the
matrices inside a parameter can be traced back to the tensors as the file stores them, without reading one.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias, cast

from spectrum.naming.parameters import Matrix


class UntraceableError(Exception):
    """The numbers cannot be told apart by plain indexing. Its text is the reason, for the user."""


@dataclass(frozen=True)
class Region:
    """A part of one tensor.

    Attributes:
        tensor: the checkpoint's name.
        taken: for each axis of the (viewed) tensor the indices taken; an integer where one is taken and the axis
            dropped.
        order: the axes of the tensor that remain, in the order of the axes of the region.
        sizes: shape of the (viewed) tensor.
        view: the shape to give the tensor first, or None.
    """

    tensor: str
    taken: tuple[int | range, ...]
    order: tuple[int, ...]
    sizes: tuple[int, ...]
    view: tuple[int, ...] | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the region."""
        return tuple(len(cast(range, self.taken[axis])) for axis in self.order)


@dataclass(frozen=True)
class Joined:
    """Several layouts put together along an axis: a new first one (stacked) or one they have (concatenated)."""

    parts: tuple["Layout", ...]
    axis: int = 0
    stacked: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the whole."""
        first = self.parts[0].shape
        if self.stacked:
            return (len(self.parts), *first)
        length = sum(part.shape[self.axis] for part in self.parts)
        return (*first[: self.axis], length, *first[self.axis + 1 :])


Layout: TypeAlias = Region | Joined


def whole(tensor: str, shape: tuple[int, ...]) -> Region:
    """All of a tensor."""
    return Region(tensor, tuple(range(size) for size in shape), tuple(range(len(shape))), shape)


def viewed(layout: Layout, view: tuple[int, ...]) -> Region:
    """A whole tensor in another shape.

    Raises:
        UntraceableError: the layout is not all of one tensor.
    """
    if not isinstance(layout, Region) or layout != whole(layout.tensor, layout.sizes):
        raise UntraceableError("a part of a tensor is given another shape")
    if math.prod(view) != math.prod(layout.sizes):
        raise UntraceableError(f"{layout.sizes} cannot take the shape {view}")
    return replace(whole(layout.tensor, view), view=view)


def stack(parts: Iterable[Layout]) -> Joined:
    """Layouts of one shape along a new first axis.

    Raises:
        UntraceableError: the shapes differ.
    """
    joined = Joined(tuple(parts), stacked=True)
    if len({part.shape for part in joined.parts}) != 1:
        raise UntraceableError("tensors of different shapes are stacked")
    return joined


def concatenate(parts: Iterable[Layout], axis: int) -> Layout:
    """Layouts along an axis they have; one alone stays what it is.

    Raises:
        UntraceableError: the shapes differ elsewhere.
    """
    parts = tuple(parts)
    if len({part.shape[:axis] + part.shape[axis + 1 :] for part in parts}) != 1:
        raise UntraceableError("tensors of different shapes are concatenated")
    return parts[0] if len(parts) == 1 else Joined(parts, axis)


def select(layout: Layout, position: int) -> Layout:
    """One entry along the first axis, which is dropped."""
    if isinstance(layout, Region):
        axis, *order = layout.order
        indices = cast(range, layout.taken[axis])
        return replace(layout, taken=_set(layout.taken, axis, indices[position]), order=tuple(order))
    if layout.stacked:
        return layout.parts[position]
    if layout.axis > 0:
        return concatenate((select(part, position) for part in layout.parts), layout.axis - 1)
    for part in layout.parts:
        if position < part.shape[0]:
            return select(part, position)
        position -= part.shape[0]
    raise IndexError(position)


def take(layout: Layout, axis: int, wanted: slice) -> Layout:
    """A slice along an axis, which stays.

    Raises:
        UntraceableError: every n-th index across the border of two tensors.
    """
    if isinstance(layout, Region):
        indices = cast(range, layout.taken[layout.order[axis]])
        return replace(layout, taken=_set(layout.taken, layout.order[axis], indices[wanted]))
    if layout.stacked:
        if axis == 0:
            return stack(layout.parts[wanted])
        return stack(take(part, axis - 1, wanted) for part in layout.parts)
    if axis != layout.axis:
        return concatenate((take(part, axis, wanted) for part in layout.parts), layout.axis)
    return concatenate(_cut(layout, wanted), axis)


def transpose(layout: Layout, first: int, second: int) -> Layout:
    """Two axes exchanged.

    Raises:
        UntraceableError: one of them is the axis of a stack.
    """
    if isinstance(layout, Region):
        return replace(layout, order=_exchanged(layout.order, first, second))
    if not layout.stacked:
        parts = tuple(transpose(part, first, second) for part in layout.parts)
        return Joined(parts, {first: second, second: first}.get(layout.axis, layout.axis))
    if 0 in (first, second):
        raise UntraceableError("a stack of tensors is transposed along the stack")
    return stack(transpose(part, first - 1, second - 1) for part in layout.parts)


def tensors_of(layout: Layout) -> tuple[str, ...]:
    """The checkpoint's tensors of a layout, each once, in order."""
    if isinstance(layout, Region):
        return (layout.tensor,)
    return tuple(dict.fromkeys(name for part in layout.parts for name in tensors_of(part)))


def matrix(layout: Layout, label: str = "") -> Matrix:
    """A two-dimensional layout as a matrix.

    A region that the model sees transposed is given as it is stored: a matrix and its transpose have the same
    singular values. Only where several pieces make up one matrix does the axis turn with them.

    Raises:
        UntraceableError: pieces that are neither rows nor columns of one matrix.
    """
    if isinstance(layout, Region):
        rows, cols = sorted(layout.order)
        shape = (len(cast(range, layout.taken[rows])), len(cast(range, layout.taken[cols])))
        return Matrix(label, shape, layout.tensor, _index(layout), layout.view)
    if layout.stacked or not all(isinstance(part, Region) for part in layout.parts):
        raise UntraceableError("the matrix is put together from pieces in two directions")
    regions = cast(tuple[Region, ...], layout.parts)
    turned = {region.order != tuple(sorted(region.order)) for region in regions}
    if len(turned) > 1:
        raise UntraceableError("some pieces of the matrix are transposed and others not")
    return _joined_matrix(regions, label, cast(Literal[0, 1], layout.axis ^ turned.pop()))


def _joined_matrix(regions: Sequence[Region], label: str, axis: Literal[0, 1]) -> Matrix:
    pieces = tuple(matrix(region, str(number)) for number, region in enumerate(regions))
    length = sum(piece.shape[axis] for piece in pieces)
    shape = (length, pieces[0].shape[1]) if axis == 0 else (pieces[0].shape[0], length)
    return Matrix(label, shape, pieces[0].tensor, pieces[0].index, pieces[0].view, pieces, axis)


def _cut(joined: Joined, wanted: slice) -> list[Layout]:
    start, stop, step = wanted.indices(joined.shape[joined.axis])
    if step != 1:
        raise UntraceableError(f"every {step}th row of a concatenation of tensors is taken")
    kept: list[Layout] = []
    begin = 0
    for part in joined.parts:
        end = begin + part.shape[joined.axis]
        if start < end and begin < stop:
            inside = slice(max(start, begin) - begin, min(stop, end) - begin)
            kept.append(part if inside == slice(0, end - begin) else take(part, joined.axis, inside))
        begin = end
    return kept


def _index(region: Region) -> tuple[int | slice, ...]:
    """What to take of the tensor, without the axes at the end that are taken whole."""
    index = [
        taken if isinstance(taken, int) else _slice(taken, size)
        for taken, size in zip(region.taken, region.sizes, strict=True)
    ]
    while index and index[-1] == slice(None):
        index.pop()
    return tuple(index)


def _slice(taken: range, size: int) -> slice:
    start = taken.start or None
    # A stop past the last index taken means the same as the end of the axis: `range(0, 8, 2)[1::2]` and its like.
    stop = None if taken.stop >= size else taken.stop
    return slice(start, stop, None if taken.step == 1 else taken.step)


def _set(taken: tuple[int | range, ...], axis: int, value: int | range) -> tuple[int | range, ...]:
    return (*taken[:axis], value, *taken[axis + 1 :])


def _exchanged(order: tuple[int, ...], first: int, second: int) -> tuple[int, ...]:
    exchanged = list(order)
    exchanged[first], exchanged[second] = order[second], order[first]
    return tuple(exchanged)
