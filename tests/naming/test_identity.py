"""Parameters from names and shapes alone."""

import pytest

from spectrum.checkpoint import Tensor
from spectrum.naming import identity_parameters, layer, module_type, natural_key


def _tensors(**shapes):
    return {name: Tensor(name, "BF16", shape, "s", 0, 0) for name, shape in shapes.items()}


def _one(name, shape):
    (parameter,), _ = identity_parameters(_tensors(**{name: shape}))
    return parameter


@pytest.mark.parametrize(
    ("name", "expected", "number"),
    [
        ("model.layers.11.mlp.down_proj.weight", "model.layers.*.mlp.down_proj", 11),
        ("encoder.block.3.layer.0.SelfAttention.q.weight", "encoder.block.*.layer.0.SelfAttention.q", 3),
        ("model.layers.2.mlp.experts.gate_up_proj", "model.layers.*.mlp.experts.gate_up_proj", 2),
        ("model.layers.2.self_attn.q_proj.bias", "model.layers.*.self_attn.q_proj.bias", 2),
        ("h1.proj2d.weight", "h1.proj2d", None),
        ("lm_head.weight", "lm_head", None),
        ("model.layers.²·.x.weight", "model.layers.²·.x", None),
    ],
)
def test_module_type_and_layer(name, expected, number):
    """The first segment that is all digits, and only that one, becomes `*`."""
    assert (module_type(name), layer(name)) == (expected, number)


def test_natural_order():
    """Numbers are compared as numbers, wherever they stand."""
    names = ["a.10.w", "a.2.w", "a.2.b10", "a.2.b9", "b.1.w", "a.w"]
    assert sorted(names, key=natural_key) == ["a.2.b9", "a.2.b10", "a.2.w", "a.10.w", "a.w", "b.1.w"]


@pytest.mark.parametrize(
    ("name", "shape", "kind"),
    [
        ("model.layers.0.mlp.up_proj.weight", (64, 64), "matrix"),
        ("model.layers.0.mlp.gate_proj.weight", (64, 64), "matrix"),
        ("model.layers.0.mlp.gate.weight", (8, 64), "router"),
        ("model.layers.0.mlp.shared_expert_gate.weight", (1, 64), "router"),
        ("model.embed_tokens.weight", (100, 64), "embedding"),
        ("embeddings.token_type_embeddings.weight", (2, 64), "lookup"),
        ("model.embed_tokens_per_layer.weight", (100, 64), "lookup"),
        ("lm_head.bias", (100,), "head-bias"),
        ("lm_head.weight", (100, 64), "head"),
        ("encoder.layer.0.output.weight", (64, 64), "matrix"),
        ("embeddings.position_embeddings.weight", (512, 64), "position"),
        ("transformer.wpe.weight", (512, 64), "position"),
        ("model.layers.0.input_layernorm.weight", (64,), "norm"),
        ("encoder.layer.0.output.LayerNorm.bias", (64,), "norm"),
        ("transformer.h.0.ln_1.weight", (64,), "norm"),
        ("model.layers.0.self_attn.q_proj.bias", (64,), "bias"),
        ("model.layers.0.mlp.experts.gate_up_proj_bias", (8, 64), "bias"),
        ("model.layers.0.mixer.A_log", (64, 64), "other"),
        ("model.layers.0.mixer.D", (64,), "vector"),
        ("model.layers.0.conv1d.weight", (64, 1, 4), "convolution"),
        ("visual.patch_embed.proj.weight", (64, 3, 14, 14), "convolution"),
        ("model.layers.0.mlp.experts.down_proj", (4, 64, 32), "experts"),
        ("model.layers.0.att.time_mix_key", (1, 1, 64), "other"),
        ("vision.head.probe", (1, 1, 64), "other"),
    ],
)
def test_kinds(name, shape, kind):
    """Kinds by name and shape; `gate` is a router, `gate_proj` is not."""
    assert _one(name, shape).kind == kind


def test_a_plain_matrix():
    """One matrix, without a label, that takes all of its tensor."""
    parameter = _one("model.layers.0.mlp.up_proj.weight", (64, 96))
    (matrix,) = parameter.matrices
    assert (matrix.label, matrix.shape, matrix.tensor, matrix.index) == ("", (64, 96), parameter.name, ())


def test_stacked_experts_are_many_matrices():
    """Each slice of a 3-D stack is a matrix of its own, labelled by its number."""
    parameter = _one("model.layers.0.mlp.experts.down_proj", (12, 64, 32))
    assert [matrix.label for matrix in parameter.matrices] == [str(number) for number in range(12)]
    assert {matrix.shape for matrix in parameter.matrices} == {(64, 32)}
    assert parameter.matrices[11].index == (11,)


def test_per_expert_tensors_are_one_parameter():
    """Twelve experts' tensors of one layer and projection: one module type, expert 2 before expert 10."""
    name = "model.layers.{}.block_sparse_moe.experts.{}.w1.weight"
    shapes = {name.format(number, expert): (64, 32) for number in (0, 1) for expert in range(12)}
    parameters, skipped = identity_parameters(_tensors(**shapes))
    assert [item.name for item in parameters] == [name.format(0, "*"), name.format(1, "*")]
    assert {item.module_type for item in parameters} == {"model.layers.*.block_sparse_moe.experts.*.w1"}
    assert parameters[1].tensors == tuple(name.format(1, expert) for expert in range(12))
    assert [matrix.label for matrix in parameters[1].matrices] == [str(expert) for expert in range(12)]
    assert (parameters[0].shape, parameters[0].kind, skipped) == ((12, 64, 32), "experts", {})


def test_experts_of_different_shape_are_not_grouped():
    """One projection with two shapes cannot be one stack: each expert stands alone, in one module type."""
    names = [f"model.layers.0.mlp.experts.{expert}.w1.weight" for expert in range(2)]
    parameters, _ = identity_parameters(_tensors(**{names[0]: (64, 32), names[1]: (64, 48)}))
    assert [item.name for item in parameters] == names
    assert {item.module_type for item in parameters} == {"model.layers.*.mlp.experts.*.w1"}


def test_what_is_no_parameter():
    """Integer tensors and known buffers are listed with their reason."""
    tensors = _tensors(**{"model.rotary_emb.inv_freq": (32,), "h.0.attn.masked_bias": (), "q.0.codebook.embed": (8, 4)})
    tensors["position_ids"] = Tensor("position_ids", "I64", (1, 512), "s", 0, 0)
    tensors["w"] = Tensor("w", "F8_E4M3", (64, 64), "s", 0, 0)
    parameters, skipped = identity_parameters(tensors)
    assert parameters == ()
    assert skipped == {
        "model.rotary_emb.inv_freq": "buffer",
        "h.0.attn.masked_bias": "buffer",
        "q.0.codebook.embed": "buffer",
        "position_ids": "integer tensor",
        "w": "dtype F8_E4M3",
    }
