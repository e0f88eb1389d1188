"""Which model class a trainer loads a checkpoint with."""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from spectrum.errors import CheckpointError
from spectrum.untrusted import shown

_AXOLOTL = ("AutoModelForImageTextToText", "AutoModelForCausalLM")  # in the order in which Axolotl asks them


@dataclass(frozen=True)
class ModelClass:
    """A class that a trainer could load a checkpoint with."""

    name: str
    built_by: str  # name of the class, or of the auto class that finds it
    model_type: str  # as config.json names it
    others: tuple[str, ...] = ()  # classes that another auto class, or the config itself, names for the model
    instead_of: str = ""  # why a class preferred to it cannot be built; '' if none was

    @property
    def notes(self) -> tuple[str, ...]:
        """A sentence for each other class."""
        passed_over = f"{self.instead_of}. The names are those of {self.name}, which config.json names."
        return (passed_over,) * bool(self.instead_of) + tuple(
            f"A model of type '{self.model_type}' can be loaded as {self.name} or as {other}, which may name "
            f"parameters differently. The names are those of {self.name}, as Axolotl loads it; pass --model-class "
            f"{other} for the other."
            for other in self.others
        )


class UnbuildableError(Exception):
    """No model can be built. Its text is the reason, for the user."""

    def __init__(self, reason: str, *, chosen: ModelClass | None = None, here_only: bool = False) -> None:
        super().__init__(reason)
        self.chosen = chosen  # the class that was tried
        self.here_only = here_only  # the trainer may be able to build it: a package is missing, or the Hub is asked


def transformers_version() -> str | None:
    """Of the installed transformers; None if it is not installed."""
    try:
        import transformers  # noqa: PLC0415 - costs a second
    except ModuleNotFoundError:
        return None
    return str(transformers.__version__)


def auto_classes(config: Mapping[str, object]) -> dict[str, str]:
    """{auto class: the class it loads}, for the auto classes that know the model type of a config.json.

    If an auto class has several, transformers takes the first one that `architectures` names, else the first.
    """
    from transformers.models.auto import modeling_auto  # noqa: PLC0415 - costs a second

    named, found = _architectures(config), {}
    for auto, value in vars(modeling_auto).items():
        mapping = getattr(value, "_model_mapping", None) if auto.startswith("AutoModel") else None
        classes = getattr(mapping, "_model_mapping", {}).get(config.get("model_type"), ())
        classes = [classes] if isinstance(classes, str) else list(classes)
        if classes:
            found[auto] = next((name for name in named if name in classes), classes[0])
    return found


def candidate_classes(config: Mapping[str, object], wanted: str | None = None) -> list[ModelClass]:
    """The classes to try in turn; a later one counts only if no trainer can build those before it.

    The wanted one alone; else, as Axolotl does, the image-text-to-text class of the model type and then its causal-LM
    class; then the first architecture that the config names; if there are none of these, the base model.

    Args:
        config: config.json. Remote code that it names is never looked at.
        wanted: name of a transformers class.

    Raises:
        UnbuildableError: transformers does not know the model type, or has no class for it.
        CheckpointError: transformers has no class of the wanted name.
    """
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING  # noqa: PLC0415 - costs a second

    model_type, version = config.get("model_type"), f"transformers {transformers_version()}"
    if not isinstance(model_type, str) or model_type not in CONFIG_MAPPING:
        raise UnbuildableError(f"{version} does not know the model type {shown(model_type)}")
    if wanted is not None:
        _check_wanted(wanted)
        return [ModelClass(wanted, wanted, model_type)]
    by_auto = auto_classes(config)
    found = [(auto, by_auto[auto]) for auto in _AXOLOTL if auto in by_auto]
    found += [(name, name) for name in _architectures(config) if name in _classes()][:1]
    found = found or [(auto, name) for auto, name in by_auto.items() if auto == "AutoModel"]
    if not found:
        raise UnbuildableError(f"{version} has no model class for '{model_type}'")
    return [
        ModelClass(name, built_by, model_type, tuple(dict.fromkeys(n for _, n in found[number:] if n != name)))
        for number, (built_by, name) in enumerate(found)
    ]


def _architectures(config: Mapping[str, object]) -> list[str]:
    named = config.get("architectures")
    return [name for name in named if isinstance(name, str)] if isinstance(named, list) else []


@cache
def _classes() -> frozenset[str]:
    """Names in transformers, without importing the modules that hold them, which may lack packages."""
    import transformers  # noqa: PLC0415

    return frozenset(transformers.__all__)  # dir() of it takes a second


def _check_wanted(name: str) -> None:
    """Raise CheckpointError unless transformers has a class of this name."""
    if name not in _classes():
        near = difflib.get_close_matches(name[:100], sorted(_classes()), n=3)
        raise CheckpointError(
            f"transformers {transformers_version()} has no class {shown(name)}. Pass one that it has with "
            f"--model-class: {', '.join(near or _AXOLOTL)}."
        )
