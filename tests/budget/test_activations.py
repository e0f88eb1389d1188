"""The estimate of activations, beside what autograd keeps."""

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from spectrum.budget import activation_bytes, dimensions
from spectrum.errors import SpectrumError

CONFIG = {
    "hidden_size": 256, "intermediate_size": 688, "num_hidden_layers": 6, "num_attention_heads": 8,
    "num_key_value_heads": 2, "vocab_size": 512,
}  # fmt: skip


def _kept(sequence_length, micro_batch, *, checkpointing):
    """Bytes that autograd keeps after the forward pass of a Llama in bf16, parameters aside."""
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**CONFIG, use_cache=False, attn_implementation="sdpa")).bfloat16().train()
    layers = list(model.model.layers)
    if checkpointing:
        for layer in layers:
            layer.forward = _recomputed(layer.forward)
    known = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            kept[storage.data_ptr()] = tensor  # keeps it alive, so that no address is given twice
        return tensor

    ids = torch.zeros(micro_batch, sequence_length, dtype=torch.long)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model(input_ids=ids, labels=ids)
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


def _recomputed(forward):
    def call(hidden, **rest):
        return torch.utils.checkpoint.checkpoint(lambda value: forward(value, **rest), hidden, use_reentrant=False)

    return call


@pytest.mark.parametrize(("sequence_length", "micro_batch"), [(256, 1), (128, 4)])
def test_layers_as_autograd_keeps_them(sequence_length, micro_batch):
    """Without checkpointing, within 2 %, where the loss keeps two fp32 copies of the logits."""
    tokens = sequence_length * micro_batch
    estimate = activation_bytes(
        dimensions(CONFIG, "c"), sequence_length=sequence_length, micro_batch=micro_batch, checkpointing=False
    )
    kept = _kept(sequence_length, micro_batch, checkpointing=False)
    assert kept == pytest.approx(estimate - 2 * tokens * 512, rel=0.02)


def test_checkpointing_keeps_the_inputs_of_layers():
    """2sbhL bytes, beside the one layer that is recomputed at a time and the logits."""
    sizes = dimensions(CONFIG, "c")
    whole = activation_bytes(sizes, sequence_length=256, micro_batch=1, checkpointing=False)
    estimate = activation_bytes(sizes, sequence_length=256, micro_batch=1, checkpointing=True)
    logits = 10 * 256 * 512
    layer = (whole - logits) // 6
    assert estimate == 2 * 256 * 256 * 6 + layer + logits
    kept = _kept(256, 1, checkpointing=True)
    assert kept == pytest.approx(estimate - layer - 2 * 256 * 512, rel=0.05)


def test_dimensions():
    """Of a multimodal model the text part; of a mixture the experts that a token passes; defaults as Llama's."""
    mixture = CONFIG | {"num_experts_per_tok": 2, "moe_intermediate_size": 96, "head_dim": 64}
    sizes = dimensions({"text_config": mixture}, "c")
    assert (sizes.intermediate, sizes.experts, sizes.head, sizes.key_value_heads) == (96, 2, 64, 2)
    plain = {key: value for key, value in CONFIG.items() if key != "num_key_value_heads"}
    assert (dimensions(plain, "c").key_value_heads, dimensions(plain, "c").head) == (8, 32)


@pytest.mark.parametrize("value", [None, 0, "x", True, 1.5])
def test_wrong_config(value):
    """The key and what it holds."""
    with pytest.raises(SpectrumError, match="'c' gives hidden_size as .*, expected a positive integer"):
        dimensions(CONFIG | {"hidden_size": value}, "c")
