"""Replay transformers' conversion of a checkpoint on names and shapes, without reading a weight.

Names and meta tensors go through transformers' own table, in the order of loading. Each result comes with a layout,
which says where its numbers are stored.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from spectrum.checkpoint.tensors import Tensor
from spectrum.errors import CheckpointError
from spectrum.naming import layout
from spectrum.naming.layout import Layout, UntraceableError
from spectrum.naming.tracing import trace
from spectrum.naming.transformers_loading import Group, Renamer, in_loading_order
from spectrum.untrusted import SHORT, shown

_LONG_NUMBER = re.compile("[0-9]{19}")


@dataclass(frozen=True)
class Target:
    """What the checkpoint holds for one name of the model."""

    shape: tuple[int, ...]  # after conversion
    tensors: tuple[str, ...]  # of the checkpoint, in order
    stored: Layout | str  # where its numbers are, or the reason why plain indexing cannot express it

    @property
    def layout(self) -> Layout:
        """Where its numbers are.

        Raises:
            UntraceableError: plain indexing cannot express it.
        """
        if isinstance(self.stored, str):
            raise UntraceableError(self.stored)
        return self.stored


def convert(tensors: Mapping[str, Tensor], renamer: Renamer) -> tuple[dict[str, Target], dict[str, str]]:
    """Replay the loading of a checkpoint.

    If the model cannot be built, every renamed tensor is assumed to fill a parameter.

    Returns:
        ({name of the model: its target}, {tensor that fills no name of the model: the name that it would have}).

    Raises:
        CheckpointError: tensors cannot be converted, for example because one of them is missing.
    """
    for name in tensors:
        if _LONG_NUMBER.search(name):  # transformers reads it, and Python refuses to read thousands of digits
            raise CheckpointError(
                f"Tensor {shown(name)} has a number of more than 18 digits in its name. Scan a copy without "
                "config.json, under the names of the checkpoint."
            )
    groups: dict[str, Group] = {}
    targets: dict[str, Target] = {}
    unexpected: dict[str, str] = {}
    for name in in_loading_order(list(tensors)):
        renamed, pattern = renamer.rename(name)
        if renamer.known is not None and renamed not in renamer.known:
            unexpected[name] = renamed
        elif pattern is not None:
            if renamed not in groups:
                groups[renamed] = renamer.group(pattern)
            groups[renamed].by_pattern[pattern].append(name)
        elif renamed in targets:
            unexpected[name] = renamed  # the first tensor of a name fills it
        else:
            targets[renamed] = _unchanged(tensors[name])
    for name, group in groups.items():
        targets.update(_converted(name, group, tensors))
    return targets, unexpected


def _unchanged(tensor: Tensor) -> Target:
    return Target(tensor.shape, (tensor.name,), layout.whole(tensor.name, tensor.shape))


def _converted(name: str, group: Group, tensors: Mapping[str, Tensor]) -> dict[str, Target]:
    """What a converter makes of its tensors, by runtime name."""
    _check_experts(name, group)
    if group.lacks_model:
        return {name: _unchanged(tensors[group.tensors[0]])}
    shapes = _converted_shapes(name, group, tensors)
    try:
        layouts = trace(group.operations, _sources(group, tensors), list(shapes.values()))
    except UntraceableError as error:
        return {key: Target(shape, group.tensors, str(error)) for key, shape in shapes.items()}
    return {
        key: Target(shape, layout.tensors_of(part), part)
        for (key, shape), part in zip(shapes.items(), layouts, strict=True)
    }


def _sources(group: Group, tensors: Mapping[str, Tensor]) -> list[list[Layout]]:
    patterns = [pattern for pattern in group.patterns if pattern in group.by_pattern]
    return [[layout.whole(name, tensors[name].shape) for name in group.by_pattern[pattern]] for pattern in patterns]


def _check_experts(name: str, group: Group) -> None:
    """Raise CheckpointError if a stack of experts has a gap, or a pattern lacks an expert that another one has."""
    if group.operations[0].kind != "MergeModulelist":
        return
    numbers = {pattern: {_number_of(tensor, names) for tensor in names} for pattern, names in group.by_pattern.items()}
    count = 1 + max(number for found in numbers.values() for number in found)
    for pattern in group.patterns:
        stored = numbers.get(pattern, ())
        missing = list(islice((number for number in range(count) if number not in stored), SHORT))
        if missing:
            text = pattern.replace("\\", "").strip("^$.")
            raise CheckpointError(
                f"'{name}' is put together from {count} experts, and the checkpoint lacks '{text}' of expert "
                f"{', '.join(map(str, missing))}. Download the checkpoint again."
            )


def _number_of(tensor: str, names: Sequence[str]) -> int:
    """The number in which a tensor differs from the others of its pattern."""
    own, first, last = (re.split(r"([0-9]+)", each) for each in (tensor, names[0], names[-1]))
    return next((int(number) for number, one, other in zip(own, first, last, strict=False) if one != other), 0)


def _converted_shapes(name: str, group: Group, tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    try:
        return group.shapes(name, {tensor: tensors[tensor].shape for tensor in group.tensors})
    except (RuntimeError, ValueError, TypeError, AttributeError, IndexError, KeyError) as error:
        raise CheckpointError(
            f"transformers cannot make '{name}' of {some(group.tensors, 3)}: {error}. A tensor is missing or has an "
            "unexpected shape. Download the checkpoint again, or scan a copy without config.json, under its own "
            "names."
        ) from error


def some(names: Sequence[str], count: int = 5) -> str:
    """The first names of a list, quoted, and how many more there are."""
    first = ", ".join(f"'{name}'" for name in names[:count])
    return first if len(names) <= count else f"{first} and {len(names) - count} more"
