"""Axolotl's lines for LoRA, validated by Axolotl and given to PEFT as Axolotl gives them."""

import warnings
from pathlib import Path

import pytest
import yaml
from exporting.models import example, golden, model_of, renamed, scan_of
from exporting.test_peft import _ranks, _saved

from spectrum.errors import SelectionError
from spectrum.exporting import LoraOptions, to_axolotl_lora
from spectrum.selection import select_top

CONFIGS = Path(__file__).parents[2] / "configs"
TRAINING = {"base_model": "x", "datasets": [{"path": "a", "type": "alpaca"}], "micro_batch_size": 1} | {
    "gradient_accumulation_steps": 1,
    "learning_rate": 1e-5,
}


def _lora_config(peft, config):
    """What loaders/adapter.py of axolotl 0.19.0 makes of a validated config."""
    return peft.LoraConfig(
        r=config.lora_r,
        lora_alpha=config.lora_alpha,
        target_modules=config.lora_target_modules or [],
        target_parameters=config.lora_target_parameters or [],
        lora_dropout=config.lora_dropout,
        modules_to_save=config.lora_modules_to_save or None,
        bias="none",
        rank_pattern=config.lora_rank_pattern or {},
        alpha_pattern=config.lora_alpha_pattern or {},
        ensure_weight_tying=bool(config.peft_ensure_weight_tying),
    )


def test_golden():
    """The whole text, ranks by SNR included."""
    scan = example()
    text, _ = to_axolotl_lora(select_top(scan, 50), scan, LoraOptions(rank=8, by_snr=True))
    assert text == golden("axolotl-lora.yaml")


@pytest.mark.parametrize("name", ["llama-tied", "qwen2", "gemma3", "qwen2_moe"])
@pytest.mark.parametrize("four_bit", [False, True])
def test_axolotl_takes_it(axolotl_config, peft, name, four_bit):
    """The YAML passes Axolotl's validation, and PEFT adapts exactly the selection."""
    scan = scan_of(name, kinds=("matrix",) if name != "qwen2_moe" or not four_bit else ("experts",))
    selection = select_top(scan, 50)
    text, _ = to_axolotl_lora(selection, scan, LoraOptions(by_snr=True, four_bit=four_bit))
    config = axolotl_config(TRAINING | yaml.safe_load(text))
    assert (str(config.adapter), bool(config.load_in_4bit)) == (("qlora", True) if four_bit else ("lora", False))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = peft.get_peft_model(model_of(name), _lora_config(peft, config))
    assert set(_ranks(model)) == {item.name for group in selection.groups for item in group.selected}
    assert _saved(model) == set(selection.embeddings)


@pytest.mark.parametrize("odd", ["do'wn", "a: #b", "ünï", "- x", "null"])
def test_odd_names_survive_yaml(odd):
    """Quoted where YAML would read something else; the keys of the patterns, too."""
    scan = renamed(example(), "down_proj", odd)
    text, _ = to_axolotl_lora(select_top(scan, 50, embeddings="freeze"), scan, LoraOptions(by_snr=True))
    values = yaml.safe_load(text)
    assert f"model.layers.1.mlp.{odd}" in values["lora_target_modules"]
    assert any("1" in key and values["lora_rank_pattern"][key] == 32 for key in values["lora_rank_pattern"])


def test_what_axolotl_would_not_compile():
    """It reads every target as an expression and refuses the config otherwise."""
    scan = renamed(example(), "down_proj", "(x")
    with pytest.raises(SelectionError, match="Axolotl reads lora_target_modules as expressions"):
        to_axolotl_lora(select_top(scan, 50, embeddings="freeze"), scan, LoraOptions())


@pytest.mark.parametrize("name", ["axolotl-full.yaml", "axolotl-lora.yaml"])
def test_the_example_configs(axolotl_config, name):
    """Axolotl's own validation takes them."""
    config = axolotl_config(yaml.safe_load((CONFIGS / name).read_text()))
    assert bool(config.unfrozen_parameters) == (name == "axolotl-full.yaml")
    assert bool(config.lora_target_modules) == (name == "axolotl-lora.yaml")
