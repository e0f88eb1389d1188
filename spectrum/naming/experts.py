"""The matrices of a mixture of experts: every expert's gate, up and down projection, however they are stored.

A parameter holds the experts of a layer one beside the other, and often gate and up projection of each in one array,
one after the other or row by row in turn. Labels are the same for every way of storing them: '3.gate_proj'.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from spectrum.naming import layout
from spectrum.naming.kinds import flattened_experts
from spectrum.naming.layout import Layout
from spectrum.naming.parameters import Matrix, Parameter

# What the model classes call the three projections; the names of Mixtral and dbrx are those of the first papers.
_PROJECTION = {"w1": "gate_proj", "w3": "up_proj", "v1": "up_proj", "w2": "down_proj"}
# Parameters that hold gate and up projection together where their shape is twice that of the down projection, and
# what the model class calls that one.
_FUSED = {"gate_up_proj": "down_proj", "input_linear": "output_linear", "fc1": "fc2"}
_DOWN = set(_FUSED.values())


@dataclass(frozen=True)
class Cut:
    """A projection inside each expert's array: its label, the axis of that array, what to take (None takes all)."""

    label: str
    axis: int = 0
    taken: slice | None = None


def expert_matrices(where: Layout, count: int, cuts: Iterable[Cut]) -> tuple[Matrix, ...]:
    """Matrices of a stack of experts, in order of the experts.

    Args:
        where: (experts, rows, cols), or flattened to (experts * rows, cols).
        count: number of experts.
        cuts: the projections in each expert's array.

    Raises:
        UntraceableError: numbers that plain indexing cannot tell apart.
    """
    if len(where.shape) == 2:
        where = layout.viewed(where, (count, where.shape[0] // count, where.shape[1]))
    cuts = tuple(cuts)
    matrices = []
    for expert in range(count):
        array = layout.select(where, expert)
        for cut in cuts:
            part = array if cut.taken is None else layout.take(array, cut.axis, cut.taken)
            matrices.append(layout.matrix(part, f"{expert}.{cut.label}"))
    return tuple(matrices)


def cuts_of(name: str, shapes: Mapping[str, tuple[int, ...]], *, interleaved: bool) -> tuple[Cut, ...]:
    """The projections inside each expert of a parameter.

    Args:
        name: of the parameter.
        shapes: of every parameter of the model.
        interleaved: whether the rows of gate and up projection take turns where they lie in one array.
    """
    projection = _projection(name)
    fused = {down: up for up, down in _FUSED.items()}.get(projection)
    if fused is not None and _fused_axis(shapes, _sibling(name, fused), name) is not None:
        return (Cut("down_proj"),)
    if projection not in _FUSED:
        return (Cut(_PROJECTION.get(projection, projection)),)
    axis = _fused_axis(shapes, name, _sibling(name, _FUSED[projection]))
    if axis is None:
        return (Cut(projection),)
    half = shapes[name][axis + 1] // 2
    if interleaved:
        return (Cut("gate_proj", axis, slice(0, None, 2)), Cut("up_proj", axis, slice(1, None, 2)))
    return (Cut("gate_proj", axis, slice(None, half)), Cut("up_proj", axis, slice(half, None)))


def experts_in(owner: Any, shape: tuple[int, ...]) -> int:
    """Number of experts in a parameter of kind 'experts'."""
    return shape[0] if len(shape) == 3 else flattened_experts(owner, shape) or 1


def interleaves(owner: Any) -> bool:
    """Whether a module holds the rows of gate and up projection in turn.

    Early versions of transformers do not say so on the class; GptOssExperts has always been the one that does.
    """
    return not getattr(owner, "is_concatenated", not type(owner).__name__.startswith("GptOss"))


def group_experts(parameters: Iterable[Parameter], containers: Iterable[str]) -> list[Parameter]:
    """Make one parameter of those that differ only in the number of the expert, and leave the others.

    Args:
        parameters: of the model.
        containers: paths of the lists of modules that hold one module per expert.
    """
    paths = sorted(containers, key=len, reverse=True)
    groups: dict[str, list[tuple[int, Parameter]]] = defaultdict(list)
    for parameter in parameters:
        name, number = _starred(parameter.name, paths)
        groups[name].append((number, parameter))
    return [parameter for name, group in groups.items() for parameter in _grouped(name, group)]


def _grouped(name: str, group: list[tuple[int, Parameter]]) -> list[Parameter]:
    """One parameter for a group; each by itself where the experts differ in shape, kind or dtype."""
    members = [parameter for _, parameter in sorted(group, key=lambda entry: entry[0])]
    first = members[0]
    if "*" not in name or len({(member.shape, member.kind, member.dtype) for member in members}) > 1:
        return members
    kind = "experts" if first.kind == "matrix" else first.kind
    projection = _PROJECTION.get(_projection(name), _projection(name))
    matrices = tuple(
        replace(matrix, label=f"{number}.{projection}")
        for number, member in sorted(group, key=lambda entry: entry[0])
        for matrix in member.matrices
    )
    tensors = tuple(tensor for member in members for tensor in member.tensors)
    return [Parameter(name, (len(members), *first.shape), first.dtype, kind, tensors, matrices)]


def _starred(name: str, containers: Iterable[str]) -> tuple[str, int]:
    for path in containers:
        if name.startswith(f"{path}."):
            expert, _, rest = name[len(path) + 1 :].partition(".")
            number = re.search(r"[0-9]+$", expert)
            if number:  # `experts.3`, and `experts.expert_3` of Switch and NLLB
                return f"{path}.{expert[: number.start()]}*.{rest}", int(number.group())
    return name, 0


def _fused_axis(shapes: Mapping[str, tuple[int, ...]], fused: str, down: str) -> int | None:
    """The axis of each expert's array along which gate and up projection lie; None where it holds one projection.

    Told from the shapes: (experts, 2 * inner, hidden) beside (experts, hidden, inner), or both transposed.
    """
    if fused not in shapes or down not in shapes or not len(shapes[fused]) == len(shapes[down]) == 3:
        return None
    (_, rows, cols), (_, down_rows, down_cols) = shapes[fused], shapes[down]
    if (rows, cols) == (2 * down_cols, down_rows):
        return 0
    return 1 if (cols, rows) == (2 * down_rows, down_cols) else None


def _projection(name: str) -> str:
    return name.removesuffix(".weight").removesuffix(".bias").rpartition(".")[2]


def _sibling(name: str, projection: str) -> str:
    suffix = ".weight" if name.endswith(".weight") else ""
    return f"{name.removesuffix('.weight').rpartition('.')[0]}.{projection}{suffix}"
