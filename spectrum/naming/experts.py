"""The matrices of a mixture of experts: every expert's gate, up and down projection, however they are stored.

A parameter holds all experts of a layer, and often the gate and up projection of each in one array, one after the other
or in alternate rows. The labels do not depend on how they are stored: '3.gate_proj'.
"""

import random
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from spectrum.naming import layout
from spectrum.naming.kinds import flattened_experts
from spectrum.naming.layout import Layout
from spectrum.naming.parameters import Matrix, Parameter

# What the model classes call the three projections; the names of Mixtral and dbrx are those of the first papers.
_PROJECTION = {"w1": "gate_proj", "w3": "up_proj", "v1": "up_proj", "w2": "down_proj"}
# Parameters that hold gate and up projection together if their shape is twice that of the down projection, which the
# model class calls by the second name.
_FUSED = {"gate_up_proj": "down_proj", "input_linear": "output_linear", "fc1": "fc2"}


@dataclass(frozen=True)
class Cut:
    """A projection inside each expert's array."""

    label: str
    axis: int  # of that array
    taken: slice  # along the axis


def expert_matrices(where: Layout, count: int, cuts: Sequence[Cut]) -> tuple[Matrix, ...]:
    """Matrices of a stack of experts, in order of the experts.

    Args:
        where: (experts, rows, cols), or flattened to (experts * rows, cols).
        count: number of experts.
        cuts: the projections in each expert's array.

    Raises:
        UntraceableError: plain indexing cannot separate them.
    """
    if len(where.shape) == 2:
        where = layout.viewed(where, (count, where.shape[0] // count, where.shape[1]))
    return tuple(
        layout.matrix(layout.take(layout.select(where, expert), cut.axis, cut.taken), f"{expert}.{cut.label}")
        for expert in range(count)
        for cut in cuts
    )


def cuts_of(name: str, shapes: Mapping[str, tuple[int, ...]], *, interleaved: bool) -> tuple[Cut, ...]:
    """The projections inside each expert of a parameter.

    Args:
        name: of the parameter.
        shapes: of every parameter of the model.
        interleaved: whether the rows of gate and up projection alternate if they are stored in one array.
    """
    projection = _projection(name)
    axis = _fused_axis(shapes, name, _sibling(name, _FUSED[projection])) if projection in _FUSED else None
    if axis is None:
        fused = next((up for up, down in _FUSED.items() if down == projection), projection)
        is_down = _fused_axis(shapes, _sibling(name, fused), name) is not None
        return (Cut("down_proj" if is_down else _PROJECTION.get(projection, projection), 0, slice(None)),)
    half = shapes[name][axis + 1] // 2
    parts = (slice(0, None, 2), slice(1, None, 2)) if interleaved else (slice(None, half), slice(half, None))
    return (Cut("gate_proj", axis, parts[0]), Cut("up_proj", axis, parts[1]))


def experts_in(owner: Any, shape: tuple[int, ...]) -> int:
    """Number of experts in a parameter of kind 'experts'."""
    return shape[0] if len(shape) == 3 else flattened_experts(owner, shape) or 1


def interleaves(owner: Any) -> bool:
    """Whether a module stores the rows of gate and up projection alternately.

    In early versions of transformers the class does not say so; only GptOssExperts has ever done it.
    """
    return not getattr(owner, "is_concatenated", not type(owner).__name__.startswith("GptOss"))


def group_experts(parameters: Iterable[Parameter], containers: Iterable[str]) -> list[Parameter]:
    """Merge parameters that differ only in the number of the expert, and leave the others.

    `containers` are the paths of the lists that hold one module per expert.
    """
    paths = sorted(containers, key=len, reverse=True)
    groups: dict[str, list[tuple[int, Parameter]]] = defaultdict(list)
    for parameter in parameters:
        name, number = _starred(parameter.name, paths)
        groups[name].append((number, parameter))
    return [parameter for name, group in groups.items() for parameter in _grouped(name, group)]


def sample_experts(parameter: Parameter, count: int) -> Parameter:
    """The parameter with the matrices of only `count` of its experts, or unchanged if it holds no more.

    The seed is the module path of the layer's experts: every scan, and the gate, up and down projection of one layer,
    take the same experts, and another layer takes others.
    """
    numbers = list(dict.fromkeys(_expert(matrix) for matrix in parameter.matrices))
    if parameter.kind != "experts" or len(numbers) <= count:
        return parameter
    # The projection comes last (`experts.down_proj`) or after the `*` (`experts.*.w1`).
    seed = parameter.name.removesuffix(".weight").rpartition(".")[0]
    chosen = frozenset(random.Random(seed).sample(numbers, count))  # noqa: S311 - not a secret
    return replace(parameter, matrices=tuple(matrix for matrix in parameter.matrices if _expert(matrix) in chosen))


def _grouped(name: str, group: list[tuple[int, Parameter]]) -> list[Parameter]:
    """One parameter for a group; each by itself if the experts differ in shape, kind or dtype."""
    group = sorted(group, key=lambda entry: entry[0])
    members = [parameter for _, parameter in group]
    first = members[0]
    if "*" not in name or len({(member.shape, member.kind, member.dtype) for member in members}) > 1:
        return members
    kind = "experts" if first.kind == "matrix" else first.kind
    label = _PROJECTION.get(_projection(name), _projection(name))
    matrices = tuple(replace(each, label=f"{number}.{label}") for number, member in group for each in member.matrices)
    tensors = tuple(tensor for member in members for tensor in member.tensors)
    return [Parameter(name, (len(members), *first.shape), first.dtype, kind, tensors, matrices)]


def _expert(matrix: Matrix) -> str:
    return matrix.label.partition(".")[0]


def _starred(name: str, containers: Iterable[str]) -> tuple[str, int]:
    for path in containers:
        if name.startswith(f"{path}."):
            expert, _, rest = name[len(path) + 1 :].partition(".")
            number = re.search(r"[0-9]+$", expert)
            if number:  # `experts.3`, and `experts.expert_3` of Switch and NLLB
                return f"{path}.{expert[: number.start()]}*.{rest}", int(number.group())
    return name, 0


def _fused_axis(shapes: Mapping[str, tuple[int, ...]], fused: str, down: str) -> int | None:
    """The axis of each expert's array along which gate and up projection are joined; None if it holds one projection.

    The shapes decide: (experts, 2 * inner, hidden) beside (experts, hidden, inner), or both transposed.
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
