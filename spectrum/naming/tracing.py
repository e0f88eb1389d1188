"""Where a converter of transformers puts the numbers of the tensors it is given.

Each operation is repeated on layouts. One that is not known here leaves a parameter without matrices instead of with
wrong ones.
"""

import math
from collections.abc import Callable, Sequence

from spectrum.naming import layout
from spectrum.naming.layout import Layout, UntraceableError
from spectrum.naming.transformers_loading import Operation


def trace(
    operations: Sequence[Operation], sources: Sequence[Sequence[Layout]], shapes: Sequence[tuple[int, ...]]
) -> list[Layout]:
    """Where the numbers of each target of a converter are.

    Args:
        operations: of the converter, in order.
        sources: for each of its source patterns the tensors that match it, in the order of loading.
        shapes: of the targets.

    Raises:
        UntraceableError: an operation that moves numbers in a way not known here.
    """
    state = [list(parts) for parts in sources]
    for operation in operations:
        state = _traced(operation, state, shapes)
    traced = [parts[0] for parts in state]
    if [part.shape for part in traced] != list(shapes):
        raise UntraceableError("spectrum does not know how this version of transformers converts it")
    return traced


def _traced(operation: Operation, state: list[list[Layout]], shapes: Sequence[tuple[int, ...]]) -> list[list[Layout]]:
    """One operation of a converter, on layouts: for each source pattern (later: each target) its tensors."""
    kind, axis = operation.kind, operation.axis or 0
    if kind == "MergeModulelist" and axis == 0:
        return [[layout.stack(parts)] for parts in state]
    if kind == "Concatenate":
        return [[layout.concatenate((part for parts in state for part in parts), axis)]]
    if kind == "Chunk":
        return _chunks(state[0][0], axis, len(shapes))
    if kind == "Split":
        return _splits(state[0][0], axis, [shape[axis] for shape in shapes])
    if kind == "ErnieFuseAndSplitTextVisionExperts":
        return _experts_by_modality(state, axis, len(shapes))
    one_to_one = _one_to_one(operation, shapes)
    return [[one_to_one(parts[0])] for parts in state]


def _one_to_one(operation: Operation, shapes: Sequence[tuple[int, ...]]) -> Callable[[Layout], Layout]:
    kind, axis = operation.kind, operation.axis or 0
    if kind == "Transpose":
        return lambda part: (
            part
            if operation.if_needed and part.shape == shapes[0]
            else layout.transpose(part, axis, operation.other_axis or 0)
        )
    if kind == "Interleave" and not operation.inverse:
        return lambda part: layout.concatenate(
            (layout.take(part, axis, slice(start, None, 2)) for start in (0, 1)), axis
        )
    if kind == "Conv3dToLinear":
        return _flattened
    # PermuteForRope puts the rows of a matrix in another order, which its singular values do not see.
    # Force16BytesAlignment (5.0) copies.
    if kind in ("PermuteForRope", "Force16BytesAlignment"):
        return lambda part: part
    raise UntraceableError(f"spectrum does not know the operation {kind} of transformers")


def _flattened(part: Layout) -> Layout:
    return part if len(part.shape) == 2 else layout.viewed(part, (part.shape[0], math.prod(part.shape[1:])))


def _chunks(part: Layout, axis: int, count: int) -> list[list[Layout]]:
    size = -(-part.shape[axis] // count)  # as torch.chunk: rounded up, the last one smaller
    return [[layout.take(part, axis, slice(size * number, size * (number + 1)))] for number in range(count)]


def _splits(part: Layout, axis: int, sizes: Sequence[int]) -> list[list[Layout]]:
    stops = [sum(sizes[: number + 1]) for number in range(len(sizes))]
    return [[layout.take(part, axis, slice(stop - size, stop))] for stop, size in zip(stops, sizes, strict=True)]


def _experts_by_modality(state: list[list[Layout]], axis: int, count: int) -> list[list[Layout]]:
    """The experts of each projection in `count` equal shares, a share of all projections for each target."""
    targets: list[list[Layout]] = []
    for number in range(count):
        shares = []
        for parts in state:
            size = -(-len(parts) // count)
            shares.append(layout.stack(parts[size * number : size * (number + 1)]))
        targets.append([layout.concatenate(shares, axis)])
    return targets
