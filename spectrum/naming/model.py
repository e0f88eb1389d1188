"""A model class built on the meta device: every name and shape, and no weight."""

import contextlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from spectrum.errors import CheckpointError
from spectrum.naming.classes import ModelClass, UnbuildableError
from spectrum.naming.limits import limited_building
from spectrum.naming.offline import asked_for_network, offline


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


def build_first(
    candidates: Sequence[ModelClass], config: Mapping[str, object], tensors: int
) -> tuple[ModelClass, MetaModel]:
    """The first class that can be built. The next one is tried only if a trainer could not build it either.

    Args:
        candidates: in order of preference.
        config: config.json.
        tensors: number of them in the checkpoint, which bounds the model.

    Raises:
        UnbuildableError: none can be built.
        CheckpointError: the config describes far more modules than there are tensors.
    """
    failures: list[UnbuildableError] = []
    for chosen in candidates:
        try:
            meta = build(chosen, config, tensors)
        except UnbuildableError as error:  # noqa: PERF203 - a few classes at most
            failures.append(error)
            if error.here_only:
                break
        else:
            name = type(meta.model).__name__
            reason = next((str(each) for each in failures if each.chosen and each.chosen.name != name), "")
            return replace(chosen, name=name, instead_of=reason), meta
    raise failures[-1] if failures[-1].here_only else failures[0]


def build(chosen: ModelClass, config: Mapping[str, object], tensors: int) -> MetaModel:
    """Build a model on the meta device, its tied parameters tied, without reaching the network.

    Raises:
        UnbuildableError: the class cannot be built here.
        CheckpointError: `limits.limited_building` ended it; or the class is not one of a model.
    """
    import torch  # noqa: PLC0415 - costs a second

    try:
        with quiet(), offline(), limited_building(tensors), torch.device("meta"):
            model = _instance(chosen, _parsed(config, chosen.model_type))
            model.tie_weights()
    except CheckpointError:
        raise
    except Exception as error:
        # The constructor of any of some 800 model types runs here, on any config: a missing package, a field of the
        # wrong type, a size that does not divide. The user reads what it raised, and names are found another way.
        raise _unbuildable(chosen, error) from error
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
    """Keep transformers from logging, warning and drawing progress bars; its settings are restored afterwards."""
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
            with warnings.catch_warnings():  # HF_HUB_DISABLE_PROGRESS_BARS overrules this, with a warning
                warnings.simplefilter("ignore")
                logging.enable_progress_bar()


def _unbuildable(chosen: ModelClass, error: Exception) -> UnbuildableError:
    if asked_for_network(error):
        return UnbuildableError(
            f"{chosen.name} cannot be built without asking the Hub for something that config.json names, which is "
            "never done",
            chosen=chosen,
            here_only=True,
        )
    text = " ".join(str(error).split())[:200]
    reason = f"{chosen.name} cannot be built: {type(error).__name__}: {text}"
    return UnbuildableError(reason, chosen=chosen, here_only=isinstance(error, ImportError))


def _instance(chosen: ModelClass, config: Any) -> Any:
    """Eager attention: otherwise a config that asks for flash attention demands its package."""
    import transformers  # noqa: PLC0415

    built_by: Any = getattr(transformers, chosen.built_by)
    if hasattr(built_by, "_model_mapping"):
        return built_by.from_config(config, attn_implementation="eager", trust_remote_code=False)
    if not hasattr(built_by, "_from_config"):
        raise CheckpointError(f"'{chosen.built_by}' is not a model class: pass another one with --model-class.")
    text_class = config.sub_configs.get("text_config")
    if text_class is not None and built_by.config_class is text_class:
        config = config.get_text_config()  # as the auto classes do: a text model of a multimodal config
    return built_by._from_config(config, attn_implementation="eager")  # noqa: SLF001 - what from_config calls


# Remote code is never looked at, and no kernel is fetched. Quantised weights arrive dequantised. The dtype of numbers
# that are never read does not matter, but one that torch does not compute in would be refused.
_IGNORED = (
    "auto_map", "quantization_config", "dtype", "torch_dtype",
    "attn_implementation", "_attn_implementation", "experts_implementation", "_experts_implementation",
)  # fmt: skip


def _parsed(config: Mapping[str, object], model_type: str) -> Any:
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING  # noqa: PLC0415

    return CONFIG_MAPPING[model_type].from_dict(_cleaned(config))


def _cleaned(value: Any) -> Any:
    """A value of config.json as the config class takes it; transformers writes infinities as {"__float__": …}."""
    if isinstance(value, Mapping):
        if set(value) == {"__float__"}:
            return float(value["__float__"])
        return {key: _cleaned(entry) for key, entry in value.items() if key not in _IGNORED}
    return [_cleaned(entry) for entry in value] if isinstance(value, list) else value
