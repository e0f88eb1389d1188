"""Lines of unfrozen_parameters: matched as Axolotl matches, in bounded time, and told why they are wrong."""

import re
import time
import warnings
from pathlib import Path

import pytest
from checking.conftest import CONFIG
from hypothesis import given
from hypothesis import strategies as st

from spectrum.checking.checking import check_config
from spectrum.checking.config import read_listed_config
from spectrum.checking.findings import ordered
from spectrum.checking.lines import check_lines
from spectrum.checking.patterns import Budget, matches, parse_pattern
from spectrum.errors import SelectionError
from spectrum.exporting.axolotl import compile_as_axolotl
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
    return check_lines(list(enumerate(lines, start=1)), scan or moe(), selection)[0]


def said(*lines, **words):
    return [(item.code, item.line) for item in findings(*lines, **words)]


def test_a_router_is_no_gate_projection():
    """Without an end the line matches both; with it, one."""
    (item,) = findings("^model.layers.1.mlp.gate")
    assert (item.code, item.line) == ("SPC411", 1)
    assert item.message.endswith("so it also matches 'model.layers.1.mlp.gate_proj.weight'.")
    assert said("^model.layers.1.mlp.gate.weight$", "^model.layers.1.mlp.gate_proj.weight$") == []


def test_expert_1_is_not_expert_12():
    """The same with numbers: of experts, and of layers."""
    (item,) = findings("model.layers.1.mlp.experts.1")
    names = [f"'model.layers.1.mlp.experts.1{digit}.w1.{what}'" for digit in (0, 1) for what in ("bias", "weight")]
    assert f"matches {', '.join(names[:3])} and 3 more." in item.message
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
    assert (item.code, item.remedy) == ("SPC407", "Did you mean '^model.language_model.norm.weight$'?")


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


# None of them can match: each takes exponential time with `re`, or ends at once.
HOSTILE = [
    "(m[a-z.0-9]*)+!", "(m|m)+!", "(.*)*!", "(m|mo)*!", "([a-z.0-9]+)*!", "(?:(?:m|o|.)+)+!", "(.|[a-z])+!",
    "(?=(.+)+!)x", r"(m|.)*\\1+!", "(?i:([A-Z.0-9]+)+)!", ".+" * 12 + "!", "[a-z.0-9]?" * 120 + "!",
    "m{1,99999999999999999999}", "(?:.{1,9}){1,99}!", "x" * 2000, "m{e<=9}", "[[:alpha:]]+",
]  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_patterns_end(text):
    """Each ends with a finding, and none takes the time it was made for."""
    scan = moe()
    name = "model.layers.2.mlp." + "mode" * 30
    scan = Scan(scan.model, scan.settings, (*scan.parameters, entry(name)), scan.unscored, {})
    begin = time.process_time()
    (item,) = findings(text, scan=scan)
    assert item.code in {"SPC405", "SPC406", "SPC407"}
    assert time.process_time() - begin < 5


@pytest.mark.parametrize("line", ["^model.layers.{}.x$", "{}", "^model.layers.[0-9]+.{}$", "m"], ids=range(4))
def test_time_is_linear_in_the_lines(line):
    """Eighty thousand lines that match nothing, or everything: seconds, and a report of a few lines."""
    lines = [line.format(number) for number in range(80_000)]
    begin = time.process_time()
    found = ordered(findings(*lines))
    assert time.process_time() - begin < 60
    assert len(found) <= 21 * len({item.code for item in found}) <= 63
    assert any(re.match("[0-9,]{6} more of these: ", item.message) for item in found)


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
        pattern = parse_pattern(text, Budget())
    except SelectionError:
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expression = re.compile(re.sub(r"\.(?!\+)", lambda _: r"\.", text))
    expected = [(name, found.end()) for name in sorted(names) if (found := expression.match(name))]
    assert list(matches(pattern, sorted(names), Budget())) == expected


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
                parse_pattern(text, Budget())
            continue
        ours = parse_pattern(text, Budget())
        assert (compile_as_axolotl(text).pattern, ours.rows) == (theirs.name_regex.pattern, theirs.range), text


@pytest.mark.parametrize(
    ("text", "count"),
    [("(?i)lm_head.weight", 2), ("lm_head.weight|LM_h", 2), ("lm_(head|tail).weight", 1), ("lm_head[|].", 0)],
)
def test_beginnings_that_are_not_those_of_every_match(text, count):
    """Flags and alternatives outside parentheses; one inside leaves the beginning as it is."""
    names = ["LM_head.weight", "lm_head.weight"]
    assert len(list(matches(parse_pattern(text, Budget()), names, Budget()))) == count


def test_experts_of_an_altered_scan_do_not_fill_the_memory(tmp_path):
    """A stack of 10^12 experts is not counted: the scan is found to be wrong, and its config is not matched."""
    scan = moe()
    huge = Unscored("model.layers.3.mlp.experts.*.w1.weight", "experts", (10**12, 4, 4))
    scan = Scan(scan.model, scan.settings, scan.parameters, (*scan.unscored, huge), {})
    Path("c.yml").write_text("unfrozen_parameters: ['^lm_head.weight$']")
    config, _ = read_listed_config(Path("c.yml"))
    (item,) = check_config(config, scan, None)
    assert (item.code, item.file) == ("SPC105", "")
    assert item.message.startswith("The scan speaks of 1,000,000,000,026 parameters of experts, 1,000,000,000,000 of ")


def test_lines_of_yaml_forms(tmp_path):
    """Quoted, folded and flow entries keep their own lines."""
    Path(CONFIG).write_text("a: 1\nunfrozen_parameters: [^x$,\n  'y',\n\n  \"z\"]\n")
    config, found = read_listed_config(Path(CONFIG))
    assert (config.patterns, found) == (((2, "^x$"), (3, "y"), (5, "z")), [])
