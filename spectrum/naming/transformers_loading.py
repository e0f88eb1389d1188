"""The one file that touches transformers' private loading API: its table of renamings and converters.

`tests/naming/test_transformers_loading.py` states what is relied on, and fails by name when a version changes it.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Operation:
    """One step of a converter."""

    kind: str  # name of its class, such as 'MergeModulelist'
    axis: int | None = None  # that it works along; None if it has none
    other_axis: int | None = None  # the second one of a transpose
    if_needed: bool = False  # whether it leaves a tensor that already has the shape of the model
    inverse: bool = False  # whether it undoes what its name says


@dataclass
class Group:
    """The tensors that one converter turns into one or several parameters."""

    converter: Any
    model: Any  # None if it cannot be built
    by_pattern: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))  # tensors in order of loading

    @property
    def patterns(self) -> tuple[str, ...]:
        """Of the converter, in its order."""
        return tuple(self.converter.source_patterns)

    @property
    def operations(self) -> tuple[Operation, ...]:
        """Of the converter, in order."""
        return tuple(_operation(operation) for operation in self.converter.operations)

    @property
    def tensors(self) -> tuple[str, ...]:
        """All of the tensors, by pattern."""
        return tuple(name for names in self.by_pattern.values() for name in names)

    @property
    def lacks_model(self) -> bool:
        """Whether an operation, which takes one tensor, asks for a shape of the model, and there is no model."""
        asks = any(operation.kind == "Split" or operation.if_needed for operation in self.operations)
        return asks and self.model is None

    def shapes(self, name: str, sizes: Mapping[str, Shape]) -> dict[str, Shape]:
        """{runtime name: shape} of what the converter makes of meta tensors of these sizes.

        Raises:
            RuntimeError, ValueError, TypeError, AttributeError, IndexError, KeyError: it rejects them.
        """
        import torch  # noqa: PLC0415 - costs a second

        for pattern, names in self.by_pattern.items():
            for tensor in names:
                self.converter.add_tensor(name, tensor, pattern, torch.empty(sizes[tensor], device="meta"))
        result = self.converter.convert(name, model=self.model, config=getattr(self.model, "config", None))
        if isinstance(result, tuple):  # transformers 5.0 returned its errors as well
            result = result[0]
        values = {key: value[0] if isinstance(value, list) else value for key, value in result.items()}
        return {key: tuple(value.shape) for key, value in values.items()}


@dataclass(frozen=True)
class Renamer:
    """transformers' table for one model."""

    renamings: list[Any]  # entries that only rename
    converters: list[Any]  # entries that change tensors as well
    model: Any = None  # None if it cannot be built
    known: Mapping[str, Any] | None = None  # its names

    def rename(self, name: str) -> tuple[str, str | None]:
        """Runtime name of a tensor, and the pattern of the converter that takes it, if one does."""
        from transformers.core_model_loading import rename_source_key  # noqa: PLC0415 - costs a second

        # By position: until 5.5 the fourth argument was called `prefix`.
        of_model = getattr(self.model, "base_model_prefix", None), self.known
        renamed: tuple[str, str | None] = rename_source_key(name, self.renamings, self.converters, *of_model)
        if self.known is not None and renamed[0] not in self.known and name in self.known:
            renamed = rename_source_key(name, [], [], *of_model)
        return renamed

    def group(self, pattern: str) -> Group:
        """An empty group for the converter with this pattern."""
        by_pattern = {each: converter for converter in self.converters for each in converter.source_patterns}
        return Group(deepcopy(by_pattern[pattern]), self.model)


def renamer_of(model: Any) -> Renamer:
    """The table for a model on the meta device."""
    from transformers.conversion_mapping import get_model_conversion_mapping  # noqa: PLC0415

    return _renamer(get_model_conversion_mapping(model), model, dict(model.state_dict()))


def renamer_by_key(keys: Sequence[str]) -> Renamer:
    """The table for a model that cannot be built, without the conversions of inner models.

    Of the keys (class name and model type) the first that the table knows counts.
    """
    from transformers.conversion_mapping import get_checkpoint_conversion_mapping  # noqa: PLC0415

    found = (get_checkpoint_conversion_mapping(key) for key in keys)
    mapping: list[Any] = next((entries for entries in found if entries), [])
    return _renamer([*mapping, *(get_checkpoint_conversion_mapping("legacy") or [])])


def _renamer(mapping: Sequence[Any], model: Any = None, known: Mapping[str, Any] | None = None) -> Renamer:
    from transformers.core_model_loading import WeightConverter, WeightRenaming  # noqa: PLC0415

    renamings = [entry for entry in mapping if isinstance(entry, WeightRenaming)]
    return Renamer(renamings, [entry for entry in mapping if isinstance(entry, WeightConverter)], model, known)


def in_loading_order(names: Sequence[str]) -> list[str]:
    """Names as transformers sorts them: experts are stacked in this order, and some renamings wait for a name."""
    from transformers.core_model_loading import dot_natural_key  # noqa: PLC0415

    return sorted(names, key=dot_natural_key)


def _operation(operation: Any) -> Operation:
    axis = next((getattr(operation, name) for name in ("dim", "concat_dim", "dim0") if hasattr(operation, name)), None)
    if_needed, inverse = (bool(getattr(operation, name, False)) for name in ("check_dims", "inverse"))
    return Operation(type(operation).__name__, axis, getattr(operation, "dim1", None), if_needed, inverse)
