"""Which class each of transformers' auto classes loads a checkpoint with."""

from collections.abc import Mapping


def auto_classes(config: Mapping[str, object]) -> dict[str, str]:
    """{auto class: the class it loads}, for the auto classes that know the model type of a config.json.

    Of several classes of one auto class, transformers takes the first one that `architectures` names, else the first.
    """
    from transformers.models.auto import modeling_auto  # noqa: PLC0415 - costs a second

    model_type, architectures = config.get("model_type"), config.get("architectures")
    found = {}
    for auto, table in _tables(modeling_auto).items():
        named = table.get(model_type)
        classes = [named] if isinstance(named, str) else list(named or ())
        preferred = [name for name in architectures if name in classes] if isinstance(architectures, list) else []
        if classes:
            found[auto] = (preferred or classes)[0]
    return found


def _tables(modeling_auto: object) -> dict[str, Mapping[object, str | tuple[str, ...]]]:
    """{auto class: {model type: classes}}; transformers names each table after the mapping that an auto class has."""
    members = vars(modeling_auto)
    tables = {id(value): members[f"{name}_NAMES"] for name, value in members.items() if f"{name}_NAMES" in members}
    mappings = {
        name: getattr(value, "_model_mapping", None) for name, value in members.items() if name.startswith("AutoModel")
    }
    return {name: tables[id(mapping)] for name, mapping in mappings.items() if id(mapping) in tables}
