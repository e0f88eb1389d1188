"""Tiny models of transformers, and scans of their parameters with scores drawn by chance."""

import random
import warnings
from dataclasses import replace
from functools import cache
from pathlib import Path

import torch
import transformers

from spectrum.checkpoint import Tensor
from spectrum.naming import name_parameters
from spectrum.results import MatrixScore, Model, ParameterScore, Scan, Settings, Unscored

TEXT = {
    "vocab_size": 72,
    "hidden_size": 64,
    "intermediate_size": 80,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 64,
    "tie_word_embeddings": False,
}
MOE = TEXT | {"num_experts": 12, "num_experts_per_tok": 2, "moe_intermediate_size": 48}
VISION = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}

CONFIGS = {
    "llama": {"model_type": "llama", **TEXT},
    "llama-tied": {"model_type": "llama", **TEXT, "tie_word_embeddings": True},
    "qwen2": {"model_type": "qwen2", **TEXT},
    "qwen2_vl": {
        "model_type": "qwen2_vl",
        "text_config": {**TEXT, "rope_scaling": {"type": "mrope", "mrope_section": [4, 6, 6]}},
        "vision_config": {"depth": 2, "embed_dim": 32, "hidden_size": 64, "num_heads": 2, "mlp_ratio": 2},
        "tie_word_embeddings": False,
    },
    "gemma3": {
        "model_type": "gemma3",
        "text_config": {**TEXT, "head_dim": 32, "model_type": "gemma3_text", "tie_word_embeddings": True},
        "vision_config": {**VISION, "model_type": "siglip_vision_model"},
        "mm_tokens_per_image": 4,
        "tie_word_embeddings": True,
    },
    "mixtral": {"model_type": "mixtral", **TEXT, "num_local_experts": 4, "num_experts_per_tok": 2},
    "qwen3_moe": {"model_type": "qwen3_moe", **MOE, "decoder_sparse_step": 1, "mlp_only_layers": [1]},
    "qwen2_moe": {"model_type": "qwen2_moe", **MOE, "shared_expert_intermediate_size": 40},
    "gpt2": {
        "model_type": "gpt2",
        "vocab_size": 72,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "n_embd": 64,
        "n_layer": 4,
        "n_head": 2,
        "n_positions": 64,
    },
    "gpt_oss": {
        "model_type": "gpt_oss",
        **TEXT,
        "head_dim": 32,
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
        "layer_types": ["full_attention"] * 4,
    },
}


def model_of(name: str):
    """A model with weights."""
    config = CONFIGS[name]
    parsed = transformers.AutoConfig.for_model(**config)
    visual = type(parsed) in transformers.AutoModelForImageTextToText._model_mapping
    auto = transformers.AutoModelForImageTextToText if visual else transformers.AutoModelForCausalLM
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        return auto.from_config(parsed, attn_implementation="eager")


@cache
def scan_of(name: str, *, kinds=("matrix", "experts")) -> Scan:
    """A scan of the model's parameters as they are saved and named again; the scores are chance."""
    model = model_of(name)
    state = model.state_dict()
    tied = {key for key in state if key not in dict(model.named_parameters())} & set(
        dict(model.named_parameters(remove_duplicate=False))
    )
    tensors = {
        key: Tensor(key, "F32", tuple(value.shape), "s", 0, 0)
        for key, value in state.items()
        if key not in tied and key not in dict(model.named_buffers())
    }
    naming = name_parameters(tensors, CONFIGS[name], same=lambda _one, _other: True)
    chance = random.Random(1)
    scored = [item for item in naming.parameters if item.matrices and item.kind in kinds]
    unscored = [item for item in naming.parameters if item not in scored]
    total = sum(item.numel for item in naming.parameters)
    return Scan(
        Model(f"owner/{name}", "c" * 40, None, naming.model_class, naming.transformers, naming.name_mapping, total),
        Settings(),
        tuple(_score(item, round(chance.uniform(0.5, 9), 3)) for item in scored),
        tuple(Unscored(item.name, item.kind, item.shape) for item in unscored),
        {},
    )


def _score(item, snr):
    matrices = tuple(MatrixScore(m.label, m.shape, snr, False, None) for m in item.matrices if m.label)
    about = (item.name, item.module_type, item.layer, item.kind, item.shape, item.dtype)
    return ParameterScore(*about, snr, saturated=False, score=None, tensors=item.tensors, matrices=matrices)


def example() -> Scan:
    """A small scan with everything that the text formats show: biases, a saturated score, embedding, head, norms."""
    scores = {
        "mlp.down_proj": (1.5, 12.0, 3.25, 2.0),
        "self_attn.q_proj": (0.5, None, 2.5, 1.0),
    }
    scored = [
        ParameterScore(
            f"model.layers.{layer}.{module}.weight",
            f"model.layers.*.{module}",
            layer,
            "matrix",
            (64, 64),
            "BF16",
            snr,
            saturated=snr is None,
            score=None,
        )
        for module, numbers in scores.items()
        for layer, snr in enumerate(numbers)
    ]
    others = [
        Unscored("lm_head.weight", "head", (72, 64)),
        Unscored("model.embed_tokens.weight", "embedding", (72, 64)),
    ]
    others += [Unscored(f"model.layers.{layer}.self_attn.q_proj.bias", "bias", (64,)) for layer in range(4)]
    others += [Unscored(f"model.layers.{layer}.input_layernorm.weight", "norm", (64,)) for layer in range(4)]
    model = Model("owner/Tiny_Qwen2", "c" * 40, None, "Qwen2ForCausalLM", "5.23.0", "exact", 42_496)
    return Scan(model, Settings(), tuple(scored), tuple(others), {})


def renamed(scan: Scan, old: str, new: str) -> Scan:
    """The scan with other names."""
    return replace(
        scan,
        parameters=tuple(replace(item, name=item.name.replace(old, new)) for item in scan.parameters),
        unscored=tuple(replace(item, name=item.name.replace(old, new)) for item in scan.unscored),
    )


GOLDENS = Path(__file__).parent / "goldens"


def golden(name: str) -> str:
    """The whole text that a format gives for the example."""
    return (GOLDENS / name).read_text(encoding="utf-8")
