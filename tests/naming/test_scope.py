"""Which parameters are scored."""

import re

import pytest

from spectrum.checkpoint import Tensor
from spectrum.errors import SpectrumError
from spectrum.naming import Scope, common_prefix, identity_parameters, match_module_types, split_by_scope

_SHAPES = {
    "model.embed_tokens.weight": (100, 64),
    "model.layers.0.input_layernorm.weight": (64,),
    "model.layers.0.mlp.gate.weight": (8, 64),
    "model.layers.0.mlp.up_proj.weight": (64, 64),
    "model.layers.0.mlp.down_proj.weight": (64, 64),
    "model.layers.0.self_attn.lora_a.weight": (31, 64),
    "model.layers.0.self_attn.q_proj.weight": (32, 64),
    "model.layers.0.self_attn.q_proj.bias": (32,),
    "model.layers.0.conv1d.weight": (64, 1, 4),
    "model.pooler.dense.weight": (64, 64),
    "model.wpe.weight": (64, 64),
    "lm_head.weight": (100, 64),
}


def _split(**scope):
    parameters, _ = identity_parameters(
        {name: Tensor(name, "F32", shape, "s", 0, 0) for name, shape in _SHAPES.items()}
    )
    scored, reasons = split_by_scope(parameters, Scope(**scope))
    assert {item.name for item in scored} | set(reasons) == set(_SHAPES)
    return {item.name for item in scored}, reasons


_DEFAULT = {f"model.layers.0.{name}.weight" for name in ("mlp.up_proj", "mlp.down_proj", "self_attn.q_proj")}


def test_default():
    """Matrices inside numbered layers whose smaller side is 32 or more; every other has its reason."""
    scored, reasons = _split()
    assert scored == _DEFAULT
    assert reasons == {
        "model.embed_tokens.weight": "embedding",
        "model.layers.0.input_layernorm.weight": "vector",
        "model.layers.0.mlp.gate.weight": "router",
        "model.layers.0.self_attn.lora_a.weight": "smaller side 31, under 32",
        "model.layers.0.self_attn.q_proj.bias": "vector",
        "model.layers.0.conv1d.weight": "convolution",
        "model.pooler.dense.weight": "outside numbered layers",
        "model.wpe.weight": "position table",
        "lm_head.weight": "head",
    }


def test_all_modules():
    """Embeddings, heads, routers and matrices outside the layers are added; tables and small ones are not."""
    scored, _ = _split(all_modules=True)
    added = {
        "model.embed_tokens.weight",
        "lm_head.weight",
        "model.layers.0.mlp.gate.weight",
        "model.pooler.dense.weight",
    }
    assert scored == _DEFAULT | added


def test_patterns():
    """Shell patterns match the module type, in full or short; exclusion wins."""
    assert _split(modules=("mlp.*",))[0] == {n for n in _DEFAULT if "mlp" in n}
    assert _split(modules=("model.layers.*.mlp.up_proj",))[0] == {"model.layers.0.mlp.up_proj.weight"}
    assert _split(exclude=("*.up_proj", "self_attn.*"))[0] == {"model.layers.0.mlp.down_proj.weight"}
    scored, reasons = _split(modules=("mlp.*",), exclude=("mlp.up*",))
    assert scored == {"model.layers.0.mlp.down_proj.weight"}
    assert reasons["model.layers.0.mlp.up_proj.weight"] == "not among the modules asked for"


def test_a_pattern_is_no_substring():
    """`gate` matches the module type of that name only, not `gate_proj`."""
    known = ["m.*.mlp.gate", "m.*.mlp.gate_proj"]
    assert match_module_types(known, ["mlp.gate"], []) == {"m.*.mlp.gate"}


@pytest.mark.parametrize("where", ["modules", "exclude"])
def test_an_unknown_pattern_suggests_near_ones(where):
    """A misspelt pattern is an error, not an empty selection."""
    with pytest.raises(SpectrumError, match="No module type matches 'mlp.downproj'. Near ones: mlp.down_proj"):
        _split(**{where: ("mlp.downproj",)})


def test_a_pattern_for_one_stack_of_several_suggests_the_longer_one():
    """Of a multimodal model the names are in full, so the pattern must begin with a star."""
    known = ["vision.layers.*.mlp.up", "text.layers.*.mlp.up", "text.layers.*.q"]
    with pytest.raises(SpectrumError, match="No module type matches 'mlp.\\*'. Near ones: '\\*mlp.\\*'. Quote"):
        match_module_types(known, ["mlp.*"], [])
    assert match_module_types(known, ["*mlp.*"], []) == set(known[:2])


@pytest.mark.parametrize(
    ("known", "pattern", "near"),
    [
        (["m.*.mlp.up", "m.*.attn.q"], "mlp", "'mlp.*'"),
        (["m.*.mlp.up", "m.*.attn.q"], "up", "'*up'"),
        (["m.*.block.mlp.up", "m.*.attn.q"], "mlp", "'*.mlp.*'"),
        (["vision.*.mlp.up", "text.*.mlp.up"], "mlp", "'*.mlp.*'"),
        (["vision.*.mlp.up", "text.*.mlp.up"], "mlp.up", "'*mlp.up'"),
    ],
)
def test_part_of_a_name_suggests_a_pattern_that_matches(known, pattern, near):
    """`mlp` names no module type; the suggestion does, and is quoted for the shell."""
    with pytest.raises(SpectrumError, match=re.escape(f"Near ones: {near}. Quote patterns")):
        match_module_types(known, [pattern], [])
    assert match_module_types(known, [near.strip("'")], [])


def test_common_prefix():
    """It ends behind the `*`; module types outside layers keep their names; two stacks of layers share none."""
    assert common_prefix(["model.layers.*.mlp.up", "model.layers.*.mlp.down", "lm_head"]) == "model.layers.*."
    assert common_prefix(["vision.layers.*.q", "text.layers.*.q"]) == ""
