"""A scan of Llama-3-8B's shapes, planned from headers alone."""

import json

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from spectrum.checkpoint import open_checkpoint
from spectrum.results import ParameterScore, Scan, Settings, write_scan
from spectrum.scanning.plan import plan_scan

LLAMA_3_8B = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 4096, "intermediate_size": 14336,
    "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256,
    "tie_word_embeddings": False,
}  # fmt: skip


@pytest.fixture(scope="session")
def llama_3_8b(tmp_path_factory):
    """Folder with config.json, and Meta-Llama-3-8B.json: a scan with the model's real shapes and made-up scores.

    Which layers are selected does not change the bytes: every layer has the same shapes. The checkpoint is a real
    header before 16 GB of nothing, which take no room on disk.
    """
    folder = tmp_path_factory.mktemp("published") / "Meta-Llama-3-8B"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(LLAMA_3_8B))
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(LlamaConfig(**LLAMA_3_8B))
    header, end = {}, 0
    for name, tensor in model.state_dict().items():
        start, end = end, end + 2 * tensor.numel()
        header[name] = {"dtype": "BF16", "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)
    with open_checkpoint(folder) as checkpoint:
        plan = plan_scan(checkpoint, Settings())
    (folder / "model.safetensors").unlink()
    scores = tuple(
        ParameterScore(
            item.name, item.module_type, item.layer, item.kind, item.shape, item.dtype, float(item.layer or 0) + 1,
            saturated=False, score=None, tensors=item.tensors,
        )
        for item in plan.scored
    )  # fmt: skip
    write_scan(Scan(plan.model, plan.settings, scores, plan.unscored, plan.skipped), folder / "Meta-Llama-3-8B.json")
    return folder
