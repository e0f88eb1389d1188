"""What transformers makes of the names and shapes of a checkpoint, replayed without reading a weight.

transformers 5 loads through a table of renamings and converters (`conversion_mapping`, `core_model_loading`); both are
run here on names and meta tensors, in the order of `convert_and_load_state_dict_in_model`. Beside each converter's own
result stands a layout: which part of which tensor the numbers come from. transformers 4 only renames.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

from spectrum.checkpoint.tensors import Tensor
from spectrum.errors import CheckpointError
from spectrum.naming import layout
from spectrum.naming.layout import Layout, UntraceableError
from spectrum.naming.parameters import natural_key
from spectrum.naming.tracing import trace


@dataclass(frozen=True)
class Target:
    """What the checkpoint holds for one name of the model.

    Attributes:
        shape: after conversion.
        tensors: the checkpoint's tensors it is made of, in order.
        layout: where its numbers stand; None where that cannot be told.
        reason: why it cannot be told.
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


@dataclass
class _Group:
    """The tensors that one converter makes into one parameter or several."""

    converter: Any
    by_pattern: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    @property
    def tensors(self) -> tuple[str, ...]:
        return tuple(name for names in self.by_pattern.values() for name in names)


def has_conversion_table() -> bool:
    """Whether the installed transformers converts checkpoints on loading (5 and later)."""
    try:
        import transformers.conversion_mapping  # noqa: F401, PLC0415 - costs a second, and 4.x lacks it
    except ModuleNotFoundError:
        return False
    return True


def convert(tensors: Mapping[str, Tensor], model: Any) -> Conversion:
    """Replay the loading of a checkpoint into a model on the meta device.

    Args:
        tensors: of the checkpoint, by name.
        model: a transformers model.

    Raises:
        CheckpointError: tensors that cannot be converted, for example because one of them is missing.
    """
    known = dict(model.state_dict())
    if not has_conversion_table():
        return _only_renamed(tensors, _renamer(model, known), known)
    from transformers.conversion_mapping import get_model_conversion_mapping  # noqa: PLC0415

    return _replay(tensors, get_model_conversion_mapping(model), model, known)


def convert_by_table(tensors: Mapping[str, Tensor], keys: Sequence[str]) -> Conversion:
    """Replay the loading with the table alone, where the model cannot be built.

    Args:
        tensors: of the checkpoint, by name.
        keys: under which to look into the table; the first that it knows counts. Its conversions of inner models
            are not known without building the model.

    Raises:
        CheckpointError: tensors that cannot be converted.
    """
    from transformers.conversion_mapping import get_checkpoint_conversion_mapping  # noqa: PLC0415

    found = (get_checkpoint_conversion_mapping(key) for key in keys)
    mapping: list[Any] = next((entries for entries in found if entries), [])
    return _replay(tensors, [*mapping, *(get_checkpoint_conversion_mapping("legacy") or [])], None, None)


def _replay(
    tensors: Mapping[str, Tensor], mapping: Sequence[Any], model: Any, known: Mapping[str, Any] | None
) -> Conversion:
    """Without a model (`known` is None) every renamed tensor is taken to fill a parameter."""
    from transformers import core_model_loading  # noqa: PLC0415

    renamings = [entry for entry in mapping if isinstance(entry, core_model_loading.WeightRenaming)]
    converters = [entry for entry in mapping if isinstance(entry, core_model_loading.WeightConverter)]
    by_pattern = {pattern: converter for converter in converters for pattern in converter.source_patterns}
    prefix = None if model is None else model.base_model_prefix
    groups: dict[str, _Group] = {}
    result = Conversion({}, {})
    # In the order of transformers: experts are stacked in it, and some renamings wait for the first name of a group.
    for name in sorted(tensors, key=getattr(core_model_loading, "dot_natural_key", natural_key)):
        # By position: the fourth argument was called `prefix` until 5.5.
        renamed, pattern = core_model_loading.rename_source_key(name, renamings, converters, prefix, known)
        if known is not None and renamed not in known and name in known:
            renamed, pattern = core_model_loading.rename_source_key(name, [], [], prefix, known)
        if known is not None and renamed not in known:
            result.unexpected[name] = renamed
        elif pattern is None and renamed in result.targets:
            result.unexpected[name] = renamed  # the first tensor of a name fills it
        elif pattern is None:
            result.targets[renamed] = _unchanged(tensors[name])
        else:
            group = groups.setdefault(renamed, _Group(deepcopy(by_pattern[pattern])))
            group.by_pattern[pattern].append(name)
    for name, group in groups.items():
        result.targets.update(_converted(name, group, tensors, model))
    return result


def _unchanged(tensor: Tensor) -> Target:
    return Target(tensor.shape, (tensor.name,), layout.whole(tensor.name, tensor.shape))


def _converted(name: str, group: _Group, tensors: Mapping[str, Tensor], model: Any) -> dict[str, Target]:
    """What a converter makes of its tensors, by runtime name.

    Raises:
        CheckpointError: the converter of transformers rejects the tensors.
    """
    _check_experts(name, group)
    if model is None and _needs_model(group.converter):
        return {name: _unchanged(tensors[group.tensors[0]])}
    shapes = _converted_shapes(name, group, tensors, model)
    try:
        layouts = trace(group.converter.operations, _sources(group, tensors), list(shapes.values()))
    except UntraceableError as error:
        return {key: Target(shape, group.tensors, None, str(error)) for key, shape in shapes.items()}
    return {
        key: Target(shape, layout.tensors_of(part), part)
        for (key, shape), part in zip(shapes.items(), layouts, strict=True)
    }


def _sources(group: _Group, tensors: Mapping[str, Tensor]) -> list[list[Layout]]:
    patterns = [pattern for pattern in group.converter.source_patterns if pattern in group.by_pattern]
    return [[layout.whole(name, tensors[name].shape) for name in group.by_pattern[pattern]] for pattern in patterns]


def _needs_model(converter: Any) -> bool:
    """Whether an operation asks the model for a shape; all that do have one tensor each."""
    return any(type(o).__name__ == "Split" or getattr(o, "check_dims", False) for o in converter.operations)


def _check_experts(name: str, group: _Group) -> None:
    """Compare the numbers of the tensors that are stacked.

    Raises:
        CheckpointError: a number that one pattern has and another lacks, or a gap in the numbers.
    """
    if type(group.converter.operations[0]).__name__ != "MergeModulelist":
        return
    numbers = {
        pattern: {_number_of(tensor, names): tensor for tensor in names} for pattern, names in group.by_pattern.items()
    }
    every = {number for found in numbers.values() for number in found}
    expected = set(range(max(every) + 1))
    for pattern in group.converter.source_patterns:
        missing = sorted(expected - set(numbers.get(pattern, {})))
        if missing:
            raise CheckpointError(
                f"'{name}' is put together from {len(expected)} experts, and the checkpoint lacks "
                f"'{_pattern_text(pattern)}' of expert {', '.join(map(str, missing[:8]))}. Download the checkpoint "
                "again."
            )


def _number_of(tensor: str, names: Sequence[str]) -> int:
    """The number in which a tensor differs from the others of its pattern."""
    split = [re.split(r"([0-9]+)", other) for other in (names[0], names[-1])]
    differing = [at for at, (one, other) in enumerate(zip(*split, strict=False)) if one != other]
    own = re.split(r"([0-9]+)", tensor)
    return int(own[differing[0]]) if differing else 0


def _pattern_text(pattern: str) -> str:
    return pattern.replace("\\", "").strip("^$.")


def _converted_shapes(
    name: str, group: _Group, tensors: Mapping[str, Tensor], model: Any
) -> dict[str, tuple[int, ...]]:
    import torch  # noqa: PLC0415

    converter = group.converter
    for pattern, names in group.by_pattern.items():
        for tensor in names:
            converter.add_tensor(name, tensor, pattern, torch.empty(tensors[tensor].shape, device="meta"))
    try:
        result = converter.convert(name, model=model, config=getattr(model, "config", None))
    except (RuntimeError, ValueError, TypeError, AttributeError, IndexError, KeyError) as error:
        raise CheckpointError(
            f"transformers cannot make '{name}' of {_some(group.tensors)}: {error}. A tensor is missing or has an "
            "unexpected shape. Download the checkpoint again, or take its names as they are with --names checkpoint."
        ) from error
    if isinstance(result, tuple):  # transformers 5.0 returned its errors beside the result
        result = result[0]
    values = {key: value[0] if isinstance(value, list) else value for key, value in result.items()}
    return {key: tuple(value.shape) for key, value in values.items()}


def _only_renamed(tensors: Mapping[str, Tensor], rename: Callable[[str], str], known: Collection[str]) -> Conversion:
    result = Conversion({}, {})
    for name, tensor in tensors.items():
        renamed = rename(name)
        if renamed in known and renamed not in result.targets:
            result.targets[renamed] = _unchanged(tensor)
        else:
            result.unexpected[name] = renamed
    return result


def _renamer(model: Any, known: Collection[str]) -> Callable[[str], str]:
    """How transformers 4.46 to 4.57 rename: legacy names, then the class's own table, then the base model's prefix."""
    table = getattr(model, "_checkpoint_conversion_mapping", None) or {}
    prefix = f"{model.base_model_prefix}."

    def rename(name: str) -> str:
        renamed = re.sub(r"LayerNorm\.gamma$", "LayerNorm.weight", name)
        renamed = re.sub(r"LayerNorm\.beta$", "LayerNorm.bias", renamed)
        for pattern, replacement in table.items():
            changed, count = re.subn(pattern, replacement, renamed)
            if count:  # the first that matches is the only one
                renamed = changed
                break
        normed = re.sub(r"weight_g$", "parametrizations.weight.original0", renamed)
        normed = re.sub(r"weight_v$", "parametrizations.weight.original1", normed)
        candidates = [form for base in (renamed, normed) for form in (base, prefix + base, base.removeprefix(prefix))]
        return next((candidate for candidate in (*candidates, name) if candidate in known), renamed)

    return rename


def _some(names: Sequence[str], count: int = 3) -> str:
    shown = ", ".join(f"'{name}'" for name in names[:count])
    return shown if len(names) <= count else f"{shown} and {len(names) - count} more"
