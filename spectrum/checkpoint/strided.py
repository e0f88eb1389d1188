"""Reading a tensor whose entries do not stand in the file in order: a saved transpose, or a view of more."""

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

ReadBytes = Callable[[int, memoryview], None]  # from an offset in bytes

SMALL_BYTES = 2**20  # read at once, gaps and all


def read_strided(
    read: ReadBytes, start: int, shape: Sequence[int], strides: Sequence[int], dtype: "torch.dtype"
) -> "torch.Tensor":
    """The entries in memory of their own, and no more than them.

    What stands in the file without gaps is read at once and seen through its strides; else, but for small parts, the
    axis that takes the largest steps is gone along. Rows of a saved transpose are so read column by column.

    Args:
        read: fills a buffer from an offset.
        start: first byte of the first entry.
        shape: in elements.
        strides: steps along each axis, in elements of the file; no two entries share a place.
        dtype: of both.
    """
    import torch  # noqa: PLC0415

    numel = math.prod(shape)
    if numel == 0:
        return torch.empty(tuple(shape), dtype=dtype)
    length = 1 + sum((side - 1) * stride for side, stride in zip(shape, strides, strict=True))
    if length == numel or length * dtype.itemsize <= SMALL_BYTES:
        entries = torch.empty((length,), dtype=dtype)
        read(start, memoryview(entries.view(torch.uint8).numpy().data))
        seen = entries.as_strided(tuple(shape), tuple(strides))
        return seen if length == numel else seen.clone()
    axis = max((index for index, side in enumerate(shape) if side > 1), key=lambda index: strides[index])
    rest = [index for index in range(len(shape)) if index != axis]
    steps = (start + step * strides[axis] * dtype.itemsize for step in range(shape[axis]))
    result = torch.empty(tuple(shape), dtype=dtype)
    for step, offset in enumerate(steps):
        inner = read_strided(read, offset, [shape[i] for i in rest], [strides[i] for i in rest], dtype)
        result.select(axis, step).copy_(inner)
    return result
