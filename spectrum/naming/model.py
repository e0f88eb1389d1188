"""Which class a trainer loads, and that class built on the meta device: every name and shape, and no weight."""

import contextlib
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from spectrum.errors import CheckpointError
from spectrum.untrusted import shown


class UnbuildableError(Exception):
    """No model can be built. Its text is the reason, for the user."""


@dataclass(frozen=True)
class ModelClass:
    """The class a trainer would load a config with.

    Attributes:
        name: of the class.
        built_by: name of the class, or of the auto class that finds it.
        config: transformers' config object.
        model_type: as config.json names it.
        others: classes that another table, or the config itself, names for the model.
    """

    name: str
    built_by: str
    config: Any
    model_type: str
    others: tuple[str, ...] = ()

    @property
    def notes(self) -> tuple[str, ...]:
        """A sentence for each other class."""
        return tuple(
            f"A model of type '{self.model_type}' can be loaded as {self.name} or as {other}, which may name "
            f"parameters differently. The names are those of {self.name}, as Axolotl loads it; pass --model-class "
            f"{other} for the other."
            for other in self.others
        )


@dataclass(frozen=True)
class MetaModel:
    """A model on the meta device.

    Attributes:
        model: the module.
        shapes: of every entry of named_parameters(), under its name there.
        aliases: {other name of a tied parameter: its name in named_parameters()}.
        buffers: names of the buffers, stored or not.
    """

    model: Any
    shapes: dict[str, tuple[int, ...]]
    aliases: dict[str, str]
    buffers: frozenset[str]


def transformers_version() -> str | None:
    """Of the installed transformers; None where there is none."""
    try:
        import transformers  # noqa: PLC0415 - costs a second
    except ModuleNotFoundError:
        return None
    return str(transformers.__version__)


def choose_class(config: Mapping[str, object], wanted: str | None = None) -> ModelClass:
    """The class a trainer loads the model with.

    The wanted one; else, as Axolotl does, the image-text-to-text class of the model type and then its causal-LM class;
    else the first architecture the config names; else the base model.

    Args:
        config: config.json. Remote code that it names is never looked at.
        wanted: name of a transformers class.

    Raises:
        UnbuildableError: transformers does not know the model type, or the config names no class of it.
        CheckpointError: transformers has no class of the wanted name.
    """
    parsed = _parsed_config(config)
    model_type = str(config["model_type"])
    if wanted is not None:
        if wanted not in _classes():
            raise CheckpointError(
                f"transformers {transformers_version()} has no class '{wanted}'. Name one that it has, such as "
                "AutoModelForCausalLM, with --model-class."
            )
        return ModelClass(wanted, wanted, parsed, model_type)
    found = _candidates(model_type, config)
    if not found:
        raise UnbuildableError(f"transformers {transformers_version()} has no model class for '{model_type}'")
    built_by, name = found[0]
    others = dict.fromkeys(other for auto, other in found[1:] if auto != "AutoModel" and other != name)
    return ModelClass(name, built_by, parsed, model_type, tuple(others))


def build(chosen: ModelClass) -> MetaModel:
    """Build a model on the meta device, its tied parameters tied.

    Raises:
        UnbuildableError: the class cannot be built here.
        CheckpointError: `limits.limited_building` ended it.
    """
    import torch  # noqa: PLC0415

    try:
        with quiet(), torch.device("meta"):
            model = _instance(chosen)
            model.tie_weights()
    except CheckpointError:  # too many modules
        raise
    except Exception as error:
        # The constructor of any of some 400 model types runs here, on any config: a missing package, a field of the
        # wrong type, a size that does not divide. What it raises is told to the user, and names are found another way.
        raise UnbuildableError(f"{chosen.name} cannot be built: {_first_line(error)}") from error
    return describe(model)


def describe(model: Any) -> MetaModel:
    """Names, shapes and ties of a model."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    aliases = {
        name: names[id(parameter)]
        for name, parameter in model.named_parameters(remove_duplicate=False)
        if names[id(parameter)] != name
    }
    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    return MetaModel(model, shapes, aliases, frozenset(name for name, _ in model.named_buffers(remove_duplicate=False)))


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers from logging, warning and drawing progress bars; what was set before holds again afterwards."""
    from transformers.utils import logging  # noqa: PLC0415

    verbosity = logging.get_verbosity()
    bars = logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            with (
                warnings.catch_warnings()
            ):  # HF_HUB_DISABLE_PROGRESS_BARS keeps those of huggingface_hub off, and says so
                warnings.simplefilter("ignore")
                logging.enable_progress_bar()


def _candidates(model_type: str, config: Mapping[str, object]) -> list[tuple[str, str]]:
    """(class or auto class to build by, class) in order of preference."""
    from transformers.models.auto import modeling_auto  # noqa: PLC0415

    tables = (
        ("AutoModelForImageTextToText", modeling_auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES),
        ("AutoModelForCausalLM", modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES),
    )
    found = [(auto, _name_in(table, model_type)) for auto, table in tables if model_type in table]
    architectures = [name for name in _strings(config.get("architectures")) if name in _classes()]
    found += [(name, name) for name in architectures[:1]]
    if model_type in modeling_auto.MODEL_MAPPING_NAMES:
        found.append(("AutoModel", _name_in(modeling_auto.MODEL_MAPPING_NAMES, model_type)))
    return found


def _classes() -> frozenset[str]:
    """Names in transformers, without importing the modules that hold them, which may lack packages."""
    import transformers  # noqa: PLC0415

    return frozenset(transformers.__all__)  # dir() of it takes a second


def _instance(chosen: ModelClass) -> Any:
    """Eager attention: a config that asks for flash attention else demands its package."""
    import transformers  # noqa: PLC0415

    built_by: Any = getattr(transformers, chosen.built_by)
    if hasattr(built_by, "_model_mapping"):
        return built_by.from_config(chosen.config, attn_implementation="eager", trust_remote_code=False)
    config = chosen.config
    text = config.get_text_config()
    if getattr(built_by, "config_class", None) is type(text):
        config = text  # as the auto classes do: a text model of a multimodal config
    return built_by._from_config(config, attn_implementation="eager")  # noqa: SLF001 - what from_config calls


# Remote code is never looked at; quantised weights come here dequantised, and the dtype of numbers never read does
# not matter, while one that torch does not compute in would be refused.
_IGNORED = ("auto_map", "quantization_config", "dtype", "torch_dtype")


def _parsed_config(config: Mapping[str, object]) -> Any:
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING  # noqa: PLC0415

    model_type = config.get("model_type")
    if not isinstance(model_type, str) or model_type not in CONFIG_MAPPING:
        raise UnbuildableError(
            f"transformers {transformers_version()} does not know the model type {shown(model_type)}"
        )
    try:
        with quiet():
            return CONFIG_MAPPING[model_type].from_dict(
                {key: _decoded(value) for key, value in config.items() if key not in _IGNORED}
            )
    except Exception as error:
        # As in `build`: a config class may reject its values with any exception it likes.
        raise UnbuildableError(f"the config of type '{model_type}' is not valid: {_first_line(error)}") from error


def _decoded(value: object) -> object:
    """A value of config.json, in which transformers 5 writes an infinity as {"__float__": "Infinity"}."""
    if isinstance(value, dict):
        if set(value) == {"__float__"}:
            return float(value["__float__"])
        return {key: _decoded(entry) for key, entry in value.items()}
    return [_decoded(entry) for entry in value] if isinstance(value, list) else value


def _name_in(table: Mapping[str, Any], model_type: str) -> str:
    entry = table[model_type]
    return str(entry if isinstance(entry, str) else entry[0])


def _strings(value: object) -> list[str]:
    return [entry for entry in value if isinstance(entry, str)] if isinstance(value, list | tuple) else []


def _first_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:200]}"
