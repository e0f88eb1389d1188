"""Which model class a trainer loads a checkpoint with."""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from itertools import islice

from spectrum.errors import CheckpointError
from spectrum.naming.auto_classes import auto_classes
from spectrum.untrusted import shown

_AXOLOTL = ("AutoModelForImageTextToText", "AutoModelForCausalLM")  # in the order in which Axolotl asks them


@dataclass(frozen=True)
class ModelClass:
    """A class that a trainer could load a checkpoint with.

    Attributes:
        name: of the class.
        built_by: name of the class, or of the auto class that finds it.
        model_type: as config.json names it.
        others: classes that another table, or the config itself, names for the model.
        instead_of: why a class that was preferred to it cannot be built; '' if none was.
    """

    name: str
    built_by: str
    model_type: str
    others: tuple[str, ...] = ()
    instead_of: str = ""

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
    """No model can be built. Its text is the reason, for the user.

    Attributes:
        chosen: the class that was tried; None if there is none.
        here_only: whether the trainer may be able to build it: a package is missing here, or the Hub is asked.
    """

    def __init__(self, reason: str, *, chosen: ModelClass | None = None, here_only: bool = False) -> None:
        super().__init__(reason)
        self.chosen = chosen
        self.here_only = here_only


def transformers_version() -> str | None:
    """Of the installed transformers; None if there is none."""
    try:
        import transformers  # noqa: PLC0415 - costs a second
    except ModuleNotFoundError:
        return None
    return str(transformers.__version__)


def candidate_classes(config: Mapping[str, object], wanted: str | None = None) -> list[ModelClass]:
    """The classes to try in turn; a later one counts only if no trainer can build those before it.

    The wanted one alone; else, as Axolotl does, the image-text-to-text class of the model type and then its causal-LM
    class; then the first architecture that the config names; if there is none of these, the base model.

    Args:
        config: config.json. Remote code that it names is never looked at.
        wanted: name of a transformers class.

    Raises:
        UnbuildableError: transformers does not know the model type, or has no class for it.
        CheckpointError: transformers has no class of the wanted name.
    """
    model_type = known_model_type(config)
    if wanted is not None:
        _check_wanted(wanted)
        return [ModelClass(wanted, wanted, model_type)]
    found = _candidates(config)
    if not found:
        raise UnbuildableError(f"transformers {transformers_version()} has no model class for '{model_type}'")
    return [
        ModelClass(name, built_by, model_type, tuple(dict.fromkeys(n for _, n in found[number:] if n != name)))
        for number, (built_by, name) in enumerate(found)
    ]


def known_model_type(config: Mapping[str, object]) -> str:
    """The model type that config.json names.

    Raises:
        UnbuildableError: transformers does not know it.
    """
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING  # noqa: PLC0415 - costs a second

    model_type = config.get("model_type")
    if not isinstance(model_type, str) or model_type not in CONFIG_MAPPING:
        raise UnbuildableError(
            f"transformers {transformers_version()} does not know the model type {shown(model_type)}"
        )
    return model_type


def _candidates(config: Mapping[str, object]) -> list[tuple[str, str]]:
    """(class or auto class to build by, class) in order of preference."""
    by_auto = auto_classes(config)
    found = [(auto, by_auto[auto]) for auto in _AXOLOTL if auto in by_auto]
    architectures = config.get("architectures")
    named = architectures if isinstance(architectures, list | tuple) else ()
    found += islice(((name, name) for name in named if isinstance(name, str) and name in _classes()), 1)
    return found or [(auto, name) for auto, name in by_auto.items() if auto == "AutoModel"]


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
