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
    """A model on the meta device."""

    model: Any  # the module
    shapes: dict[str, tuple[int, ...]]  # of every entry of named_parameters()
    aliases: dict[str, str]  # {other name of a tied parameter: its name in named_parameters()}
    buffers: frozenset[str]  # names of the buffers, stored or not


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers from logging and warning; its settings are restored afterwards."""
    from transformers.utils import logging  # noqa: PLC0415

    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(verbosity)


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
        CheckpointError: the config describes far more modules than there are tensors, or a class is not of a model.
    """
    failures: list[UnbuildableError] = []
    for chosen in candidates:
        try:
            meta = _build(chosen, config, tensors)
        except UnbuildableError as error:  # noqa: PERF203 - a few classes at most
            failures.append(error)
            if error.here_only:
                break
        else:
            name = type(meta.model).__name__
            reason = next((str(each) for each in failures if each.chosen and each.chosen.name != name), "")
            return replace(chosen, name=name, instead_of=reason), meta
    raise failures[-1] if failures[-1].here_only else failures[0]


@quiet()
def _build(chosen: ModelClass, config: Mapping[str, object], tensors: int) -> MetaModel:
    """Build a model on the meta device, its tied parameters tied, without reaching the network."""
    import torch  # noqa: PLC0415 - costs a second

    try:
        with offline(), limited_building(tensors), torch.device("meta"):
            model = _instance(chosen, parsed(config, chosen.model_type))
            model.tie_weights()
    except CheckpointError:
        raise
    except Exception as error:
        # The constructor of any of some 800 model types runs here, on any config: a missing package, a field of the
        # wrong type, a size that does not divide. The user reads what it raised, and names are found another way.
        raise _unbuildable(chosen, error) from error
    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    every = {name: names[id(parameter)] for name, parameter in model.named_parameters(remove_duplicate=False)}
    aliases = {alias: name for alias, name in every.items() if alias != name}
    return MetaModel(model, shapes, aliases, frozenset(name for name, _ in model.named_buffers(remove_duplicate=False)))


def _unbuildable(chosen: ModelClass, error: Exception) -> UnbuildableError:
    network = asked_for_network(error)
    reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    text = (
        " without asking the Hub for something that config.json names, which is never done"
        if network
        else f": {reason}"
    )
    here_only = network or isinstance(error, ImportError)
    return UnbuildableError(f"{chosen.name} cannot be built{text}", chosen=chosen, here_only=here_only)


def parsed(config: Mapping[str, object], model_type: str) -> Any:
    """config.json as an object of transformers, made without reaching the network: some classes look things up."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING  # noqa: PLC0415

    with offline():
        return CONFIG_MAPPING[model_type].from_dict(_cleaned(config))


def _instance(chosen: ModelClass, config: Any) -> Any:
    """The model, with eager attention: a config that asks for flash attention would demand its package."""
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
# that are never read does not matter, but torch would refuse one that it does not compute in.
_IGNORED = (
    "auto_map", "quantization_config", "dtype", "torch_dtype",
    "attn_implementation", "_attn_implementation", "experts_implementation", "_experts_implementation",
)  # fmt: skip


def _cleaned(value: Any) -> Any:
    """A value of config.json as the config class takes it; transformers writes infinities as {"__float__": …}."""
    if isinstance(value, Mapping):
        if set(value) == {"__float__"}:
            return float(value["__float__"])
        return {key: _cleaned(entry) for key, entry in value.items() if key not in _IGNORED}
    return [_cleaned(entry) for entry in value] if isinstance(value, list) else value
