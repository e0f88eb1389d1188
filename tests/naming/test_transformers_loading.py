"""What `spectrum.naming.transformers_loading` relies on in transformers' private loading API."""

import inspect

import pytest
from transformers import conversion_mapping, core_model_loading

# Function -> the names of its first parameters, of which those that are None are passed by position.
SIGNATURES = {
    "conversion_mapping.get_model_conversion_mapping": ("model",),
    "conversion_mapping.get_checkpoint_conversion_mapping": ("model_type",),
    "core_model_loading.rename_source_key": ("source_key", "weight_renamings", "weight_converters", None, None),
    "core_model_loading.dot_natural_key": (None,),
    "core_model_loading.WeightConverter.add_tensor": ("self", None, None, None, None),
    "core_model_loading.WeightConverter.convert": ("self", "layer_name", "model", "config"),
}
# Operation -> attributes that say what it does.
OPERATIONS = {
    "MergeModulelist": ("dim",),
    "Concatenate": ("dim",),
    "Chunk": ("dim",),
    "Transpose": ("dim0", "dim1"),
    "PermuteForRope": (),
}
MODULES = {"conversion_mapping": conversion_mapping, "core_model_loading": core_model_loading}


@pytest.mark.parametrize("name", SIGNATURES)
def test_signatures(name):
    """The functions that are called still take what they are given."""
    module, *path = name.split(".")
    found = MODULES[module]
    for attribute in path:
        found = getattr(found, attribute, None)
        assert found is not None, f"transformers has no {name} any more: adapt spectrum/naming/transformers_loading.py"
    wanted = SIGNATURES[name]
    parameters = list(inspect.signature(found).parameters)
    named = [each if expected is None else expected for each, expected in zip(parameters, wanted, strict=False)]
    assert parameters[: len(wanted)] == named, (
        f"{name} takes {parameters}: adapt spectrum/naming/transformers_loading.py"
    )
    assert len(parameters) >= len(wanted), f"{name} takes {parameters}: adapt spectrum/naming/transformers_loading.py"


def test_converters_hold_patterns_and_operations():
    """A converter tells its source patterns and its operations, in order."""
    operations = [core_model_loading.MergeModulelist(dim=0), core_model_loading.Concatenate(dim=1)]
    converter = core_model_loading.WeightConverter(["a.*.w1", "a.*.w3"], "a.gate_up", operations=operations)
    assert [type(operation).__name__ for operation in converter.operations] == ["MergeModulelist", "Concatenate"]
    assert len(converter.source_patterns) == 2
    assert issubclass(core_model_loading.WeightRenaming, object)


@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_say_what_they_do(name):
    """The attributes read from an operation are arguments of its constructor."""
    operation = getattr(core_model_loading, name, None)
    assert operation is not None, f"transformers has no operation {name} any more: adapt spectrum/naming/tracing.py"
    parameters = inspect.signature(operation).parameters
    for attribute in OPERATIONS[name]:
        assert attribute in parameters, f"{name} has no '{attribute}' any more: adapt transformers_loading._operation"
