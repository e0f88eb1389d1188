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
    """One step of a converter.

    Attributes:
        kind: name of its class, such as 'MergeModulelist'.
        axis: that it works along; None if it has none.
        other_axis: the second one of a transpose.
        if_needed: whether it does nothing to a tensor that already has the shape of the model.
        inverse: whether it undoes what its name says.
    """

    kind: str
    axis: int | None = None
    other_axis: int | None = None
    if_needed: bool = False
    inverse: bool = False


@dataclass
class Group:
    """The tensors that one converter makes into one parameter or several.

    Attributes:
        patterns: of the converter, in its order.
        operations: of the converter.
        by_pattern: {pattern: names of the tensors that match it, in order of loading}.
    """

    patterns: tuple[str, ...]
    operations: tuple[Operation, ...]
    converter: Any
    by_pattern: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    @property
    def tensors(self) -> tuple[str, ...]:
        """All of them."""
        return tuple(name for names in self.by_pattern.values() for name in names)

    @property
    def needs_model(self) -> bool:
        """Whether an operation asks the model for a shape; each of these takes one tensor."""
        return any(operation.kind == "Split" or operation.if_needed for operation in self.operations)

    def shapes(self, name: str, sizes: Mapping[str, Shape], model: Any) -> dict[str, Shape]:
        """{runtime name: shape} of what the converter makes of meta tensors of these sizes.

        Raises:
            RuntimeError, ValueError, TypeError, AttributeError, IndexError, KeyError: it rejects them.
        """
        import torch  # noqa: PLC0415 - costs a second

        for pattern, names in self.by_pattern.items():
            for tensor in names:
                self.converter.add_tensor(name, tensor, pattern, torch.empty(sizes[tensor], device="meta"))
        result = self.converter.convert(name, model=model, config=getattr(model, "config", None))
        if isinstance(result, tuple):  # transformers 5.0 returned its errors as well
            result = result[0]
        values = {key: value[0] if isinstance(value, list) else value for key, value in result.items()}
        return {key: tuple(value.shape) for key, value in values.items()}


@dataclass(frozen=True)
class Renamer:
    """transformers' table for one model.

    Attributes:
        renamings: entries that only rename.
        converters: entries that change tensors as well.
        prefix: of the base model's names, or None if there is no model.
        known: the names of the model, or None.
    """

    renamings: list[Any]
    converters: list[Any]
    prefix: str | None
    known: Mapping[str, Any] | None

    def rename(self, name: str) -> tuple[str, str | None]:
        """Runtime name of a tensor, and the pattern of the converter that takes it, if one does."""
        from transformers.core_model_loading import rename_source_key  # noqa: PLC0415 - costs a second

        # By position: until 5.5 the fourth argument was called `prefix`.
        renamed, pattern = rename_source_key(name, self.renamings, self.converters, self.prefix, self.known)
        if self.known is not None and renamed not in self.known and name in self.known:
            renamed, pattern = rename_source_key(name, [], [], self.prefix, self.known)
        return renamed, pattern

    def group(self, pattern: str) -> Group:
        """An empty group for the converter with this pattern."""
        by_pattern = {each: converter for converter in self.converters for each in converter.source_patterns}
        converter = deepcopy(by_pattern[pattern])
        operations = tuple(_operation(operation) for operation in converter.operations)
        return Group(tuple(converter.source_patterns), operations, converter)


def renamer_of(model: Any) -> Renamer:
    """The table for a model on the meta device."""
    from transformers.conversion_mapping import get_model_conversion_mapping  # noqa: PLC0415

    return _renamer(get_model_conversion_mapping(model), model.base_model_prefix, dict(model.state_dict()))


def renamer_by_key(keys: Sequence[str]) -> Renamer:
    """The table for a model that cannot be built, without the conversions of inner models.

    Args:
        keys: class name and model type; the first that the table knows counts.
    """
    from transformers.conversion_mapping import get_checkpoint_conversion_mapping  # noqa: PLC0415

    found = (get_checkpoint_conversion_mapping(key) for key in keys)
    mapping: list[Any] = next((entries for entries in found if entries), [])
    return _renamer([*mapping, *(get_checkpoint_conversion_mapping("legacy") or [])], None, None)


def _renamer(mapping: Sequence[Any], prefix: str | None, known: Mapping[str, Any] | None) -> Renamer:
    from transformers.core_model_loading import WeightConverter, WeightRenaming  # noqa: PLC0415

    renamings = [entry for entry in mapping if isinstance(entry, WeightRenaming)]
    return Renamer(renamings, [entry for entry in mapping if isinstance(entry, WeightConverter)], prefix, known)


def in_loading_order(names: Sequence[str]) -> list[str]:
    """Names as transformers sorts them: experts are stacked in this order, and some renamings wait for a name."""
    from transformers.core_model_loading import dot_natural_key  # noqa: PLC0415

    return sorted(names, key=dot_natural_key)


def _operation(operation: Any) -> Operation:
    kind = type(operation).__name__
    axis = next((getattr(operation, name) for name in ("dim", "concat_dim", "dim0") if hasattr(operation, name)), None)
    return Operation(
        kind,
        axis,
        getattr(operation, "dim1", None),
        if_needed=bool(getattr(operation, "check_dims", False)),
        inverse=bool(getattr(operation, "inverse", False)),
    )
