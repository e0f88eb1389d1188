"""What transformers makes of the names and shapes of a checkpoint, replayed without reading a weight.

Names and meta tensors go through transformers' own table, in the order of loading. Each result comes with a layout:
which part of which tensor its numbers come from.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from spectrum.checkpoint.tensors import Tensor
from spectrum.errors import CheckpointError
from spectrum.naming import layout
from spectrum.naming.layout import Layout, UntraceableError
from spectrum.naming.tracing import trace
from spectrum.naming.transformers_loading import Group, Renamer, in_loading_order, renamer_by_key, renamer_of
from spectrum.untrusted import SHORT


@dataclass(frozen=True)
class Target:
    """What the checkpoint holds for one name of the model.

    Attributes:
        shape: after conversion.
        tensors: the checkpoint's tensors it is made of, in order.
        layout: where its numbers are; None if plain indexing cannot express it.
        reason: why it cannot.
    """

    shape: tuple[int, ...]
    tensors: tuple[str, ...]
    layout: Layout | None
    reason: str = ""


@dataclass(frozen=True)
class Conversion:
    """The names of the model that the checkpoint fills, and {tensor: the name it would have} of what fills none."""

    targets: dict[str, Target]
    unexpected: dict[str, str]


def convert(tensors: Mapping[str, Tensor], model: Any) -> Conversion:
    """Replay the loading of a checkpoint into a model on the meta device.

    Args:
        tensors: of the checkpoint, by name.
        model: a transformers model.

    Raises:
        CheckpointError: tensors that cannot be converted, for example because one of them is missing.
    """
    return _replay(tensors, renamer_of(model), model)


def convert_by_table(tensors: Mapping[str, Tensor], keys: Sequence[str]) -> Conversion:
    """Replay the loading with the table alone, if the model cannot be built.

    Args:
        tensors: of the checkpoint, by name.
        keys: class name and model type, under which to look into the table.

    Raises:
        CheckpointError: tensors that cannot be converted.
    """
    return _replay(tensors, renamer_by_key(keys), None)


def _replay(tensors: Mapping[str, Tensor], renamer: Renamer, model: Any) -> Conversion:
    """Without a model every renamed tensor is taken to fill a parameter."""
    groups: dict[str, Group] = {}
    result = Conversion({}, {})
    for name in in_loading_order(list(tensors)):
        renamed, pattern = renamer.rename(name)
        if renamer.known is not None and renamed not in renamer.known:
            result.unexpected[name] = renamed
        elif pattern is not None:
            if renamed not in groups:
                groups[renamed] = renamer.group(pattern)
            groups[renamed].by_pattern[pattern].append(name)
        elif renamed in result.targets:
            result.unexpected[name] = renamed  # the first tensor of a name fills it
        else:
            result.targets[renamed] = _unchanged(tensors[name])
    for name, group in groups.items():
        result.targets.update(_converted(name, group, tensors, model))
    return result


def _unchanged(tensor: Tensor) -> Target:
    return Target(tensor.shape, (tensor.name,), layout.whole(tensor.name, tensor.shape))


def _converted(name: str, group: Group, tensors: Mapping[str, Tensor], model: Any) -> dict[str, Target]:
    """What a converter makes of its tensors, by runtime name.

    Raises:
        CheckpointError: the converter of transformers rejects the tensors.
    """
    _check_experts(name, group)
    if model is None and group.needs_model:
        return {name: _unchanged(tensors[group.tensors[0]])}
    shapes = _converted_shapes(name, group, tensors, model)
    try:
        layouts = trace(group.operations, _sources(group, tensors), list(shapes.values()))
    except UntraceableError as error:
        return {key: Target(shape, group.tensors, None, str(error)) for key, shape in shapes.items()}
    return {
        key: Target(shape, layout.tensors_of(part), part)
        for (key, shape), part in zip(shapes.items(), layouts, strict=True)
    }


def _sources(group: Group, tensors: Mapping[str, Tensor]) -> list[list[Layout]]:
    patterns = [pattern for pattern in group.patterns if pattern in group.by_pattern]
    return [[layout.whole(name, tensors[name].shape) for name in group.by_pattern[pattern]] for pattern in patterns]


def _check_experts(name: str, group: Group) -> None:
    """Compare the numbers of the tensors that are stacked.

    Raises:
        CheckpointError: a number that one pattern has and another lacks, or a gap in the numbers.
    """
    if group.operations[0].kind != "MergeModulelist":
        return
    numbers = {
        pattern: {_number_of(tensor, names): tensor for tensor in names} for pattern, names in group.by_pattern.items()
    }
    count = 1 + max(number for found in numbers.values() for number in found)
    for pattern in group.patterns:
        stored = numbers.get(pattern, {})
        missing = list(islice((number for number in range(count) if number not in stored), SHORT))
        if missing:
            raise CheckpointError(
                f"'{name}' is put together from {count} experts, and the checkpoint lacks "
                f"'{_pattern_text(pattern)}' of expert {', '.join(map(str, missing))}. Download the checkpoint again."
            )


def _number_of(tensor: str, names: Sequence[str]) -> int:
    """The number in which a tensor differs from the others of its pattern."""
    split = [re.split(r"([0-9]+)", other) for other in (names[0], names[-1])]
    differing = [at for at, (one, other) in enumerate(zip(*split, strict=False)) if one != other]
    own = re.split(r"([0-9]+)", tensor)
    return int(own[differing[0]]) if differing else 0


def _pattern_text(pattern: str) -> str:
    return pattern.replace("\\", "").strip("^$.")


def _converted_shapes(name: str, group: Group, tensors: Mapping[str, Tensor], model: Any) -> dict[str, tuple[int, ...]]:
    try:
        return group.shapes(name, {tensor: tensors[tensor].shape for tensor in group.tensors}, model)
    except (RuntimeError, ValueError, TypeError, AttributeError, IndexError, KeyError) as error:
        raise CheckpointError(
            f"transformers cannot make '{name}' of {some(group.tensors, 3)}: {error}. A tensor is missing or has an "
            "unexpected shape. Download the checkpoint again, or scan a copy without config.json, under its own "
            "names."
        ) from error


def some(names: Sequence[str], count: int = 5) -> str:
    """The first names of a list, quoted, and how many more there are."""
    shown = ", ".join(f"'{name}'" for name in names[:count])
    return shown if len(names) <= count else f"{shown} and {len(names) - count} more"
