"""The YAML for Axolotl, and its patterns matched the way Axolotl matches."""

import re
from dataclasses import replace

import pytest
import yaml

from spectrum.checkpoint import Tensor
from spectrum.errors import SelectionError
from spectrum.exporting.axolotl import check_patterns, compile_as_axolotl, pattern, to_axolotl
from spectrum.naming import identity_parameters, layer, module_type
from spectrum.results import MatrixScore, Model, ParameterScore, Scan, Settings, Unscored
from spectrum.selection import select_top


def _entry(name, snr, labels=()):
    matrices = tuple(MatrixScore(label, (4, 4), snr, snr is None, None) for label in labels)
    shape = (len(labels), 4, 4) if labels else (4, 4)
    kind = "experts" if labels else "matrix"
    return ParameterScore(
        name, module_type(name), layer(name), kind, shape, "F32", snr, snr is None, None, (name,), matrices
    )


def _scan(entries, unscored=()):
    return Scan(Model("owner/name", "c" * 40, parameters=400), Settings(), tuple(entries), tuple(unscored), {})


def _example():
    entries = [_entry(f"model.layers.{number}.mlp.gate_proj.weight", float(number)) for number in range(12)]
    entries += [_entry(f"model.layers.{number}.self_attn.q_proj.weight", None) for number in range(4)]
    others = [Unscored("lm_head.weight", "head", (10, 4)), Unscored("model.layers.1.mlp.gate.weight", "router", (4, 4))]
    others += [Unscored(f"model.layers.{number}.self_attn.q_proj.bias", "bias", (4,)) for number in range(4)]
    return _scan(entries, others)


_GOLDEN = f"""\
# Spectrum: top 25 % of each module type by SNR (noise model iqr)
# options: --top 25
# model: owner/name @ {"c" * 40}   names: as in the checkpoint
# trainable params: 108 || all params: 400 || trainable%: 27.0
unfrozen_parameters:
- ^lm_head.weight$
# mlp.gate_proj: 3 of 12, SNR 11 to 9
- ^model.layers.11.mlp.gate_proj.weight$
- ^model.layers.10.mlp.gate_proj.weight$
- ^model.layers.9.mlp.gate_proj.weight$
# self_attn.q_proj: 1 of 4, SNR saturated
- ^model.layers.0.self_attn.q_proj.weight$
- ^model.layers.0.self_attn.q_proj.bias$
"""


def test_golden_text():
    """The whole file."""
    scan = _example()
    assert to_axolotl(select_top(scan, 25), scan) == _GOLDEN


def test_exact_names_are_stated():
    """Class, transformers and mapping stand in the header once they are known."""
    scan = _example()
    model = replace(scan.model, model_class="LlamaForCausalLM", transformers="5.16.1", name_mapping="exact")
    text = to_axolotl(select_top(scan, 25), replace(scan, model=model))
    assert "   names: LlamaForCausalLM, transformers 5.16.1, exact\n" in text


def test_norms_have_their_own_lines():
    """With --norms train."""
    scan = _scan([_entry("l.0.q.weight", 1.0)], [Unscored("norm.weight", "norm", (4,))])
    text = to_axolotl(select_top(scan, 50, norms="train"), scan)
    assert "# norms: all 1\n- ^norm.weight$\n# q: 1 of 1, SNR 1\n- ^l.0.q.weight$\n" in text


def _trained_by_axolotl(text, names):
    """The parameters a YAML list leaves trainable, as utils/freeze.py of axolotl 0.19.0 decides, in our own words."""
    patterns = yaml.safe_load(text)["unfrozen_parameters"]
    trained = set()
    for line in patterns:
        rows = re.fullmatch(r"(.+)\[\d*(:\d*)?\]", line)
        expression = re.sub(r"\.(?!\+)", lambda _: r"\.", rows.group(1) if rows else line)
        trained |= {name for name in names if re.match(expression, name)}
    return trained


@pytest.mark.parametrize(
    "name",
    [
        "h.0.attn.c_attn.weight",
        "model.layers.1.mlp.gate.weight",
        "blocks.0.a+b.weight",
        "blocks.0.(x|y).weight",
        "blocks.0.w[0]",
        "blocks.0.w[0:2]",
        "blocks.0.a.+b",
        "blocks.0.xy^z$.weight",
        "blocks.0.back\\slash.weight",
        "blocks.0.quote'd: # no comment",
        "blocks.0.- dash",
        "blocks.0.ünïcode",
        "blocks.0.{brace}",
        "null.0",
    ],
)
def test_any_name_is_matched_exactly(name):
    """Also names full of YAML's and re's specials: a YAML parser and Axolotl's matching give back that one name."""
    decoys = [name + "_proj", name[:-1], name.replace(".", "x"), "model." + name]
    scan = _scan([_entry(name, 1.0)], [Unscored(decoy, "other", (4,)) for decoy in decoys])
    text = to_axolotl(select_top(scan, 50, embeddings="freeze"), scan)
    assert _trained_by_axolotl(text, [name, *decoys]) == {name}


@pytest.mark.parametrize("name", ["l.0.a\nb", "l.0.a\x00", "l.0.\x85b", "l.0.\u2028b", "l.0.\ufffe", "l.0.\ud800"])
def test_control_characters_are_refused(name):
    """They could smuggle a second line into the YAML."""
    scan = _scan([_entry(name, 1.0)])
    with pytest.raises(SelectionError, match="holds a control character, which no pattern can express"):
        to_axolotl(select_top(scan, 50, embeddings="freeze"), scan)


def test_a_literal_star_is_refused():
    """In a name it stands for the number of an expert; a file that has one as a character cannot be expressed."""
    scan = _scan([_entry("blocks.0.x*y.weight", 1.0)])
    with pytest.raises(SelectionError, match="would miss 'blocks.0.x\\*y.weight'"):
        to_axolotl(select_top(scan, 50, embeddings="freeze"), scan)


def test_a_newline_in_the_models_name_stays_in_its_comment():
    """A folder may be called anything."""
    scan = _scan([_entry("l.0.q.weight", 1.0)])
    scan = replace(scan, model=replace(scan.model, id="evil\nunfrozen_parameters: [x]"))
    text = to_axolotl(select_top(scan, 50, embeddings="freeze"), scan)
    assert yaml.safe_load(text) == {"unfrozen_parameters": ["^l.0.q.weight$"]}


def test_per_expert_parameters_take_one_pattern():
    """One line per layer and projection matches every expert of that layer, with its biases, and no other layer."""
    names = [
        f"model.layers.{number}.mlp.experts.{expert}.w1.{part}"
        for number in (1, 11) for expert in range(12) for part in ("weight", "bias")
    ]  # fmt: skip
    shapes = {name: (64, 64) if name.endswith("weight") else (64,) for name in names}
    parameters, _ = identity_parameters({name: Tensor(name, "F32", shape, "s", 0, 0) for name, shape in shapes.items()})
    entries = [
        _entry(item.name, float(item.layer), [matrix.label for matrix in item.matrices])
        for item in parameters if item.kind == "experts"
    ]  # fmt: skip
    others = [Unscored(item.name, item.kind, item.shape) for item in parameters if item.kind == "bias"]
    scan = _scan(entries, others)
    text = to_axolotl(select_top(scan, 50, embeddings="freeze"), scan)
    assert "- ^model.layers.11.mlp.experts.[0-9]+.w1.weight$\n" in text
    assert _trained_by_axolotl(text, names) == {name for name in names if "layers.11." in name}


def test_a_pattern_that_would_match_more_is_an_error():
    """The self-check: a model with a name that a needed pattern cannot tell apart is refused, not half-trained."""
    entries = [_entry("m.0.experts.*.w1.weight", 1.0, ["0", "1"])]
    scan = _scan(entries, [Unscored("m.0.experts.7.w1.weight", "other", (4,))])
    with pytest.raises(SelectionError, match="would select 'm.0.experts.7.w1.weight', which is not what was chosen"):
        to_axolotl(select_top(scan, 50, embeddings="freeze"), scan)


def test_patterns_that_match_less_are_an_error():
    """The same check from the other side: a selected parameter that no pattern matches."""
    scan = _scan([_entry("m.0.w1.weight", 1.0)])
    with pytest.raises(SelectionError, match="would miss 'm.0.w1.weight'"):
        check_patterns([], select_top(scan, 50, embeddings="freeze"), scan)


@pytest.mark.parametrize(
    ("text", "matches", "misses"),
    [
        ("^a.b$", ["a.b"], ["axb", "a.bc", "x.a.b"]),
        ("a.b", ["a.b", "a.bc"], ["x.a.b", "axb"]),
        (r"^a\.b$", [], ["a.b", "axb"]),
        ("^a.+b$", ["axxb", "a.b"], ["ab"]),
        ("^lm_head.weight$[128256:]", ["lm_head.weight"], ["lm_head.weights"]),
        ("^a.b[3]", ["a.b"], []),
    ],
)
def test_how_axolotl_reads_a_pattern(text, matches, misses):
    """Start-anchored prefix match, dots literal unless a `+` follows, escaped dots match nothing, rows cut off."""
    compiled = compile_as_axolotl(text)
    assert [name for name in matches + misses if compiled.match(name)] == matches


def test_pattern_of_a_name():
    """Anchored, dots bare; any number in the place of an expert's."""
    assert pattern("b.0.experts.expert_*.wi.weight") == "^b.0.experts.expert_[0-9]+.wi.weight$"
    assert pattern("model.layers.1.mlp.down_proj.weight") == "^model.layers.1.mlp.down_proj.weight$"
