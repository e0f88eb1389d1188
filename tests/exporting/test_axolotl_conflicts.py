"""Settings that contradict the list: each rule from both sides, and against Axolotl's own validators."""

import pytest
import yaml

from spectrum.exporting.axolotl_conflicts import find_conflicts, is_same_model, is_zero_3
from spectrum.results import Model

MODEL = Model("meta-llama/Meta-Llama-3-8B", revision="ab" * 20, model_class="LlamaForCausalLM", name_mapping="exact")
REENTRANT = "gradient_checkpointing_kwargs: {use_reentrant: true}"
PLUGIN = "plugins: [axolotl.integrations.spectrum.SpectrumPlugin]"

# Settings -> (code, keys) of what they conflict with; with a row range in the list.
CASES = {
    "adapter: qlora": ("SPC501", ("adapter",)),
    "adapter:": None,
    REENTRANT: ("SPC502", ("gradient_checkpointing_kwargs", "use_reentrant")),
    "gradient_checkpointing_kwargs: {use_reentrant: false}": None,
    "gradient_checkpointing: true": None,
    "gradient_checkpointing_kwargs: true": None,
    "fsdp: [full_shard]": ("SPC503", ("fsdp",)),
    "fsdp_config: {offload_params: true}": ("SPC503", ("fsdp_config",)),
    "fsdp_version: 1\nfsdp_config: {offload_params: true}": ("SPC503", ("fsdp_config",)),
    "fsdp_config: {use_orig_params: true}": None,
    "fsdp_config: {fsdp_use_orig_params: true}": None,
    "fsdp_config: {use_orig_params: false, version: 2}": None,
    "fsdp_version: 2\nfsdp_config: {offload_params: true}": None,
    "fsdp_config: {fsdp_version: 2}": None,
    "fsdp_version: 2": None,
    "deepspeed: deepspeed_configs/zero3_bf16.json": ("SPC504", ("deepspeed",)),
    "deepspeed: {zero_optimization: {stage: 3}}": ("SPC504", ("deepspeed",)),
    "deepspeed: {zero_optimization: {stage: 2}}": None,
    "deepspeed: deepspeed_configs/zero2.json": None,
    "base_model: meta-llama/Meta-Llama-3-70B": ("SPC505", ("base_model",)),
    "base_model: unsloth/Meta-Llama-3-8B": ("SPC505", ("base_model",)),
    "base_model: meta-llama/Meta-Llama-3-8B": None,
    PLUGIN: ("SPC506", ("plugins",)),
    "plugins: [axolotl.integrations.liger.LigerPlugin, 3]": None,
    "load_in_4bit: true": ("SPC507", ("load_in_4bit",)),
    "load_in_8bit: true": ("SPC507", ("load_in_8bit",)),
    "load_in_8bit: false": None,
    "revision_of_model: cdcdcdc": ("SPC508", ("revision_of_model",)),
    "revision_of_model: abababab": None,
    "revision_of_model: main": None,
    "type_of_model: Qwen2ForCausalLM": ("SPC509", ("type_of_model",)),
    "type_of_model: LlamaForCausalLM": None,
    "type_of_model: AutoModelForCausalLM": None,
}


@pytest.mark.parametrize("settings", CASES)
def test_settings(settings):
    """What conflicts is found once, at its key; what does not is let be."""
    found = find_conflicts(yaml.safe_load(settings), model=MODEL, rows=True)
    assert [(item.code, item.keys) for item in found] == ([CASES[settings]] if CASES[settings] else [])


def test_without_a_row_range_zero_3_is_no_conflict():
    """Whole parameters are frozen by requires_grad alone."""
    assert find_conflicts({"deepspeed": "zero3.json"}, model=MODEL) == []


def test_adapters_have_fewer_conflicts():
    """Frozen weights, FSDP 1 and quantisation are what they are made for; the plugin would freeze them."""
    config = {
        "adapter": "qlora",
        "load_in_4bit": True,
        "fsdp": ["full_shard"],
        **yaml.safe_load(f"{REENTRANT}\n{PLUGIN}"),
    }
    assert [item.code for item in find_conflicts(config, adapters=True)] == ["SPC506"]
    assert [item.code for item in find_conflicts(config)] == ["SPC501", "SPC506", "SPC502", "SPC503", "SPC507"]


@pytest.mark.parametrize(
    ("name", "found"), [("model.visual.blocks.0.attn.qkv.weight", True), ("model.visual_head.weight", False)]
)
def test_multimodal_parts_are_frozen_again(name, found):
    """Only where the setting is on, and by whole parts of names."""
    names = ["lm_head.weight", name]
    assert [item.code for item in find_conflicts({"freeze_mm_modules": True}, names=names)] == ["SPC510"] * found
    assert find_conflicts({"freeze_mm_modules": False}, names=names) == []


def test_without_a_model():
    """The rules on the model need one."""
    config = {"base_model": "x", "revision_of_model": "cd" * 20, "type_of_model": "X"}
    assert find_conflicts(config) == []


@pytest.mark.parametrize("value", [None, 3, "text", [], {}, [[]], {"a": {}}, True])
def test_any_type_of_value(value):
    """What Axolotl will refuse anyway raises nothing here."""
    keys = {key for settings in CASES for key in yaml.safe_load(settings)}
    find_conflicts(dict.fromkeys(keys, value), model=MODEL, rows=True)


@pytest.mark.parametrize(
    ("base_model", "scanned", "same"),
    [
        ("owner/name", "owner/name", True),
        ("owner/name", "owner-name", True),
        ("./models/name", "owner/name", True),
        ("/data/owner--name/", "owner/name", True),
        ("/c/models--owner--name/snapshots/abc", "owner/name", True),
        ("./name", "name", True),
        ("owner/name", "name", True),
        ("other/name", "owner/name", False),
        ("owner/name-2", "owner/name", False),
        ("./models/other", "owner/name", False),
        ("", "owner/name", False),
    ],
)
def test_same_model(base_model, scanned, same):
    """Ids are compared whole, folders by their last part."""
    assert is_same_model(base_model, scanned) is same


@pytest.mark.parametrize("name", ["DeepSpeed_configs/ZeRO-3.json", "zero_3.json", "zero3_bf16_cpuoffload_all.json"])
def test_zero_3_by_its_name(name):
    """However it is spelled."""
    assert is_zero_3(name)
    assert not is_zero_3(name.replace("3", "2", 1))


# Settings Axolotl itself refuses beside a list -> (module, class, validator).
REFUSED = {
    REENTRANT: ("utils.schemas.validation", "TrainingValidationMixin", "check_use_reentrant_mismatch"),
    f"{PLUGIN}\nfsdp: [full_shard]\nfsdp_config: {{offload_params: true}}": (
        "integrations.spectrum.args", "SpectrumArgs", "check_fsdp_use_orig_params",
    ),
    "load_in_4bit: true": ("utils.schemas.peft", "LoraConfig", "validate_adapter"),
}  # fmt: skip


@pytest.mark.parametrize("settings", REFUSED, ids=lambda text: text.split(":")[0])
def test_axolotl_refuses_it_too(axolotl, settings):
    """Its own validators raise for what is found here, and pass the same config put right."""
    module, owner, name = REFUSED[settings]
    validator = getattr(getattr(axolotl(module), owner), name)
    config = {"unfrozen_parameters": ["x"], **yaml.safe_load(settings)}
    assert find_conflicts(config)
    with pytest.raises(ValueError, match="."):
        validator(config)
    right = {"unfrozen_parameters": ["x"]}
    assert (find_conflicts(right), validator(dict(right))) == ([], right)


def test_an_adapter_is_frozen_by_the_list(freeze_layers_except):
    """Axolotl's own freeze function, over names as PEFT gives them, leaves no weight of the adapter trainable."""
    import torch

    layer = torch.nn.ModuleDict({"q_proj": torch.nn.Linear(2, 2), "lora_A": torch.nn.Linear(2, 1)})
    model = torch.nn.ModuleDict({"base_model": torch.nn.ModuleDict({"model": layer})})
    freeze_layers_except(model, ["^model.q_proj.weight$"])
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_ranges_of_rows_under_zero_3(axolotl):
    """Axolotl's own arithmetic with a parameter of no rows: it raises, or forgets the rows behind the range."""
    freeze = axolotl("utils.freeze")
    with pytest.raises(ValueError, match="invalid unfreeze range"):
        freeze._merge_ranges([(60, None)], 0)
    assert freeze._invert_ranges(freeze._merge_ranges([(10, 20)], 0), 0) == [(0, 10)]
    assert freeze._invert_ranges(freeze._merge_ranges([(10, 20)], 30), 30) == [(0, 10), (20, 30)]
