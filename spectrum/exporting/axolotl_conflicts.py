"""Settings of an Axolotl config that contradict a selection, for `check` and `--into`.

Each rule names its source in axolotl 0.19.0.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from spectrum.results.scan import Model

# The rules that `--into` refuses or mends; codes as in `checking.findings.RULES`.
ADAPTER, REENTRANT, FSDP_1, PLUGIN, MODEL_CLASS = "SPC501", "SPC502", "SPC503", "SPC506", "SPC509"

_TYPE_KEYS = ("model_type", "type_of_model")
_CAUSAL, _IMAGE = "AutoModelForCausalLM", "AutoModelForImageTextToText"
_VOXTRAL = "VoxtralForConditionalGeneration"

# Modules that freeze_mm_modules freezes.
_MULTIMODAL = frozenset(
    ("vision_tower", "vision_model", "vision_encoder", "embed_vision", "multi_modal_projector", "visual", "audio_tower",
     "audio_model", "embed_audio")
)  # fmt: skip


@dataclass(frozen=True)
class Conflict:
    """A setting, its outermost key first, that contradicts the selection: what happens, and what to do."""

    code: str
    keys: tuple[str, ...]
    message: str
    remedy: str


def find_conflicts(
    config: Mapping[str, Any],
    *,
    model: Model | None = None,
    rows: bool = False,
    names: Iterable[str] = (),
    adapters: bool = False,
) -> list[Conflict]:
    """The settings of a config that contradict training a selection with it.

    Args:
        config: parsed. Values of unexpected types are ignored, because Axolotl refuses them.
        model: of the scan that the selection comes from; None leaves out the rules on the model.
        rows: whether a line of the list ends in a range of rows.
        names: of the parameters that are to be trained.
        adapters: whether LoRA adapters train the selection, instead of a list of unfrozen parameters.
    """
    rules = (_plugin,) if adapters else (_adapter, _plugin, _reentrant, _fsdp_1, _quantised)
    found = [conflict for rule in rules for conflict in rule(config)]
    if rows:
        found += _zero_3(config)
    found += _multimodal(config, names)
    if model is not None:
        found += [*_base_model(config, model), *_revision(config, model), *_model_class(config, model)]
    return found


def is_zero_3(deepspeed: object) -> bool:
    """Whether a `deepspeed` setting is ZeRO-3: by the stage in a mapping, by the name of a path.

    Source: utils/schemas/validation.py, warn_qlora_zero3_w_use_reentrant, goes by the name too.
    """
    if isinstance(deepspeed, Mapping):
        optimization = deepspeed.get("zero_optimization")
        return isinstance(optimization, Mapping) and str(optimization.get("stage")) == "3"
    return isinstance(deepspeed, str) and re.search(r"zero_?-?3", deepspeed, re.IGNORECASE) is not None


def is_same_model(base_model: str, scanned: str) -> bool:
    """Whether `base_model` of a config is the scanned model.

    Two ids 'owner/name' must be equal. Folders, and the names of imported and local scans, are compared by their last
    part; a folder of the Hub cache by the id in its path.
    """
    base = base_model.rstrip("/")
    spellings = {scanned, scanned.replace("/", "--"), scanned.replace("/", "-")}
    if base in spellings or base.replace("/", "-") in spellings or f"/models--{scanned.replace('/', '--')}/" in base:
        return True
    both_ids = "/" in scanned and re.fullmatch(r"\w[\w.-]*/[\w.-]+", base)
    return not both_ids and base.rpartition("/")[2] in {*spellings, scanned.rpartition("/")[2]}


def _adapter(config: Mapping[str, Any]) -> Iterator[Conflict]:
    # train.py, setup_model_and_tokenizer: freeze_layers_except() runs after the adapter was added, over the parameters
    # of the PEFT model, 'base_model.model.model.layers...lora_A': whatever the list does not match is frozen.
    if config.get("adapter"):
        message = f"adapter: {str(config['adapter'])[:40]} together with unfrozen_parameters: Axolotl freezes whatever "
        message += "the list does not match, and that is every weight of the adapter."
        yield Conflict(ADAPTER, ("adapter",), message, "Remove 'adapter', or train the adapter without the list.")


def _reentrant(config: Mapping[str, Any]) -> Iterator[Conflict]:
    # utils/schemas/validation.py, check_use_reentrant_mismatch and check_hidden_states_offloading: refused there.
    # Cause: transformers issue 21381, the inputs of a frozen layer need no gradient, so that none flows.
    keys = ("gradient_checkpointing_kwargs", "use_reentrant")
    if _inside(config, *keys) is True:
        message = "use_reentrant: true, which Axolotl refuses for a partially frozen model."
        yield Conflict(REENTRANT, keys, message, "Set use_reentrant to false.")


def _fsdp_1(config: Mapping[str, Any]) -> Iterator[Conflict]:
    # integrations/spectrum/args.py, check_fsdp_use_orig_params: PyTorch raises "Must flatten tensors with uniform
    # `requires_grad` when `use_orig_params=False`". Version: utils/schemas/validation.py,
    # check_fsdp_version_in_fsdp_config, takes 1 where none is given; check_fsdp_config_kwargs_prefix takes both names.
    if not config.get("fsdp") and not config.get("fsdp_config"):
        return
    inner = [_inside(config, "fsdp_config", key) for key in ("version", "fsdp_version")]
    version = next((each for each in (config.get("fsdp_version"), *inner) if each), 1)
    original = [_inside(config, "fsdp_config", key) for key in ("use_orig_params", "fsdp_use_orig_params")]
    if str(version) != "2" and not any(original):
        key = "fsdp_config" if config.get("fsdp_config") else "fsdp"
        message = "FSDP 1 without use_orig_params puts frozen and trained weights into one flat parameter, which "
        message += "PyTorch refuses."
        yield Conflict(FSDP_1, (key,), message, "Set fsdp_version to 2, or use_orig_params to true in fsdp_config.")


def _zero_3(config: Mapping[str, Any]) -> Iterator[Conflict]:
    # utils/freeze.py, freeze_layers_except, takes len(param), which is 0 while ZeRO-3 holds the parameter elsewhere:
    # _merge_ranges() raises for [a:], and _invert_ranges() forgets the rows behind b for [a:b] (axolotl issue 1687).
    if is_zero_3(config.get("deepspeed")):
        message = "ZeRO-3 with a range of rows: the parameter has no rows while Axolotl sets its range, which fails or "
        message += "trains others."
        yield Conflict("SPC504", ("deepspeed",), message, "Name whole parameters, or use ZeRO-2 or FSDP 2.")


def _plugin(config: Mapping[str, Any]) -> Iterator[Conflict]:
    # integrations/spectrum/__init__.py, SpectrumPlugin.pre_model_load: cfg["unfrozen_parameters"] is overwritten.
    plugins = config.get("plugins")
    if isinstance(plugins, list) and any("SpectrumPlugin" in each for each in plugins if isinstance(each, str)):
        message = "Axolotl's own Spectrum plugin is enabled: it replaces unfrozen_parameters with a list of its own, "
        message += "from a published file."
        yield Conflict(PLUGIN, ("plugins",), message, "Remove the plugin and its spectrum_ settings.")


def _quantised(config: Mapping[str, Any]) -> Iterator[Conflict]:
    # utils/schemas/peft.py, validate_adapter: refused without an adapter; with one, see _adapter().
    for key in ("load_in_8bit", "load_in_4bit"):
        if config.get(key):
            message = f"{key}: quantised weights have no gradient, so that the list trains nothing."
            yield Conflict("SPC507", (key,), message, f"Remove {key}.")


def _multimodal(config: Mapping[str, Any], names: Iterable[str]) -> Iterator[Conflict]:
    # utils/freeze.py, freeze_mm_modules: after the selection was unfrozen, for every parameter with such a part.
    key = "freeze_mm_modules"
    frozen = next((name for name in names if _MULTIMODAL & set(name.split("."))), None) if config.get(key) else None
    if frozen is not None:
        message = f"{key} is set, which freezes '{frozen}' again although it is selected."
        yield Conflict("SPC510", (key,), message, f"Remove {key}, or leave these modules out with --exclude.")


def _base_model(config: Mapping[str, Any], model: Model) -> Iterator[Conflict]:
    # loaders/model.py: self.base_model = cfg.base_model
    base = config.get("base_model")
    if isinstance(base, str) and not is_same_model(base, model.id):
        message = f"base_model is '{base}', the scan is of '{model.id}'."
        yield Conflict("SPC505", ("base_model",), message, "Scan that model; begin the path of a folder with './'.")


def _revision(config: Mapping[str, Any], model: Model) -> Iterator[Conflict]:
    # utils/schemas/deprecated.py, RemappedParameters: revision_of_model has the alias model_revision.
    for key in ("revision_of_model", "model_revision"):
        revision = config.get(key)
        commit = isinstance(revision, str) and re.fullmatch(r"[0-9a-f]{7,40}", revision)
        # A branch or tag is not compared: only the Hub knows its commit.
        if commit and model.revision and not model.revision.startswith(commit.group()):
            message = f"{key} is {revision}, the scan is of {model.revision}."
            yield Conflict("SPC508", (key,), message, "Scan that revision, or train the scanned one.")


def _model_class(config: Mapping[str, Any], model: Model) -> Iterator[Conflict]:
    wanted, loads = _loaded_class(config, model)
    if model.model_class is None or loads == model.model_class or not (model.auto_classes or loads):
        return
    ignored = next((key for key in ("trust_remote_code", "gptq") if config.get(key)), None)
    key = ignored or next((key for key in _TYPE_KEYS if key in config), _TYPE_KEYS[1])
    does = f"{key} is {loads}," if loads == wanted else f"Axolotl loads the model with {wanted}, which "
    if loads != wanted:
        does += f"gives {loads};" if loads else "has no class for it;"
    remedy = f"Remove {ignored}, which makes Axolotl ignore type_of_model, and add" if ignored else "Add"
    remedy += f" the line 'type_of_model: {model.model_class}'"
    remedy += f", or scan again with --model-class {loads}." if loads else "."
    yield Conflict(MODEL_CLASS, (key,), f"{does} the scan names the parameters of {model.model_class}.", remedy)


def _loaded_class(config: Mapping[str, Any], model: Model) -> tuple[str, str | None]:
    """What Axolotl asks transformers for, and the class that this gives; None if that is not known.

    Source: loaders/model.py, _build_model() and _set_auto_model_loader(); utils/config/__init__.py, normalize_config(),
    for is_multimodal; utils/schemas/validation.py, set_reward_model_defaults(); utils/schemas/deprecated.py,
    RemappedParameters: model_type is an alias of type_of_model, and pydantic looks for the alias first.
    """
    named = next((config[key] for key in _TYPE_KEYS if key in config), None)
    if not named and config.get("process_reward_model"):
        named = "AutoModelForTokenClassification"
    if not named and config.get("reward_model"):
        named = "AutoModelForSequenceClassification"
    known = model.auto_classes
    if isinstance(named, str) and named != _CAUSAL and not config.get("trust_remote_code") and not config.get("gptq"):
        return named, known.get(named, None if named.startswith("Auto") else named)
    if _VOXTRAL in known.values():  # loaders/constants.py adds it to the multimodal types, as a class
        return _VOXTRAL, _VOXTRAL
    multimodal = config.get("is_multimodal") or "pixtral" in str(config.get("base_model")).lower() or _IMAGE in known
    auto = _IMAGE if multimodal else _CAUSAL
    return auto, known.get(auto)


def _inside(config: Mapping[str, Any], key: str, inner: str) -> Any:
    value = config.get(key)
    return value.get(inner) if isinstance(value, Mapping) else None
