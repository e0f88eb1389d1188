"""The YAML for MLX-LM. MLX runs on Apple's machines; the names are compared with those of its model files."""

from pathlib import Path

import pytest
import yaml
from exporting.models import example, golden, renamed, scan_of

from spectrum.errors import SelectionError
from spectrum.exporting import LoraOptions, to_mlx_lm
from spectrum.selection import select_top

CONFIG = Path(__file__).parents[2] / "configs" / "mlx-lm.yaml"

# Full paths of linear layers in a block of MLX-LM 0.32 (mlx_lm/models/<type>.py), written down from its source.
ATTENTION = {f"self_attn.{part}_proj" for part in "qkvo"}
SWITCH = {f"switch_mlp.{part}_proj" for part in ("gate", "up", "down")}
DENSE = {f"mlp.{part}_proj" for part in ("gate", "up", "down")}
BLOCKS = {
    "llama": ATTENTION | DENSE,
    "qwen2": ATTENTION | DENSE,
    "mixtral": ATTENTION | {f"block_sparse_moe.{part}" for part in SWITCH | {"gate"}},
    "qwen3_moe": ATTENTION | DENSE | {f"mlp.{part}" for part in SWITCH | {"gate"}},
    "qwen2_moe": ATTENTION
    | {f"mlp.{part}" for part in SWITCH | {"gate", "shared_expert_gate"}}
    | {f"mlp.shared_expert.{part}_proj" for part in ("gate", "up", "down")},
}


def _keys(scan, selection):
    return yaml.safe_load(to_mlx_lm(selection, scan, LoraOptions())[0])["lora_parameters"]["keys"]


def test_golden():
    """The whole text."""
    scan = example()
    assert to_mlx_lm(select_top(scan, 50), scan, LoraOptions(rank=8))[0] == golden("mlx-lm.yaml")


@pytest.mark.parametrize("name", BLOCKS)
def test_every_linear_layer_has_its_path(name):
    """All of a model selected: the keys are all paths of its blocks, each once, routers included."""
    scan = scan_of(name, kinds=("matrix", "experts", "router"))
    keys = _keys(scan, select_top(scan, 100, embeddings="freeze"))
    assert len(set(keys)) == len(keys)
    assert {key.split(".", 3)[3] for key in keys} == BLOCKS[name]
    assert {key.split(".")[2] for key in keys} == set("0123")


def test_experts_of_transformers_4():
    """The experts of a layer in modules of their own are one module there."""
    scan = scan_of("mixtral")
    scan = renamed(renamed(scan, "mlp.experts.gate_up_proj", "block_sparse_moe.experts.*.w1.weight"), "x", "x")
    scan = renamed(scan, "mlp.experts.down_proj", "block_sparse_moe.experts.*.w2.weight")
    keys = _keys(scan, select_top(scan, 100, embeddings="freeze"))
    assert "model.layers.0.block_sparse_moe.switch_mlp.gate_proj" in keys
    assert "model.layers.0.block_sparse_moe.switch_mlp.down_proj" in keys


def test_embeddings_are_said():
    """They get an adapter, which the user should know."""
    scan = example()
    _, notes = to_mlx_lm(select_top(scan, 50), scan, LoraOptions())
    assert notes[0].startswith("MLX-LM trains adapters only: embedding and head get one")
    assert "4 biases" not in notes[0]


@pytest.mark.parametrize("name", ["gemma3", "gpt2", "gpt_oss"])
def test_unknown_classes_are_refused(name):
    """A class whose names may differ there: an error that lists those that are known."""
    scan = scan_of(name)
    with pytest.raises(SelectionError, match="is not known here, only those of Cohere2ForCausalLM, Gemma2"):
        to_mlx_lm(select_top(scan, 50), scan, LoraOptions())


def test_what_has_no_adapter_is_refused():
    """Norms, ranks of one's own, and a bare parameter."""
    scan = example()
    with pytest.raises(SelectionError, match="--norms freeze"):
        to_mlx_lm(select_top(scan, 50, norms="train"), scan, LoraOptions())
    with pytest.raises(SelectionError, match="one rank for all"):
        to_mlx_lm(select_top(scan, 50), scan, LoraOptions(by_snr=True))
    scan = renamed(scan, "down_proj.weight", "bare")
    with pytest.raises(SelectionError, match="is not a linear layer of MLX-LM's Qwen2ForCausalLM"):
        to_mlx_lm(select_top(scan, 50), scan, LoraOptions())


def test_the_example_config():
    """What `mlx_lm.lora --config` reads; keys are full paths."""
    values = yaml.safe_load(CONFIG.read_text())
    assert values["fine_tune_type"] == "lora"
    assert set(values["lora_parameters"]) == {"rank", "scale", "dropout", "keys"}
    assert all(key.startswith("model.layers.") for key in values["lora_parameters"]["keys"])
