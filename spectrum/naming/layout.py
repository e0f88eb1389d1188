"""Where the numbers of a runtime parameter are stored in the checkpoint.

A layout is a `Region` of one checkpoint tensor, or a `Joined` of several layouts. The functions below repeat on layouts
what transformers does to weights (stack, concatenate, cut, transpose) without reading them. They raise UntraceableError
if plain indexing cannot express the result.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias, cast

from spectrum.naming.parameters import Matrix


class UntraceableError(Exception):
    """Plain indexing cannot express where the numbers are. Its text is the reason, for the user."""


@dataclass(frozen=True)
class Region:
    """A part of one tensor."""

    tensor: str  # the checkpoint's name
    taken: tuple[int | range, ...]  # indices taken of each axis of the tensor; an integer drops the axis
    order: tuple[int, ...]  # the remaining axes of the tensor, in the order of the axes of the region
    sizes: tuple[int, ...]  # shape of the tensor, after `view`
    view: tuple[int, ...] | None = None  # the shape to give the tensor first, or None

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the region."""
        return tuple(len(self.indices(axis)) for axis in range(len(self.order)))

    def indices(self, axis: int) -> range:
        """The indices of the tensor that an axis of the region takes."""
        return cast(range, self.taken[self.order[axis]])

    def taking(self, axis: int, indices: int | range) -> "Region":
        """The region with other indices along one of its axes; an integer drops the axis."""
        at = self.order[axis]
        order = tuple(each for each in self.order if each != at) if isinstance(indices, int) else self.order
        return replace(self, taken=(*self.taken[:at], indices, *self.taken[at + 1 :]), order=order)


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
    """A whole tensor in another shape."""
    if not isinstance(layout, Region) or layout != whole(layout.tensor, layout.sizes):
        raise UntraceableError("a part of a tensor is given another shape")
    if math.prod(view) != math.prod(layout.sizes):
        raise UntraceableError(f"{layout.sizes} cannot take the shape {view}")
    return replace(whole(layout.tensor, view), view=view)


def stack(parts: Iterable[Layout]) -> Joined:
    """Layouts of one shape along a new first axis."""
    joined = Joined(tuple(parts), stacked=True)
    if len({part.shape for part in joined.parts}) != 1:
        raise UntraceableError("tensors of different shapes are stacked")
    return joined


def concatenate(parts: Iterable[Layout], axis: int) -> Layout:
    """Layouts along an axis they have; a single one is returned as it is."""
    parts = tuple(parts)
    if len({part.shape[:axis] + part.shape[axis + 1 :] for part in parts}) != 1:
        raise UntraceableError("tensors of different shapes are concatenated")
    return parts[0] if len(parts) == 1 else Joined(parts, axis)


def select(layout: Layout, position: int) -> Layout:
    """One entry along the first axis, which is dropped."""
    if isinstance(layout, Region):
        return layout.taking(0, layout.indices(0)[position])
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
    """A slice along an axis, which stays."""
    if isinstance(layout, Region):
        return layout.taking(axis, layout.indices(axis)[wanted])
    if layout.stacked:
        if axis == 0:
            return stack(layout.parts[wanted])
        return stack(take(part, axis - 1, wanted) for part in layout.parts)
    if axis != layout.axis:
        return concatenate((take(part, axis, wanted) for part in layout.parts), layout.axis)
    return concatenate(_cut(layout, wanted), axis)


def transpose(layout: Layout, first: int, second: int) -> Layout:
    """Two axes exchanged."""
    exchanged = {first: second, second: first}
    if isinstance(layout, Region):
        axes = range(len(layout.order))
        return replace(layout, order=tuple(layout.order[exchanged.get(axis, axis)] for axis in axes))
    if not layout.stacked:
        parts = tuple(transpose(part, first, second) for part in layout.parts)
        return Joined(parts, exchanged.get(layout.axis, layout.axis))
    if 0 in exchanged:
        raise UntraceableError("a stack of tensors is transposed along the stack")
    return stack(transpose(part, first - 1, second - 1) for part in layout.parts)


def tensors_of(layout: Layout) -> tuple[str, ...]:
    """The checkpoint's tensors of a layout, each once, in order."""
    if isinstance(layout, Region):
        return (layout.tensor,)
    return tuple(dict.fromkeys(name for part in layout.parts for name in tensors_of(part)))


def matrix(layout: Layout, label: str = "") -> Matrix:
    """A two-dimensional layout as a matrix.

    The matrix has the orientation of the stored tensor, even if the model sees it transposed: the singular values are
    the same. The axis along which several pieces are joined is turned with them.
    """
    if isinstance(layout, Region):
        stored = replace(layout, order=tuple(sorted(layout.order)))
        rows, cols = stored.shape
        return Matrix(label, (rows, cols), layout.tensor, _index(layout), layout.view)
    regions = [part for part in layout.parts if isinstance(part, Region)]
    if layout.stacked or len(regions) < len(layout.parts):
        raise UntraceableError("the matrix is put together from pieces in two directions")
    turned = {region.order != tuple(sorted(region.order)) for region in regions}
    if len(turned) > 1:
        raise UntraceableError("some pieces of the matrix are transposed and others not")
    axis = cast(Literal[0, 1], layout.axis ^ turned.pop())
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
    """What to take of the tensor, without trailing axes that are taken whole."""
    index = [
        taken if isinstance(taken, int) else _slice(taken, size)
        for taken, size in zip(region.taken, region.sizes, strict=True)
    ]
    while index and index[-1] == slice(None):
        index.pop()
    return tuple(index)


def _slice(taken: range, size: int) -> slice:
    # A stop past the last index taken means the same as the end of the axis: `range(0, 8, 2)[1::2]` and its like.
    stop = None if taken.stop >= size else taken.stop
    return slice(taken.start or None, stop, None if taken.step == 1 else taken.step)
