"""Runtime names, shapes and values against the models that transformers itself loads."""

import dataclasses
import importlib
import json
import re
import shutil
import subprocess
import sys
import tracemalloc
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from naming.architectures import (
    ARCHITECTURES,
    LOCAL,
    TEXT,
    Architecture,
    Checkpoint,
    available,
    load,
    read,
    save,
    silenced,
    tiny_model,
)
from safetensors.torch import load_file, save_file

from spectrum.errors import CheckpointError
from spectrum.naming.parameters import natural_key
from spectrum.naming.runtime import Naming, name_parameters

BY_TYPE = {str(architecture): architecture for architecture in ARCHITECTURES}


def name(checkpoint: Checkpoint, **options) -> Naming:
    return name_parameters(checkpoint.tensors, checkpoint.config, same=checkpoint.same, **options)


def name_as(architecture: Architecture, checkpoint: Checkpoint) -> Naming:
    return name(checkpoint, model_class=architecture.model_class if architecture.asked else None)


def make(tmp_path, model_type: str) -> Checkpoint:
    architecture = BY_TYPE[model_type]
    if not architecture.exists:
        pytest.skip(f"transformers {transformers.__version__} has no {model_type}")
    return save(tiny_model(architecture), tmp_path / "model")


def rewrite(checkpoint: Checkpoint, change, config=None) -> Checkpoint:
    """The same checkpoint with its tensors changed: `change` takes and returns {name: torch tensor}."""
    tensors = load_file(checkpoint.folder / "model.safetensors")
    save_file({k: v.contiguous() for k, v in change(tensors).items()}, checkpoint.folder / "model.safetensors")
    if config:
        (checkpoint.folder / "config.json").write_text(json.dumps(checkpoint.config | config))
    return read(checkpoint.folder)


def expanded(naming: Naming, names) -> dict[str, tuple[int, ...]]:
    """Shapes by name, a group of experts as the parameters it stands for."""
    shapes = {}
    for parameter in naming.parameters:
        members = [n for n in names if re.fullmatch(pattern(parameter.name), n)]
        if "*" not in parameter.name:
            shapes[parameter.name] = parameter.shape
            continue
        assert len(members) == parameter.shape[0], parameter.name
        shapes |= dict.fromkeys(members, parameter.shape[1:])
    return shapes


def pattern(name: str) -> str:
    return name.replace(".", r"\.").replace("*", "[0-9]+")


def by_name(naming: Naming):
    return {parameter.name: parameter for parameter in naming.parameters}


# ---------------------------------------------------------------------------------------------------------------------
# Every architecture
# ---------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=ARCHITECTURES, ids=str)
def case(request, tmp_path_factory):
    """An architecture, its checkpoint, its naming and the model as it is loaded."""
    architecture = request.param
    if not architecture.exists:
        pytest.skip(f"transformers {transformers.__version__} has no {architecture.model_class}")
    folder = tmp_path_factory.mktemp(str(architecture))
    checkpoint = save(tiny_model(architecture), folder)
    naming = name_as(architecture, checkpoint)
    yield architecture, checkpoint, naming, load(checkpoint, architecture.model_class)
    shutil.rmtree(folder)


def test_names_and_shapes_are_those_of_the_loaded_model(case):
    """Mapped names and shapes equal named_parameters() of the model that from_pretrained makes."""
    architecture, _, naming, model = case
    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    assert expanded(naming, shapes) == shapes
    assert naming.name_mapping == "exact"
    assert (naming.model_class, naming.transformers) == (architecture.model_class, transformers.__version__)
    assert [p.name for p in naming.parameters] == sorted((p.name for p in naming.parameters), key=natural_key)


def test_every_tensor_is_used_or_skipped_for_a_reason(case):
    """No tensor of the checkpoint is lost, and none is both used and skipped."""
    _, checkpoint, naming, _ = case
    used = [tensor for parameter in naming.parameters for tensor in parameter.tensors]
    assert set(used) | set(naming.skipped) == set(checkpoint.tensors)
    assert not set(used) & set(naming.skipped)
    assert all(naming.skipped.values())


def test_values_are_those_of_the_loaded_model(case):
    """The numbers of every scored matrix, read from the checkpoint, are the loaded parameter's, up to a transpose."""
    _, checkpoint, naming, model = case
    weights = {name: parameter.detach().double().numpy() for name, parameter in model.named_parameters()}
    scored = [p for p in naming.parameters if p.kind in ("matrix", "experts", "router", "embedding", "head")]
    assert scored
    for parameter in scored:
        assert parameter.matrices, parameter.name
        expected = reference_matrices(parameter, weights, model)
        assert [matrix.label for matrix in parameter.matrices] == list(expected), parameter.name
        for matrix in parameter.matrices:
            values = checkpoint.values(matrix)
            assert values.shape == matrix.shape, (parameter.name, matrix)
            assert same_up_to_transpose(values, expected[matrix.label]), (parameter.name, matrix)


def same_up_to_transpose(values, expected) -> bool:
    """A rotary permutation of the rows is allowed as well: then only the singular values are the same."""
    if any(np.array_equal(values, turned) for turned in (expected, expected.T)):
        return True
    return sorted(values.shape) == sorted(expected.shape) and np.allclose(
        np.linalg.svd(values, compute_uv=False), np.linalg.svd(expected, compute_uv=False), rtol=1e-12
    )


def reference_matrices(parameter, weights, model):
    """What the loaded model holds, cut by what its own classes do in their forward pass."""
    if parameter.kind != "experts":
        return {"": weights[parameter.name]}
    if "*" in parameter.name:
        members = sorted((n for n in weights if re.fullmatch(pattern(parameter.name), n)), key=natural_key)
        label = PROJECTIONS.get(members[0].split(".")[-2], members[0].split(".")[-2])
        return {f"{number}.{label}": weights[name] for number, name in enumerate(members)}
    path, _, attribute = parameter.name.removesuffix(".weight").rpartition(".")
    owner = model.get_submodule(path if parameter.name.endswith(attribute) else f"{path}.{attribute}")
    stack = weights[parameter.name]
    if stack.ndim == 2:  # dbrx
        stack = stack.reshape(12, -1, stack.shape[-1])
    return {
        label: array for number, array in enumerate(stack) for label, array in halves(number, array, attribute, owner)
    }


PROJECTIONS = {
    "w1": "gate_proj",
    "v1": "up_proj",
    "w3": "up_proj",
    "w2": "down_proj",
    "output_linear": "down_proj",
    "fc2": "down_proj",
}


# Classes that hold (experts, in, out) and, in some version of transformers, do not say so.
TRANSPOSED = {"GptOssExperts", "Llama4TextExperts"}


def halves(number, array, attribute, owner):
    """The projections of one expert, by the layout its class documents."""
    if attribute == "gate_up_proj":
        transposed = getattr(owner, "is_transposed", type(owner).__name__ in TRANSPOSED)
        array = array.T if transposed else array
        concatenated = getattr(owner, "is_concatenated", type(owner).__name__ != "GptOssExperts")
        gate, up = np.split(array, 2) if concatenated else (array[0::2], array[1::2])
        return [(f"{number}.gate_proj", gate), (f"{number}.up_proj", up)]
    if attribute == "fc1":  # Aria's before 5.20: (experts, in, out), and the first half of out is activated
        gate, up = np.split(array, 2, axis=1)
        return [(f"{number}.gate_proj", gate), (f"{number}.up_proj", up)]
    if attribute == "input_linear" and array.shape[0] == 80:  # gate and up; the experts of JetMoe's attention have one
        gate, up = np.split(array, 2)
        return [(f"{number}.gate_proj", gate), (f"{number}.up_proj", up)]
    if attribute == "output_linear" and 40 not in array.shape:
        return [(f"{number}.output_linear", array)]
    return [(f"{number}.{PROJECTIONS.get(attribute, attribute)}", array)]


def test_at_least_sixty_architectures_run():
    """The table is not hollowed out by a version that lacks what it names."""
    assert len(available()) >= 60
    assert sum(not architecture.dense for architecture in available()) >= 25


# ---------------------------------------------------------------------------------------------------------------------
# Kinds
# ---------------------------------------------------------------------------------------------------------------------

KINDS = {
    "gpt2": {
        "transformer.wpe.weight": "position",
        "transformer.wte.weight": "embedding",
        "transformer.h.0.attn.c_attn.weight": "matrix",
        "transformer.h.0.attn.c_attn.bias": "bias",
        "transformer.h.0.ln_1.bias": "norm",
    },
    "llama": {
        "lm_head.weight": "head",
        "model.embed_tokens.weight": "embedding",
        "model.norm.weight": "norm",
        "model.layers.0.mlp.gate_proj.weight": "matrix",
    },
    "mamba": {
        "backbone.layers.0.mixer.A_log": "other",
        "backbone.layers.0.mixer.conv1d.weight": "convolution",
        "backbone.layers.0.mixer.D": "vector",
        "backbone.layers.0.mixer.in_proj.weight": "matrix",
    },
    "gpt_oss": {
        "model.layers.0.mlp.experts.gate_up_proj": "experts",
        "model.layers.0.mlp.router.weight": "router",
        "model.layers.0.mlp.experts.gate_up_proj_bias": "bias",
        "model.layers.0.self_attn.sinks": "vector",
    },
    "jetmoe": {
        "layers.0.mlp.router.layer.weight": "router",
        "layers.0.mlp.input_linear.weight": "experts",
        "model.layers.0.self_attention.experts.router.layer.weight": "router",
        "model.layers.0.self_attention.kv_proj.weight": "matrix",
    },
    "dbrx": {
        "transformer.blocks.0.ffn.experts.mlp.w1": "experts",
        "transformer.blocks.0.ffn.router.layer.weight": "router",
    },
    "qwen2_moe": {
        "model.layers.0.mlp.shared_expert.gate_proj.weight": "matrix",
        "model.layers.0.mlp.gate.weight": "router",
        "model.layers.0.mlp.shared_expert_gate.weight": "router",
    },
    "hunyuan_v1_moe": {"model.layers.0.mlp.gate.wg.weight": "router"},
    "recurrent_gemma": {
        "model.layers.0.temporal_block.rg_lru.input_gate_weight": "other",
        "model.layers.0.temporal_block.rg_lru.input_gate_bias": "bias",
    },
    "t5": {
        "shared.weight": "embedding",
        "encoder.block.0.layer.0.SelfAttention.q.weight": "matrix",
        "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight": "position",
    },
    "wav2vec2": {"wav2vec2.encoder.pos_conv_embed.conv.parametrizations.weight.original1": "convolution"},
    "rwkv": {"rwkv.blocks.0.attention.time_mix_key": "other"},
    "siglip_vision_model": {
        "embeddings.patch_embedding.weight": "convolution",
        "embeddings.position_embedding.weight": "position",
        "head.probe": "other",
        "head.attention.in_proj_weight": "matrix",
    },
    "llama4": {"positional_embedding_vlm": "position"},
}


@pytest.mark.parametrize("model_type", KINDS)
def test_kinds_come_from_the_owning_module(tmp_path, model_type):
    """Parameters that look like matrices and are none, and those that are."""
    checkpoint = make(tmp_path, model_type)
    kinds = {parameter.name: parameter.kind for parameter in name(checkpoint).parameters}
    for suffix, expected in KINDS[model_type].items():
        found = {kind for name, kind in kinds.items() if name.endswith(suffix)}
        assert found == {expected}, suffix


# ---------------------------------------------------------------------------------------------------------------------
# Experts
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model_type", [str(a) for a in available() if not a.dense])
def test_a_fused_copy_has_the_same_matrices(tmp_path, model_type):
    """Stored one tensor per expert or as the model holds them, the experts are the same matrices under one label."""
    architecture = BY_TYPE[model_type]
    model = tiny_model(architecture)
    apart = save(model, tmp_path / "apart")
    shutil.copytree(apart.folder, tmp_path / "fused")
    names = {name for name, _ in model.named_parameters()}
    state = {name: tensor.contiguous() for name, tensor in model.state_dict().items() if name in names}
    fused = rewrite(Checkpoint(tmp_path / "fused", apart.tensors, apart.config), lambda _: state)
    one, other = by_name(name_as(architecture, apart)), by_name(name_as(architecture, fused))
    experts = [n for n in one if one[n].kind == "experts"]
    assert experts
    assert one.keys() == other.keys()
    for n in experts:
        assert [m.label for m in one[n].matrices] == [m.label for m in other[n].matrices]
        for first, second in zip(one[n].matrices, other[n].matrices, strict=True):
            assert same_up_to_transpose(apart.values(first), fused.values(second))


def test_experts_stand_in_natural_order(tmp_path):
    """Expert 2 stands before expert 10, and a label names the tensor of its own expert."""
    checkpoint = make(tmp_path, "mixtral")
    naming = by_name(name(checkpoint))
    down = naming["model.layers.1.mlp.experts.down_proj"]
    gate_up = naming["model.layers.1.mlp.experts.gate_up_proj"]
    assert [m.label for m in gate_up.matrices] == [
        f"{e}.{projection}" for e in range(12) for projection in ("gate_proj", "up_proj")
    ]
    assert [m.label for m in down.matrices] == [f"{expert}.down_proj" for expert in range(12)]
    assert [m.tensor for m in down.matrices] == [
        f"model.layers.1.block_sparse_moe.experts.{expert}.w2.weight" for expert in range(12)
    ]


@pytest.mark.parametrize(
    "lost, text",
    [
        (
            r"layers\.1\..*experts\.5\.",
            "put together from 12 experts, and the checkpoint lacks 'experts.*.w1.weight' of expert 5",
        ),
        (r"layers\.1\..*experts\.5\.w3", "the checkpoint lacks 'experts.*.w3.weight' of expert 5"),
        (
            r"layers\.1\..*experts\.11\.",
            "needs 12 experts, and the checkpoint holds 11, from 'model.layers.1.block_sparse_moe.experts.0.w1.weight'",
        ),
        (
            r"layers\.1\..*w2",
            "lacks 1 of the 21 parameters of MixtralForCausalLM: 'model.layers.1.mlp.experts.down_proj'",
        ),
    ],
)
def test_missing_experts_are_named(tmp_path, lost, text):
    """An expert or a projection of one that is not there is an error that says which."""
    checkpoint = make(tmp_path, "mixtral")
    checkpoint = rewrite(checkpoint, lambda tensors: {k: v for k, v in tensors.items() if not re.search(lost, k)})
    with pytest.raises(CheckpointError, match=re.escape(text)):
        name(checkpoint)


@pytest.mark.parametrize(
    "number, text",
    [
        (
            "999999999",
            "is put together from 1000000000 experts, and the checkpoint lacks 'experts.*.w1.weight' of expert",
        ),
        ("9" * 18, f"is put together from {10**18} experts, and the checkpoint lacks 'experts.*.w1.weight' of expert"),
        ("9" * 19, "has a number of more than 18 digits in its name"),
        ("9" * 5000, "has a number of more than 18 digits in its name"),
    ],
    ids=lambda text: str(text)[:12],
)
def test_a_hostile_expert_number(tmp_path, number, text):
    """A number that claims a billion experts is an error of one line, and no set of that size is made."""
    checkpoint = make(tmp_path, "mixtral")
    name(checkpoint)  # imports the model class
    names = {n: n.replace("experts.11.", f"experts.{number}.") for n in checkpoint.tensors}
    tensors = {names[n]: dataclasses.replace(tensor, name=names[n]) for n, tensor in checkpoint.tensors.items()}
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError, match=re.escape(text)) as error:
            name_parameters(tensors, checkpoint.config, same=checkpoint.same)
        assert tracemalloc.get_traced_memory()[1] < 20 * 2**20
    finally:
        tracemalloc.stop()
    assert len(str(error.value)) < 400


def test_one_expert_alone(tmp_path):
    """A layer of one expert is not taken to lack its number 0."""
    with silenced():
        config = transformers.MixtralConfig(**(LOCAL | {"num_local_experts": 1, "num_experts_per_tok": 1}))
        checkpoint = save(transformers.MixtralForCausalLM(config), tmp_path)
    down = by_name(name(checkpoint))["model.layers.0.mlp.experts.down_proj"]
    assert [m.label for m in down.matrices] == ["0.down_proj"]


def test_pieces_make_one_matrix(tmp_path):
    """Gate and up projection of a dense layer, stored apart, are one matrix of two pieces where the model has one."""
    checkpoint = make(tmp_path, "minimax_m3_vl")
    joined = [m for p in name(checkpoint).parameters for m in p.matrices if m.pieces]
    assert joined
    assert {m.axis for m in joined} == {0}
    for matrix in joined:
        assert [piece.shape[1] for piece in matrix.pieces] == [matrix.shape[1]] * 2
        assert sum(piece.shape[0] for piece in matrix.pieces) == matrix.shape[0]


def test_an_unknown_operation_leaves_no_matrices(tmp_path):
    """If it is not known which numbers go where, nothing is scored, and a note says why."""
    from transformers.core_model_loading import Concatenate

    checkpoint = make(tmp_path, "mixtral")
    Concatenate.__name__ = "Shuffle"  # operations are recognised by it
    try:
        naming = name(checkpoint)
    finally:
        Concatenate.__name__ = "Concatenate"
    assert by_name(naming)["model.layers.0.mlp.experts.gate_up_proj"].matrices == ()
    (note,) = naming.notes
    assert note == (
        "'model.layers.0.mlp.experts.gate_up_proj' and 1 more cannot be scored: spectrum does not know the operation "
        "Shuffle of transformers."
    )


# ---------------------------------------------------------------------------------------------------------------------
# Ties
# ---------------------------------------------------------------------------------------------------------------------

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"


@pytest.mark.parametrize(
    "stored, trained, skipped",
    [
        ("embedding", {EMBEDDING: EMBEDDING}, {}),
        ("head", {EMBEDDING: HEAD}, {}),
        ("equal", {EMBEDDING: EMBEDDING}, {HEAD: f"alias of {EMBEDDING}"}),
        ("different", {EMBEDDING: EMBEDDING, HEAD: HEAD}, {}),
    ],
)
def test_ties(tmp_path, stored, trained, skipped):
    """Tied parameters stored once or twice are what the loaded model makes of them."""
    with silenced():
        torch.manual_seed(3)
        config = transformers.LlamaConfig(**TEXT, tie_word_embeddings=True)
        checkpoint = save(transformers.LlamaForCausalLM(config), tmp_path)

    def change(tensors):
        embedding = tensors.pop(EMBEDDING)
        tensors |= {EMBEDDING: embedding} if stored != "head" else {}
        second = embedding + 1 if stored == "different" else embedding.clone()
        return tensors | ({HEAD: second} if stored != "embedding" else {})

    checkpoint = rewrite(checkpoint, change)
    naming = name(checkpoint)
    parameters = by_name(naming)
    assert {n: parameters[n].tensors[0] for n in (EMBEDDING, HEAD) if n in parameters} == trained
    assert naming.skipped == skipped
    assert any("different values" in note for note in naming.notes) == (stored == "different")
    loaded = dict(load(checkpoint, "LlamaForCausalLM").named_parameters())
    assert parameters.keys() == loaded.keys()
    assert {n: parameters[n].kind for n in trained} == {n: "head" if n == HEAD else "embedding" for n in trained}
    for n, tensor in trained.items():
        assert np.array_equal(checkpoint.array(tensor), loaded[n].detach().double().numpy())


def test_nothing_of_a_tied_pair_stored(tmp_path):
    """Where neither is stored the parameter is missing, under the name the model trains it by."""
    checkpoint = make(tmp_path, "gemma2")
    checkpoint = rewrite(checkpoint, lambda tensors: {k: v for k, v in tensors.items() if k != EMBEDDING})
    with pytest.raises(
        CheckpointError, match=re.escape(f"lacks 1 of the 24 parameters of Gemma2ForCausalLM: '{EMBEDDING}'")
    ):
        name(checkpoint)


def test_equality_is_asked_only_of_tied_tensors(tmp_path):
    """Comparing bytes costs reading: it is not done for a checkpoint that stores each tensor once."""
    checkpoint = make(tmp_path, "llama")

    def same(first, second):
        raise AssertionError((first, second))

    name_parameters(checkpoint.tensors, checkpoint.config, same=same)


# ---------------------------------------------------------------------------------------------------------------------
# What does not fit
# ---------------------------------------------------------------------------------------------------------------------


def test_prediction_layers_and_buffers_are_skipped_with_a_reason(tmp_path):
    """Layers for predicting several tokens and stored buffers are no parameters, whatever their share."""
    checkpoint = make(tmp_path, "deepseek_v3")

    def change(tensors):
        layer = {k.replace("layers.1.", "layers.2."): v.clone() for k, v in tensors.items() if "layers.1." in k}
        extra = {"model.layers.2.eh_proj.weight": torch.ones(32, 64), "model.rotary_emb.inv_freq": torch.ones(2)}
        return tensors | layer | extra

    naming = name(rewrite(checkpoint, change, {"num_nextn_predict_layers": 1}))
    reasons = Counter(naming.skipped.values())
    assert reasons["buffer"] == 2
    assert set(reasons) == {"buffer", "multi-token prediction layer"}
    assert naming.skipped["model.layers.2.eh_proj.weight"] == "multi-token prediction layer"
    assert not any(".layers.2." in parameter.name for parameter in naming.parameters)


def test_unexpected_tensors_are_listed(tmp_path):
    """A small tensor that the model has no place for is skipped, and its reason names the class."""
    checkpoint = make(tmp_path, "llama")
    checkpoint = rewrite(checkpoint, lambda tensors: tensors | {"model.extra.weight": torch.ones(3, 3)})
    assert name(checkpoint).skipped == {
        "model.extra.weight": "unexpected: LlamaForCausalLM has no 'model.extra.weight'"
    }


def test_a_wrong_class_is_an_error(tmp_path):
    """A large share of weights without a place means the wrong class; the error names the one the config names."""
    checkpoint = make(tmp_path, "bart")
    with pytest.raises(
        CheckpointError,
        match=r"[0-9]+% of the weights have no place in BartForCausalLM: .*"
        r"perhaps BartForConditionalGeneration, with --model-class",
    ):
        name(checkpoint)


def test_a_missing_weight_is_an_error(tmp_path):
    """A weight that the model needs is named."""
    checkpoint = make(tmp_path, "llama")
    lost = "model.layers.1.mlp.up_proj.weight"
    checkpoint = rewrite(checkpoint, lambda tensors: {k: v for k, v in tensors.items() if k != lost})
    with pytest.raises(
        CheckpointError, match=re.escape(f"lacks 1 of the 21 parameters of LlamaForCausalLM: '{lost}'. Download")
    ):
        name(checkpoint)


def test_a_shape_that_differs_is_an_error(tmp_path):
    """config.json of another model is noticed."""
    checkpoint = make(tmp_path, "llama")
    (tmp_path / "model" / "config.json").write_text(json.dumps(checkpoint.config | {"intermediate_size": 44}))
    with pytest.raises(
        CheckpointError,
        match=re.escape(
            "'model.layers.0.mlp.gate_proj.weight' has the shape [44, 32] in the model that config.json describes, and "
            "'model.layers.0.mlp.gate_proj.weight' makes [40, 32]. config.json does not belong to these weights."
        ),
    ):
        name(read(tmp_path / "model"))


@pytest.mark.parametrize(
    "model_type, base", [("llama", "LlamaModel"), ("gpt2", "GPT2Model"), ("mixtral", "MixtralModel")]
)
def test_a_base_models_checkpoint_lacks_only_its_head(tmp_path, model_type, base):
    """Saved without its head, a model is named as the one with a head, and the user is told what starts at random."""
    if not BY_TYPE[model_type].exists:
        pytest.skip(f"no {model_type}")
    model = tiny_model(BY_TYPE[model_type])
    checkpoint = save(getattr(model, model.base_model_prefix), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text()) | {"architectures": [BY_TYPE[model_type].model_class]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    naming = name(read(tmp_path))
    names = {n for n, _ in model.named_parameters()}
    assert expanded(naming, names).keys() == names
    if model_type == "gpt2":
        assert naming.notes == ()  # its head is tied
    else:
        (note,) = naming.notes
        lacking = f"The checkpoint lacks 'lm_head.weight' of {BY_TYPE[model_type].model_class}; "
        assert note == lacking + "it starts at random in the trainer."
        assert by_name(naming)["lm_head.weight"].tensors == ()
    assert not any(name.startswith(model.base_model_prefix + ".") for name in checkpoint.tensors)


def test_one_type_of_two_shapes_is_noted(tmp_path):
    """Scores of matrices of two shapes are ranked together; the user is told."""
    checkpoint = make(tmp_path, "gemma4_text")
    (note,) = name(checkpoint).notes
    assert note.startswith("Module types with matrices of more than one shape, ranked together: ")
    assert "model.layers.*.self_attn.q_proj (32x32 and 64x32)" in note


# ---------------------------------------------------------------------------------------------------------------------
# Old layouts
# ---------------------------------------------------------------------------------------------------------------------


def renamed(pairs):
    def change(tensors):
        for old, new in pairs:
            tensors = {re.sub(old, new, name): tensor for name, tensor in tensors.items()}
        return tensors

    return change


@pytest.mark.parametrize(
    "model_type, pairs",
    [
        ("gpt2", [(r"^transformer\.", "")]),
        ("bert", [(r"LayerNorm\.weight", "LayerNorm.gamma"), (r"LayerNorm\.bias", "LayerNorm.beta")]),
        (
            "wav2vec2",
            [
                (r"parametrizations\.weight\.original0", "weight_g"),
                (r"parametrizations\.weight\.original1", "weight_v"),
            ],
        ),
        ("gemma3", [(r"^model\.language_model\.", "language_model.model."), (r"^model\.vision_tower", "vision_tower")]),
        ("llava", [(r"^model\.language_model\.", "language_model.model."), (r"^lm_head", "language_model.lm_head")]),
        ("qwen2_vl", [(r"^model\.language_model\.", "model."), (r"^model\.visual\.", "visual.")]),
    ],
)
def test_old_layouts(tmp_path, model_type, pairs):
    """Checkpoints as the Hub holds them, under names of years ago, are named as the model they are loaded into."""
    checkpoint = rewrite(make(tmp_path, model_type), renamed(pairs))
    architecture = BY_TYPE[model_type]
    naming = name_as(architecture, checkpoint)
    shapes = {n: tuple(p.shape) for n, p in load(checkpoint, architecture.model_class).named_parameters()}
    assert expanded(naming, shapes) == shapes
    assert all(parameter.tensors for parameter in naming.parameters)


# ---------------------------------------------------------------------------------------------------------------------
# Which class
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wanted, embedding",
    [
        (None, "model.language_model.embed_tokens.weight"),
        ("Qwen3_5ForCausalLM", "model.embed_tokens.weight"),
        ("AutoModelForCausalLM", "model.embed_tokens.weight"),
        ("AutoModelForImageTextToText", "model.language_model.embed_tokens.weight"),
    ],
)
def test_the_class_decides_the_names(tmp_path, wanted, embedding):
    """Qwen 3.5 is trained as a multimodal model unless the user says otherwise; the choice is told."""
    checkpoint = make(tmp_path, "qwen3_5")
    naming = name(checkpoint, model_class=wanted)
    names = by_name(naming)
    assert embedding in names
    text_only = not embedding.startswith("model.language_model")
    assert any(".visual." in n for n in names) != text_only
    loaded = load(checkpoint, "Qwen3_5ForCausalLM" if text_only else "Qwen3_5ForConditionalGeneration")
    assert names.keys() == {n for n, _ in loaded.named_parameters()}
    assert naming.model_class == type(loaded).__name__
    assert list(naming.notes) == ([] if wanted else [TWO_CLASSES])


TWO_CLASSES = (
    "A model of type 'qwen3_5' can be loaded as Qwen3_5ForConditionalGeneration or as Qwen3_5ForCausalLM, which may "
    "name parameters differently. The names are those of Qwen3_5ForConditionalGeneration, as Axolotl loads it; pass "
    "--model-class Qwen3_5ForCausalLM for the other."
)


def test_an_unknown_class_is_an_error(tmp_path):
    """A class that transformers lacks is named, with one that it has."""
    checkpoint = make(tmp_path, "llama")
    with pytest.raises(
        CheckpointError, match=r"has no class 'LlamaForCausalLN'. Pass one that it has with --model-class: LlamaFor"
    ):
        name(checkpoint, model_class="LlamaForCausalLN")


def test_flash_attention_in_the_config_is_not_needed(tmp_path):
    """A config that asks for flash attention is built without its package."""
    checkpoint = make(tmp_path, "llama")
    config = checkpoint.config | {
        "attn_implementation": "flash_attention_2",
        "_attn_implementation": "flash_attention_2",
    }
    assert name_parameters(checkpoint.tensors, config, same=checkpoint.same).name_mapping == "exact"


def test_quantised_configs_are_built_plain(tmp_path):
    """Weights come dequantised; what the config says of their storage does not matter, nor does a dtype of storage."""
    checkpoint = make(tmp_path, "llama")
    config = checkpoint.config | {"quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]}}
    config |= {"dtype": "float8_e4m3fn", "torch_dtype": "float8_e4m3fn"}
    naming = name_parameters(checkpoint.tensors, config, same=checkpoint.same)
    assert naming.name_mapping == "exact"
    assert by_name(naming).keys() == by_name(name(checkpoint)).keys()


# ---------------------------------------------------------------------------------------------------------------------
# Fallbacks
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model_type, mapping", [("llama", "exact"), ("remote_thing", "identity")])
def test_remote_code_is_never_executed(tmp_path, monkeypatch, model_type, mapping):
    """A config that names code of its own: the native class where there is one, the checkpoint's names else."""
    checkpoint = make(tmp_path, "llama")
    trap = f"from pathlib import Path\nPath({str(tmp_path / 'sprung')!r}).touch()\n"
    (checkpoint.folder / "trap.py").write_text(trap)
    auto_map = dict.fromkeys(("AutoConfig", "AutoModel", "AutoModelForCausalLM"), "trap.Trap")
    monkeypatch.chdir(checkpoint.folder)
    monkeypatch.syspath_prepend(checkpoint.folder)
    config = checkpoint.config | {
        "auto_map": auto_map,
        "model_type": model_type,
        "_name_or_path": str(checkpoint.folder),
    }
    naming = name_parameters(checkpoint.tensors, config, same=checkpoint.same)
    assert naming.name_mapping == mapping
    assert not (tmp_path / "sprung").exists()
    assert by_name(naming).keys() == checkpoint.tensors.keys()
    if mapping == "identity":
        (note,) = naming.notes
        assert note == (
            f"Transformers {transformers.__version__} does not know the model type 'remote_thing'. The names are those "
            "of the checkpoint. The trainer's names differ if it builds the model differently, as transformers 5 does "
            "for mixtures of experts."
        )


@pytest.mark.parametrize("model_type", ["llama", "mixtral", "gpt_oss", "deepseek_v3", "granitemoe"])
def test_a_class_that_cannot_be_built(tmp_path, monkeypatch, model_type):
    """A missing package leaves the conversion table: the same names and matrices, and a note."""
    checkpoint = make(tmp_path, model_type)
    exact = name(checkpoint)

    def fail(self, config):
        raise ImportError("This class requires the timm library.")

    monkeypatch.setattr(getattr(transformers, BY_TYPE[model_type].model_class), "__init__", fail)
    naming = name(checkpoint)
    assert naming.name_mapping == "table"
    assert "cannot be built: ImportError: This class requires the timm library." in naming.notes[0]
    found = by_name(naming)
    assert exact.model_class == naming.model_class
    for parameter in exact.parameters:
        assert found[parameter.name].tensors == parameter.tensors
        assert found[parameter.name].shape == parameter.shape
        if parameter.kind in ("matrix", "experts"):
            assert found[parameter.name].matrices == parameter.matrices


@pytest.mark.skipif(importlib.util.find_spec("timm") is not None, reason="timm is installed")
def test_a_package_that_is_missing(tmp_path):
    """Gemma 3n needs timm to be built; its text model is still named."""
    checkpoint = make(tmp_path, "gemma3n_text")
    config = {
        "model_type": "gemma3n",
        "text_config": checkpoint.config,
        "vision_config": {"architecture": "mobilenetv5_300m_enc"},
    }
    naming = name_parameters(checkpoint.tensors, config, same=checkpoint.same)
    assert naming.name_mapping == "table"
    assert "Gemma3nForConditionalGeneration cannot be built: ImportError" in naming.notes[0]


def test_no_config(tmp_path):
    """Without config.json the checkpoint's names are taken, and the user is told."""
    checkpoint = make(tmp_path, "llama")
    naming = name_parameters(checkpoint.tensors, None, same=checkpoint.same)
    assert (naming.name_mapping, naming.model_class, naming.transformers) == ("identity", None, None)
    assert naming.notes[0].startswith(
        "There is no config.json that names a model type. The names are those of the checkpoint"
    )


def test_checkpoint_names_on_request(tmp_path):
    """Asked for, the checkpoint's names need no note and no model."""
    checkpoint = make(tmp_path, "mixtral")
    naming = name(checkpoint, names="checkpoint")
    assert (naming.name_mapping, naming.notes) == ("identity", ())
    assert "model.layers.0.block_sparse_moe.experts.*.w1.weight" in by_name(naming)


def test_a_config_that_is_not_valid(tmp_path):
    """A value that the config class refuses leaves the conversion table, and a note with the reason."""
    checkpoint = make(tmp_path, "llama")
    naming = name_parameters(
        checkpoint.tensors, checkpoint.config | {"num_hidden_layers": "many"}, same=checkpoint.same
    )
    assert naming.name_mapping == "table"
    assert "LlamaForCausalLM cannot be built: " in naming.notes[0]
    assert "num_hidden_layers" in naming.notes[0]


# ---------------------------------------------------------------------------------------------------------------------
# Manners
# ---------------------------------------------------------------------------------------------------------------------


def test_the_settings_of_transformers_are_restored(tmp_path, capfd):
    """Nothing is printed, and logging and progress bars are as before."""
    checkpoint = make(tmp_path, "mixtral")
    logging = transformers.logging
    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    try:
        logging.set_verbosity_info()
        logging.enable_progress_bar()
        capfd.readouterr()
        name(checkpoint)
        assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == (logging.INFO, True)
    finally:
        logging.set_verbosity(before[0])
        (logging.enable_progress_bar if before[1] else logging.disable_progress_bar)()
    assert capfd.readouterr() == ("", "")


def test_importing_costs_no_torch():
    """The slow packages are imported when a model is named, not before."""
    code = "import sys, spectrum.naming.runtime; print([m for m in ('torch', 'transformers') if m in sys.modules])"
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert done.stdout == "[]\n"
