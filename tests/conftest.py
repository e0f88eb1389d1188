"""Tolerances and tiny real checkpoints that several tests share."""

import io
import json
import os
import shutil
from collections.abc import Callable, Mapping
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hub_client import hub  # noqa: F401  # the fixture
from safetensors.torch import save_file

pytest_plugins = ["outside", "forked"]


def pytest_configure(config):
    """One thread for each of several workers (pytest -n 2), and for the processes that their tests start."""
    if config.getoption("numprocesses", None):
        os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(autouse=True)
def _own_folder(tmp_path, monkeypatch):
    """Every test runs in a folder of its own and keeps its hands off the user's cache."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


Shards = Mapping[str, Mapping[str, torch.Tensor]]


def write_checkpoint(folder: Path, shards: Shards, *, config: Mapping[str, Any] | None = None) -> Path:
    """Write a real checkpoint: one file for one shard, an index for several."""
    folder.mkdir(parents=True, exist_ok=True)
    if len(shards) == 1:
        save_file(dict(next(iter(shards.values()))), folder / "model.safetensors")
    else:
        for name, tensors in shards.items():
            save_file(dict(tensors), folder / name)
        weight_map = {key: name for name, tensors in shards.items() for key in tensors}
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config))
    return folder


def gaussian(rows: int, cols: int, *, seed: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """A matrix of unit noise."""
    return torch.from_numpy(np.random.default_rng(seed).standard_normal((rows, cols))).to(dtype)


def planted(rows: int, cols: int, spectrum: np.ndarray, *, seed: int) -> np.ndarray:
    """A float64 matrix with exactly these singular values."""
    random = np.random.default_rng(seed)
    p = min(rows, cols)
    left = np.linalg.qr(random.standard_normal((rows, p)))[0]
    right = np.linalg.qr(random.standard_normal((cols, p)))[0]
    return (left * spectrum) @ right.T


HIDDEN, INTERMEDIATE, VOCABULARY = 64, 96, 80
LLAMA_SHAPES = {
    "self_attn.q_proj": (HIDDEN, HIDDEN),
    "self_attn.k_proj": (32, HIDDEN),
    "self_attn.v_proj": (32, HIDDEN),
    "self_attn.o_proj": (HIDDEN, HIDDEN),
    "mlp.gate_proj": (INTERMEDIATE, HIDDEN),
    "mlp.up_proj": (INTERMEDIATE, HIDDEN),
    "mlp.down_proj": (HIDDEN, INTERMEDIATE),
}


def llama_config(layers: int) -> dict[str, Any]:
    """The config.json that belongs to `tiny_llama`."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": HIDDEN,
        "intermediate_size": INTERMEDIATE,
        "num_hidden_layers": layers,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "vocab_size": VOCABULARY,
        "tie_word_embeddings": False,
    }


def tiny_llama(*, layers: int = 12, seed: int = 0) -> dict[str, torch.Tensor]:
    """The tensors of a Llama whose smallest matrices are 32 x 64, in bfloat16."""
    tensors = {
        "model.embed_tokens.weight": gaussian(VOCABULARY, HIDDEN, seed=seed + 1_000_000, dtype=torch.bfloat16),
        "lm_head.weight": gaussian(VOCABULARY, HIDDEN, seed=seed + 1_000_001, dtype=torch.bfloat16),
        "model.norm.weight": torch.ones(HIDDEN, dtype=torch.bfloat16),
    }
    for layer in range(layers):
        for number, (module, shape) in enumerate(LLAMA_SHAPES.items()):
            weight = gaussian(*shape, seed=seed + 10 * layer + number, dtype=torch.bfloat16)
            weight[0] += (layer * (5 + 2 * (number % 2)) % layers) / 2
            tensors[f"model.layers.{layer}.{module}.weight"] = weight
        for module in ("input_layernorm", "post_attention_layernorm"):
            tensors[f"model.layers.{layer}.{module}.weight"] = torch.ones(HIDDEN, dtype=torch.bfloat16)
    return tensors


@pytest.fixture(scope="session")
def llama_original(tmp_path_factory) -> Path:
    """The one that `llama` copies."""
    tensors = tiny_llama()
    names = sorted(tensors)
    halves = {"a.safetensors": names[: len(names) // 2], "b.safetensors": names[len(names) // 2 :]}
    shards = {shard: {name: tensors[name] for name in members} for shard, members in halves.items()}
    return write_checkpoint(tmp_path_factory.mktemp("original") / "tiny-llama", shards, config=llama_config(12))


@pytest.fixture(scope="session")
def llama_results(llama_original) -> Path:
    """Folder of the results of one scan of the tiny Llama."""
    from spectrum.cli.commands import app

    folder = llama_original.parent / "snr_results"
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()), pytest.raises(SystemExit) as left:
        app(["scan", "--model", str(llama_original), "--out", str(folder)], prog_name="spectrum")
    assert not left.value.code
    return folder


@pytest.fixture
def llama(tmp_path, llama_original) -> Path:
    """A tiny sharded Llama on disk."""
    return shutil.copytree(llama_original, tmp_path / "tiny-llama")


@pytest.fixture
def scanned(llama, llama_results, tmp_path) -> Path:
    """The tiny Llama with what `scan` wrote of it, in snr_results."""
    shutil.copytree(llama_results, tmp_path / "snr_results")
    return llama


@pytest.fixture
def run(capsys) -> Callable[..., tuple[int, str, str]]:
    """Run a command line in this process: (exit code, stdout, stderr)."""
    from spectrum.cli.commands import app

    def _run(*words: object) -> tuple[int, str, str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            app([str(word) for word in words], prog_name="spectrum")
        out, err = capsys.readouterr()
        code = left.value.code
        return (code if isinstance(code, int) else 0), out, err

    return _run


def reference_score(matrix: np.ndarray) -> tuple[float, float]:
    """(SNR, threshold) by the formula of the paper, from a float64 SVD, written out."""
    sigma = np.linalg.svd(matrix.astype(np.float64), compute_uv=False)
    scale = (np.percentile(sigma, 75) - np.percentile(sigma, 25)) / 1.349
    threshold = scale * (1 + np.sqrt(min(matrix.shape) / max(matrix.shape)))
    return sigma[sigma > threshold].sum() / sigma[sigma <= threshold].sum() / sigma.max(), threshold
