"""Where a converter of transformers puts the numbers of the tensors it is given.

Each operation is repeated on layouts. If one is not known here, the parameter gets no matrices, rather than wrong ones.
"""

import math
from collections.abc import Sequence

from spectrum.naming import layout
from spectrum.naming.layout import Layout, UntraceableError
from spectrum.naming.transformers_loading import Operation

Shapes = Sequence[tuple[int, ...]]


def trace(operations: Sequence[Operation], sources: Sequence[Sequence[Layout]], shapes: Shapes) -> list[Layout]:
    """Where the numbers of each target of a converter are.

    Args:
        operations: of the converter, in order.
        sources: for each of its source patterns the tensors that match it, in the order of loading.
        shapes: of the targets.

    Raises:
        UntraceableError: an operation moves numbers in a way not known here.
    """
    state = [list(parts) for parts in sources]
    for operation in operations:
        state = _traced(operation, state, shapes)
    traced = [parts[0] for parts in state]
    if [part.shape for part in traced] != list(shapes):
        raise UntraceableError("spectrum does not know how this version of transformers converts it")
    return traced


def _traced(operation: Operation, state: list[list[Layout]], shapes: Shapes) -> list[list[Layout]]:
    """One operation of a converter, on layouts: for each source pattern (later: each target) its tensors."""
    kind, axis = operation.kind, operation.axis or 0
    if kind == "MergeModulelist" and axis == 0:
        return [[layout.stack(parts)] for parts in state]
    if kind == "Concatenate":
        return [[layout.concatenate((part for parts in state for part in parts), axis)]]
    if kind == "Chunk":  # as torch.chunk: sizes rounded up, the last one smaller
        size = -(-state[0][0].shape[axis] // len(shapes))
        return _cut(state[0][0], axis, [size] * len(shapes))
    if kind == "Split":
        return _cut(state[0][0], axis, [shape[axis] for shape in shapes])
    if kind == "ErnieFuseAndSplitTextVisionExperts":
        return _experts_by_modality(state, axis, len(shapes))
    return [[_one_to_one(operation, parts[0], shapes)] for parts in state]


def _one_to_one(operation: Operation, part: Layout, shapes: Shapes) -> Layout:
    """One tensor after an operation that turns each tensor into one."""
    kind, axis = operation.kind, operation.axis or 0
    if kind == "Transpose":
        stays = operation.if_needed and part.shape == shapes[0]
        return part if stays else layout.transpose(part, axis, operation.other_axis or 0)
    if kind == "Interleave" and not operation.inverse:
        return layout.concatenate((layout.take(part, axis, slice(start, None, 2)) for start in (0, 1)), axis)
    if kind == "Conv3dToLinear":
        flat = (part.shape[0], math.prod(part.shape[1:]))
        return part if len(part.shape) == 2 else layout.viewed(part, flat)
    # PermuteForRope reorders the rows of a matrix, which does not change its singular values.
    # Force16BytesAlignment (5.0) copies.
    if kind in ("PermuteForRope", "Force16BytesAlignment"):
        return part
    raise UntraceableError(f"spectrum does not know the operation {kind} of transformers")


def _cut(part: Layout, axis: int, sizes: Sequence[int]) -> list[list[Layout]]:
    stops = [sum(sizes[: number + 1]) for number in range(len(sizes))]
    return [[layout.take(part, axis, slice(stop - size, stop))] for stop, size in zip(stops, sizes, strict=True)]


def _experts_by_modality(state: list[list[Layout]], axis: int, count: int) -> list[list[Layout]]:
    """The experts of each projection in `count` equal shares, a share of all projections for each target."""
    sizes = [-(-len(parts) // count) for parts in state]
    shares = [
        [layout.stack(parts[size * number : size * (number + 1)]) for parts, size in zip(state, sizes, strict=True)]
        for number in range(count)
    ]
    return [[layout.concatenate(share, axis)] for share in shares]
