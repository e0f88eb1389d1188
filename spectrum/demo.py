"""The embedded demo: a small checkpoint to try a scan on without a download."""

import json
import os
import secrets
import shutil
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from spectrum.errors import SpectrumError

NAME = "spectrum-demo"
LAYERS, HIDDEN, INTERMEDIATE, KEY_VALUE, VOCABULARY = 24, 256, 704, 128, 2048
SHARD_LAYERS = 8
_VERSION = 1  # in the folder's name, so that a demo with other weights is made anew


def demo_checkpoint() -> Path:
    """Folder of the demo checkpoint, made on first use: a Llama of 24 layers in 4 shards, 38 MB, always the same.

    Raises:
        SpectrumError: the user's cache folder cannot be written to.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "spectrum" / f"demo-{_VERSION}"
    folder = cache / NAME
    if folder.exists():
        return folder
    temporary = cache / f".{secrets.token_hex(4)}.tmp"
    try:
        temporary.mkdir(parents=True)
        try:
            _write(temporary)
            temporary.rename(folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        if folder.exists():  # another process made it meanwhile
            return folder
        raise SpectrumError(
            f"The demo cannot be written to '{cache}': {error.strerror}. Set XDG_CACHE_HOME to a folder with room."
        ) from error
    return folder


def _write(folder: Path) -> None:
    shards = [_outer()] + [_layers(start) for start in range(0, LAYERS, SHARD_LAYERS)]
    names = [f"model-{number:05d}-of-{len(shards):05d}.safetensors" for number in range(1, len(shards) + 1)]
    for name, tensors in zip(names, shards, strict=True):
        save_file(tensors, folder / name, metadata={"format": "pt"})
    weight_map = {key: name for name, tensors in zip(names, shards, strict=True) for key in tensors}
    size = sum(tensor.numel() * 2 for tensors in shards for tensor in tensors.values())
    index = {"metadata": {"total_size": size}, "weight_map": dict(sorted(weight_map.items()))}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=1))
    (folder / "config.json").write_text(json.dumps(_config(), indent=1))


def _config() -> dict[str, object]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": HIDDEN,
        "intermediate_size": INTERMEDIATE,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": HIDDEN // 8,
        "vocab_size": VOCABULARY,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
    }


def _outer() -> dict[str, torch.Tensor]:
    return {
        "model.embed_tokens.weight": _weight(VOCABULARY, HIDDEN, 0, 0),
        "lm_head.weight": _weight(VOCABULARY, HIDDEN, 0, 1),
        "model.norm.weight": torch.ones(HIDDEN, dtype=torch.bfloat16),
    }


def _layers(start: int) -> dict[str, torch.Tensor]:
    shapes = {
        "self_attn.q_proj": (HIDDEN, HIDDEN),
        "self_attn.k_proj": (KEY_VALUE, HIDDEN),
        "self_attn.v_proj": (KEY_VALUE, HIDDEN),
        "self_attn.o_proj": (HIDDEN, HIDDEN),
        "mlp.gate_proj": (INTERMEDIATE, HIDDEN),
        "mlp.up_proj": (INTERMEDIATE, HIDDEN),
        "mlp.down_proj": (HIDDEN, INTERMEDIATE),
    }
    tensors = {}
    for layer in range(start, start + SHARD_LAYERS):
        for number, (module, (rows, cols)) in enumerate(shapes.items(), start=2):
            tensors[f"model.layers.{layer}.{module}.weight"] = _weight(rows, cols, layer, number)
        for module in ("input_layernorm", "post_attention_layernorm"):
            tensors[f"model.layers.{layer}.{module}.weight"] = torch.ones(HIDDEN, dtype=torch.bfloat16)
    return tensors


def _weight(rows: int, cols: int, layer: int, number: int) -> torch.Tensor:
    """Noise with planted directions, whose strength varies with depth, differently for each projection."""
    random = np.random.default_rng([_VERSION, layer, number])
    strength = 1.5 + 1.2 * np.sin(2 * np.pi * (layer / LAYERS + number / 9)) + 0.2 * random.standard_normal()
    directions = 12
    left = np.linalg.qr(random.standard_normal((rows, directions)))[0]
    right = np.linalg.qr(random.standard_normal((cols, directions)))[0]
    sizes = (1 + abs(strength)) * (np.sqrt(rows) + np.sqrt(cols)) / np.sqrt(1 + np.arange(directions))
    matrix = random.standard_normal((rows, cols)) + (left * sizes) @ right.T
    return torch.from_numpy(0.02 * matrix).to(torch.bfloat16)
