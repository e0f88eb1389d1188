"""Model state against what torch, transformers and bitsandbytes really allocate, to the byte."""

import warnings
from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from transformers import Adafactor, AutoModelForCausalLM, LlamaConfig, MixtralConfig

from spectrum.budget import Setup, all_names, memory, model_weights, with_lora
from spectrum.checkpoint import open_checkpoint
from spectrum.results import Settings
from spectrum.scanning.plan import plan_scan
from spectrum.scanning.run import run_scan
from spectrum.selection import select_top

# Odd sizes: nothing divides by 256, and some matrices have fewer than 4096 elements.
SIZES = {
    "hidden_size": 66, "intermediate_size": 97, "num_hidden_layers": 3, "num_attention_heads": 2, "head_dim": 34,
    "num_key_value_heads": 1, "vocab_size": 101,
}  # fmt: skip
CONFIGS = {
    "llama": LlamaConfig(**SIZES),
    "tied": LlamaConfig(**SIZES, tie_word_embeddings=True, attention_bias=True),
    # Even ones: torch multiplies grouped experts only where rows of bf16 are aligned to 16 bytes.
    "experts": MixtralConfig(
        **SIZES | {"hidden_size": 72, "intermediate_size": 104}, num_local_experts=4, num_experts_per_tok=2
    ),
}


@pytest.fixture(scope="module", params=CONFIGS)
def model_and_scan(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(CONFIGS[request.param], dtype=torch.bfloat16)
    model.save_pretrained(folder)
    with open_checkpoint(folder) as checkpoint:
        scan, _ = run_scan(checkpoint, plan_scan(checkpoint, Settings()))
    return model, scan


def _trained(built, names):
    """A copy of the model with exactly these parameters trainable."""
    model = deepcopy(built)
    known = dict(model.named_parameters())
    assert set(names) <= set(known)
    for name, parameter in known.items():
        parameter.requires_grad_(name in names)
    return model


def _backward(model):
    ids = torch.arange(40)[None] % 101
    model(input_ids=ids, labels=ids).loss.backward()


def _size(tensors):
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _state(*optimizers):
    """Bytes of the tensors that optimizers keep, one that several entries share counted once."""
    found = {}
    for optimizer in optimizers:
        for entry in optimizer.state.values():
            found |= {value.data_ptr(): value for value in entry.values() if torch.is_tensor(value)}
    return _size(found.values())


def _muon(model, parameters):
    """As the documentation of torch.optim.Muon asks: matrices of hidden layers, and AdamW for the rest."""
    outer = {id(model.get_input_embeddings().weight), id(model.get_output_embeddings().weight)}
    hidden = [parameter for parameter in parameters if parameter.ndim == 2 and id(parameter) not in outer]
    rest = [parameter for parameter in parameters if not any(parameter is other for other in hidden)]
    return [torch.optim.Muon(hidden)] + ([torch.optim.AdamW(rest)] if rest else [])


OPTIMIZERS = {
    "adamw": lambda _model, parameters: [torch.optim.AdamW(parameters)],
    "adamw fused": lambda _model, parameters: [torch.optim.AdamW(parameters, fused=True)],
    "sgd": lambda _model, parameters: [torch.optim.SGD(parameters, lr=0.1)],
    "sgd-momentum": lambda _model, parameters: [torch.optim.SGD(parameters, lr=0.1, momentum=0.9)],
    "adafactor": lambda _model, parameters: [Adafactor(parameters)],
    "muon": _muon,
}


@pytest.mark.parametrize("chosen", [30.0, "full"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_bf16(model_and_scan, optimizer, chosen):
    """Weights, gradients and state after a real step in bf16, and the numbers of weights."""
    built, scan = model_and_scan
    names = all_names(scan) if chosen == "full" else select_top(scan, chosen).names
    model = _trained(built, names)
    _backward(model)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizers = OPTIMIZERS[optimizer](model, parameters)
    for each in optimizers:
        each.step()
    found = memory(model_weights(scan, names), Setup(optimizer.partition(" ")[0]))
    assert found.trainable == sum(parameter.numel() for parameter in parameters)
    assert found.frozen == model.num_parameters() - found.trainable
    assert found.weights == _size(model.parameters())
    assert found.gradients == _size(parameter.grad for parameter in model.parameters() if parameter.grad is not None)
    assert (found.master, found.state) == (0, _state(*optimizers))


@pytest.mark.parametrize("optimizer", ["adamw", "sgd-momentum", "adafactor", "muon"])
def test_fp32_master(model_and_scan, optimizer):
    """The optimizer steps on fp32 copies of the trained weights alone."""
    built, scan = model_and_scan
    names = select_top(scan, 40, norms="train").names
    model = _trained(built, names)
    _backward(model)
    trained = {id(parameter): parameter for parameter in model.parameters() if parameter.requires_grad}
    copies = {key: torch.nn.Parameter(parameter.detach().float()) for key, parameter in trained.items()}
    for key, copy in copies.items():
        copy.grad = trained[key].grad.float()
    optimizers = OPTIMIZERS[optimizer](_Outer(model, copies), list(copies.values()))
    for each in optimizers:
        each.step()
    found = memory(model_weights(scan, names), Setup(optimizer, "fp32-master"))
    assert found.weights == _size(model.parameters())
    assert found.master == _size(copies.values())
    assert found.gradients == _size(parameter.grad for parameter in trained.values())
    assert found.state == _state(*optimizers)


class _Outer:
    """Asked for the embedding and the head, it gives modules that hold their copies."""

    def __init__(self, model, copies):
        self.model, self.copies = model, copies

    def get_input_embeddings(self):
        return self._copy(self.model.get_input_embeddings())

    def get_output_embeddings(self):
        return self._copy(self.model.get_output_embeddings())

    def _copy(self, module):
        holder = torch.nn.Module()
        holder.weight = self.copies[id(module.weight)]
        return holder


@pytest.mark.parametrize("chosen", [25.0, "full"])
def test_8bit_adamw(bitsandbytes, model_and_scan, chosen):
    """bitsandbytes' own optimizer, its embeddings registered for 32 bits as transformers' Trainer does."""
    built, scan = model_and_scan
    names = all_names(scan) if chosen == "full" else select_top(scan, chosen).names
    model = _trained(built, names)
    _backward(model)
    optimizer = bitsandbytes.optim.AdamW8bit([item for item in model.parameters() if item.requires_grad])
    manager = bitsandbytes.optim.GlobalOptimManager.get_instance()
    manager.register_module_override(model.get_input_embeddings(), "weight", {"optim_bits": 32})
    optimizer.step()
    for name in ("adamw-8bit", "paged-adamw-8bit"):
        found = memory(model_weights(scan, names), Setup(name))
        assert found.state == _state(optimizer)


def test_8bit_adamw_written_out(model_and_scan):
    """Its layout: two states of a byte each and fp32 maxima per 256, or fp32 under 4096 elements and in embeddings."""
    built, scan = model_and_scan
    names = all_names(scan)
    expected = 2 * 256 * 4
    for parameter in built.parameters():
        n = parameter.numel()
        blocks = len(range(0, n, 256))
        fp32 = n < 4096 or parameter is built.get_input_embeddings().weight
        expected += 2 * 4 * n if fp32 else 2 * (n + 4 * blocks)
    assert memory(model_weights(scan, names), Setup("adamw-8bit")).state == expected


@pytest.mark.parametrize("optimizer", ["adamw", "adafactor"])
def test_lora(peft, model_and_scan, optimizer):
    """PEFT's adapters on all linear layers but experts: number, dtype, gradients and state."""
    built, scan = model_and_scan
    base = deepcopy(built)
    # Of stacked experts PEFT adapts those of some model types; they are not counted.
    targets = [f"{letter}_proj" for letter in "qkvo"] if built.config.model_type == "mixtral" else "all-linear"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = peft.get_peft_model(base, peft.LoraConfig(r=3, target_modules=targets))
    _backward(model)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    (stepping,) = OPTIMIZERS[optimizer](model, parameters)
    stepping.step()
    for precision in ("bf16", "fp32-master"):
        found = memory(with_lora(model_weights(scan, ()), 3), Setup(optimizer, precision))
        assert found.trainable == sum(parameter.numel() for parameter in parameters)
        assert found.weights == _size(model.parameters())
        assert found.gradients == _size(parameter.grad for parameter in parameters)
        assert (found.master, found.state) == (0, _state(stepping))


def test_experts_of_transformers_4(model_and_scan):
    """A module for each expert is a tensor for each: more steps, more small tensors, the same weights."""
    _, scan = model_and_scan
    stacked = next((item for item in scan.parameters if item.kind == "experts"), None)
    if stacked is None:
        assert all("experts" not in name for name in all_names(scan))
        return
    apart = replace(scan, parameters=tuple(
        replace(item, name=item.name.replace("experts.", "experts.*.") + ".weight") if item.kind == "experts" else item
        for item in scan.parameters
    ))  # fmt: skip
    one, many = (memory(model_weights(each, all_names(each)), Setup("adamw")) for each in (scan, apart))
    tensors = sum(item.kind == "experts" for item in scan.parameters)
    assert many.state - one.state == 4 * tensors * (4 - 1)
    assert (many.trainable, many.weights) == (one.trainable, one.weights)
