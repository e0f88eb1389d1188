"""Lines of unfrozen_parameters: matched as Axolotl matches, in bounded time, and told why they are wrong."""

import re
import time
import warnings
from pathlib import Path

import pytest
from checking.conftest import CONFIG
from hypothesis import given
from hypothesis import strategies as st

from spectrum.checking.checking import check_scan
from spectrum.checking.config import Config, read_config
from spectrum.checking.lines import check_lines
from spectrum.checking.patterns import IntricateError, matches, parse_pattern, paths, prepare_names
from spectrum.errors import SelectionError
from spectrum.naming import layer, module_type
from spectrum.results import MatrixScore, Model, ParameterScore, Scan, Settings, Unscored
from spectrum.selection import select_top


def entry(name, snr=1.0, labels=()):
    matrices = tuple(MatrixScore(label, (4, 4), snr, False, None) for label in labels)
    shape, kind = ((len(labels), 8, 4), "experts") if labels else ((8, 4), "matrix")
    about = (name, module_type(name), layer(name), kind, shape, "F32")
    return ParameterScore(*about, snr, saturated=False, score=None, tensors=(name,), matrices=matrices)


def moe():
    """Per-expert names, a router whose name begins another, biases, and a head."""
    gate = "model.layers.{}.mlp.gate{}.weight"
    scored = [entry(gate.format(number, "_proj"), float(number)) for number in range(12)]
    labels = [str(expert) for expert in range(13)]
    scored.append(entry("model.layers.1.mlp.experts.*.w1.weight", 1.0, labels))
    others = [Unscored(gate.format(number, ""), "router", (4, 4)) for number in range(12)]
    others += [
        Unscored("model.layers.1.mlp.experts.*.w1.bias", "bias", (13, 4)),
        Unscored("lm_head.weight", "head", (80, 4)),
    ]
    skipped = {"mtp.0.up.weight": "not in the model", "lm_head.tied.weight": "alias of model.embed.weight"}
    return Scan(Model("m", name_mapping="exact"), Settings(), tuple(scored), tuple(others), skipped)


def findings(*lines, scan=None, selection=None):
    config = Config("c.yml", {}, tuple(enumerate(lines, start=1)))
    return check_lines(config, scan or moe(), selection)[0]


def said(*lines, **words):
    return [(item.code, item.line) for item in findings(*lines, **words)]


def test_a_router_is_no_gate_projection():
    """Without an end the line matches both; with it, one."""
    (item,) = findings("^model.layers.1.mlp.gate")
    assert (item.code, item.line) == ("SPC411", 1)
    assert item.message.endswith("so matches 'model.layers.1.mlp.gate_proj.weight' as well.")
    assert said("^model.layers.1.mlp.gate.weight$", "^model.layers.1.mlp.gate_proj.weight$") == []


def test_expert_1_is_not_expert_12():
    """The same with numbers: of experts, and of layers."""
    (item,) = findings("model.layers.1.mlp.experts.1")
    names = [f"'model.layers.1.mlp.experts.1{digit}.w1.{what}'" for digit in (0, 1) for what in ("bias", "weight")]
    assert f"matches {', '.join(names[:3])} and 3 more as well" in item.message
    assert said("model.layers.1") == [("SPC411", 1)]
    assert said("model.layers.1.", "model.layers.1.mlp.experts.[0-9]+.w1", "model.layers.[0-9]+.mlp.gate.") == []


def test_upstream_lines_need_no_end_where_nothing_is_longer():
    """What the authors' program writes, module paths without `.weight`, is no finding by itself."""
    assert said("model.layers.1.mlp.gate_proj", "^lm_head") == []


def test_row_ranges_are_those_of_the_parameter():
    """Of one expert's parameter, not of the stack; an index is a range of one; an empty one stops Axolotl."""
    expert = "^model.layers.1.mlp.experts.3.w1.weight$"
    assert said(f"{expert}[0:8]", f"{expert}[7]", f"{expert}[:]") == [("SPC414", line) for line in (1, 2, 3)]
    assert said(f"{expert}[0:9]", f"{expert}[8]", f"{expert}[8:]") == [("SPC413", line) for line in (1, 2, 3)]
    assert said(f"{expert}[5:5]") == [("SPC405", 1)]


def test_what_is_not_in_the_model():
    """Checkpoint-only names, aliases of tied weights, the wrong prefix; each with its own remedy."""
    assert said("^mtp.0.up.weight$", "^lm_head.tied.weight$") == [("SPC409", 1), ("SPC410", 2)]
    scan = moe()
    text = Unscored("model.language_model.norm.weight", "norm", (4,))
    (item,) = findings("^model.norm.weight$", scan=Scan(scan.model, scan.settings, scan.parameters, (text,), {}))
    assert (item.code, item.remedy) == ("SPC407", "Perhaps '^model.language_model.norm.weight$' is meant.")


def test_exactly_the_selection():
    """One parameter too many, one too few, all experts of a unit counted one by one."""
    scan = moe()
    selection = select_top(scan, 25)
    exact = ["^lm_head.weight$", *(f"^model.layers.{number}.mlp.gate_proj.weight$" for number in (11, 10, 9))]
    exact.append("^model.layers.1.mlp.experts.[0-9]+.w1.(weight|bias)$")
    assert said(*exact, scan=scan, selection=selection) == []
    (item,) = findings(*exact, "^model.layers.8.mlp.gate_proj.weight$", scan=scan, selection=selection)
    assert (item.code, item.line) == ("SPC415", 6)
    extra = "'model.layers.8.mlp.gate_proj.weight'"
    chosen = "'top 25 % of each module type by SNR (noise model iqr)'"
    assert item.message == f"The list trains 1 parameter that the selection {chosen} does not hold: {extra}."
    (item,) = findings(*exact[:-1], "^model.layers.1.mlp.experts.[0-9].w1.", scan=scan, selection=selection)
    assert (item.code, item.line) == ("SPC416", None)
    assert "does not train 6 parameters of" in item.message


HOSTILE = [
    "(a+)+$", "(a|a)+$", "(.*)*x", "(a|ab)*c", "([a-z]+)*!", "(?:(?:m|o)+)+$", "(m|m)(o|o)+(d|d)+q", "(a*)*b",
    "(?=(m+)+)x", "(m)(?<=m)x", r"(m)\1+x", "(?i:(M+)+)x", ".+" * 6 + "x", "m?" * 40 + "x", "(m|m|m|m)" * 12 + "x",
    "m{1,99999999999999999999}", "(?:m{1,9}){1,9}x", "x" * 2000,
]  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_patterns_end(text):
    """Each is refused with a finding, and none takes the time it was made for."""
    scan = moe()
    name = "model.layers.2.mlp." + "mode" * 30
    scan = Scan(scan.model, scan.settings, (*scan.parameters, entry(name)), scan.unscored, {})
    begin = time.perf_counter()
    (item,) = findings(text, scan=scan)
    assert item.code in {"SPC405", "SPC406"}
    assert time.perf_counter() - begin < 1


def test_many_patterns_share_one_budget():
    """Thousands of lines, each of which alone would pass."""
    lines = [f".+.+{number}x" for number in range(5000)]
    begin = time.perf_counter()
    assert {code for code, _ in said(*lines)} == {"SPC406", "SPC407"}
    assert time.perf_counter() - begin < 15


_PARTS = st.sampled_from(
    ["m", "model", ".", "layers", "[0-9]+", "[a-z_]+", "1", "2", "$", "^", "(gate|up)", "(?:_proj)?", "o?", "l*", ".+",
     "[^.]", "(?i)", "|", "mlp", "gate", "\\.", "\\d", "x{0,2}", "(a|)"]
)  # fmt: skip


@given(st.lists(_PARTS, max_size=8).map("".join))
def test_matches_are_those_of_re(text):
    """Neither the prefix nor anything else leaves a name out that `re` matches."""
    names = [
        f"model.layers.{number}.mlp.{part}.weight" for number in (1, 12, 2) for part in ("gate", "gate_proj", "up")
    ]
    names += ["Model.1", "m", "lm_head.weight", "mlp", ""]
    try:
        pattern = parse_pattern(text)
        paths(pattern, prepare_names(names))
    except SelectionError:
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expression = re.compile(re.sub(r"\.(?!\+)", lambda _: r"\.", text))
    assert {match.string for match in matches(pattern, prepare_names(names))} == {
        n for n in names if expression.match(n)
    }


_EXAMPLES = [
    "^model.layers.1.mlp.gate$", "model.layers.1", r"^model\.layers\.1", "layers.2[0-9]+.block_sparse_moe.gate.[a-z]+$",
    "^lm_head.weight$[1:]", "^lm_head.weight$[:7]", "^lm_head.weight$[3]", "^lm_head.weight$[]", "^a.+b", ".*", "",
    "^model.embed_tokens.weight$[:32000]", "^(model|language_model).x", "[0-9]", "[0-9:]", "a[1:",
    "^lm_head.weight$[3:2]",
]  # fmt: skip


def test_patterns_are_those_of_axolotl(axolotl):
    """Expression and rows of each are what Axolotl's own class makes of it."""
    theirs_of = axolotl("utils.freeze").LayerNamePattern
    for text in _EXAMPLES:
        try:
            theirs = theirs_of(text)
        except (ValueError, re.error):
            with pytest.raises(SelectionError):
                parse_pattern(text)
            continue
        ours = parse_pattern(text)
        assert (ours.expression.pattern, ours.rows) == (theirs.name_regex.pattern, theirs.range), text


def test_case_blind_patterns_have_no_prefix():
    """`re` lets a pattern set its own flags, and then a literal beginning is none."""
    names = prepare_names(["LM_head.weight", "lm_head.weight"])
    assert [match.string for match in matches(parse_pattern("(?i)lm_head.weight"), names)] == list(names.ordered)


def test_paths_bound_the_work():
    """Digits count as long as the longest number, repetitions as long as the longest name, alternatives add up."""
    names = prepare_names(["a.12.b", "a.3.b"])
    expected = {
        "a.[0-9]+.b": 2,
        "a.[0-9]+.[0-9]+": 4,
        "[a-z]+": 6,
        "(a|b|cc)": 3,
        "(?:ab)?": 2,
        "(?:ab)+": 6,
        r"\d*": 3,
    }
    assert {text: paths(parse_pattern(text), names) for text in expected} == expected
    with pytest.raises(IntricateError, match="it repeats what can itself match in several ways"):
        paths(parse_pattern("(a+)+"), names)


def test_experts_of_an_altered_scan_do_not_fill_the_memory():
    """A stack of 10^12 experts is not counted: the scan is found to be wrong, and its config is not matched."""
    scan = moe()
    huge = Unscored("model.layers.3.mlp.experts.*.w1.weight", "experts", (10**12, 4, 4))
    scan = Scan(scan.model, scan.settings, scan.parameters, (*scan.unscored, huge), {})
    config = Config("c.yml", {}, ((1, "^lm_head.weight$"),))
    (item,) = check_scan(scan, None, config=config, transformers="4.57.6")
    assert (item.code, item.file) == ("SPC105", "")
    assert item.message.startswith("The scan speaks of 1,000,000,000,026 parameters of experts, 1,000,000,000,000 of ")


def test_lines_of_yaml_forms(tmp_path):
    """Quoted, folded and flow entries keep their own lines."""
    Path(CONFIG).write_text("a: 1\nunfrozen_parameters: [^x$,\n  'y',\n\n  \"z\"]\n")
    config, found = read_config(Path(CONFIG))
    assert (config.patterns, found) == (((2, "^x$"), (3, "y"), (5, "z")), [])
