"""Every finding: what it takes to get it, where it is, and that a sound project has none."""

import json
import re
from pathlib import Path

import pytest
import yaml
from checking.cases import CASES, GATE, config, edit, older
from checking.conftest import CONFIG, SCAN

import spectrum
from spectrum.checking import RULES
from spectrum.checking.findings import Finding, ordered


def found(run, *words, scan=SCAN):
    """(exit code, findings) of a check."""
    code, out, err = run("check", scan, *words, "--format", "json")
    assert err == ""
    return code, json.loads(out)["findings"]


def codes(run, *words, scan=SCAN):
    return [item["code"] for item in found(run, *words, scan=scan)[1]]


def test_a_sound_project(project, run):
    """Nothing is found, with everything looked at; --strict changes nothing."""
    words = ("check", SCAN, "--config", CONFIG, "--model", "tiny-llama", "--strict")
    out = "0 errors, 0 warnings, 0 notes; looked at: scan, model, names, config, trainer, selection\n"
    assert run(*words) == (0, out, "")


def test_from_python(project):
    """One call, with the findings of the command."""
    assert spectrum.check(SCAN, config=CONFIG, model="tiny-llama") == []
    config("adapter: lora")
    assert [item.code for item in spectrum.check(SCAN, config=CONFIG)] == ["SPC501"]


def test_a_case_for_every_rule():
    """Codes are unique, in order, and none lacks its test."""
    assert list(CASES) == [rule.code for rule in RULES] == sorted({rule.code for rule in RULES})


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.code)
def test_every_rule(project, run, monkeypatch, rule):
    """Broken, it is found with its severity, a sentence and a remedy; the exit code follows the severities."""
    words = CASES[rule.code](monkeypatch)
    code, findings = found(run, *words)
    mine = [item for item in findings if item["code"] == rule.code]
    assert mine, findings
    assert {item["severity"] for item in mine} == {rule.severity}
    assert all(re.fullmatch(r".+[.]", item["message"]) and re.fullmatch(r".+[.]", item["remedy"]) for item in mine)
    assert code == int(any(item["severity"] == "error" for item in findings))
    serious = {item["severity"] for item in findings} & {"error", "warning"}
    assert run("check", SCAN, *words, "--strict")[0] == int(bool(serious))


def test_lines_in_the_config(project, run):
    """A finding stands at the line of its setting or pattern, as an editor counts them."""
    config("adapter: lora", "gradient_checkpointing_kwargs:", "  use_reentrant: true", lines=["^nothing$", "^lm_head"])
    text = Path(CONFIG).read_text().splitlines()
    lines = {item["code"]: text[item["line"] - 1] for item in found(run, "--config", CONFIG)[1]}
    assert lines == {"SPC501": "adapter: lora", "SPC502": "  use_reentrant: true", "SPC407": '- "^nothing$"'}


def test_lines_in_the_scan(project, run):
    """A wrong field is named, and so is one with NaN; where the JSON breaks off, the line is given."""
    edit(lambda scan: scan["parameters"][GATE].update(kind="mystery"))
    (item,) = found(run)[1]
    assert (item["code"], GATE in item["message"]) == ("SPC105", True)
    CASES["SPC102"](None)
    strict, field = found(run)[1]
    assert (strict["code"], field["code"], "model.layers." in field["message"]) == ("SPC102", "SPC105", True)
    text = Path(SCAN).read_text().splitlines(keepends=True)
    Path(SCAN).write_text("".join(text[:50]))
    (item,) = found(run)[1]
    assert (item["code"], item["line"]) == ("SPC101", 51)


def test_doubled_key(project, run):
    """Python's parser takes the last; strict JSON does not know."""
    text = Path(SCAN).read_text().replace('"complete": true', '"complete": false, "complete": true')
    Path(SCAN).write_text(text)
    (item,) = found(run)[1]
    assert (item["code"], "'complete'" in item["message"]) == ("SPC102", True)


def test_scores_that_do_not_follow_from_the_spectra(project, run):
    """A score edited by one in ten thousand is found; by less than float noise across machines it is not."""

    def _scale(factor):
        edit(lambda scan: scan["parameters"][GATE].update(snr=scan["parameters"][GATE]["snr"] * factor))

    _scale(1 + 1e-8)
    assert codes(run) == []
    _scale(1.0001)
    (item,) = found(run)[1]
    assert (item["code"], GATE in item["message"]) == ("SPC114", True)


def test_what_the_shapes_tell(project, run):
    """An unscored parameter taken out, one listed twice, one without a reason."""
    edit(lambda scan: scan["unscored"].pop("model.norm.weight"))
    assert codes(run) == ["SPC107"]
    edit(lambda scan: scan["unscored"].update({"model.norm.weight": {"kind": "norm", "shape": [64]}}))
    assert codes(run) == []
    edit(lambda scan: scan["skipped"].pop("model.norm.weight"))
    assert codes(run) == ["SPC107"]


def test_imported_scan_against_a_model(project, run):
    """Its names are compared although it has no fingerprint."""
    older({"model.layers.0.mlp.up_proj": {"snr": 1.0, "type": "q"}})
    assert "SPC306" not in codes(run, "--model", "tiny-llama")
    older({"model.layers.0.block_sparse_moe.w1": {"snr": 1.0, "type": "q"}})
    found_here = codes(run, "--model", "tiny-llama")
    assert {"SPC205", "SPC306"} <= set(found_here)


def test_names_are_compared_only_with_the_installed_transformers(project, run):
    """With another version asked for, what is installed proves nothing."""
    CASES["SPC306"](None)
    assert "SPC306" not in codes(run, "--model", "tiny-llama", "--transformers", "5.0.0")


def test_header_gives_percentage_and_noise_model(project, run):
    """What the list was made with is read from the comment above it; the options overrule it."""
    _, listed, _ = run("select", SCAN, "--top", "75", "--noise-model", "std")
    Path(CONFIG).write_text(listed)
    assert codes(run, "--config", CONFIG) == []
    assert codes(run, "--config", CONFIG, "--top", "50") == ["SPC415"]
    Path(CONFIG).write_text("\n".join(line for line in listed.splitlines() if not line.startswith("#")))
    assert codes(run, "--config", CONFIG, "--top", "75", "--noise-model", "std") == []
    assert set(codes(run, "--config", CONFIG)) == {"SPC415", "SPC416"}


def test_options_of_the_selection(project, run):
    """A list made with them is exact with them, by its header alone, and not with others."""
    words = ("--modules", "mlp.*", "--embeddings", "freeze", "--norms", "train")
    _, listed, _ = run("select", SCAN, "--top", "50", *words)
    Path(CONFIG).write_text(listed)
    assert codes(run, "--config", CONFIG) == codes(run, "--config", CONFIG, "--top", "50", *words) == []
    assert set(codes(run, "--config", CONFIG, "--top", "50")) == {"SPC415", "SPC416"}


_PUBLISHED = {
    "HuggingFaceTB-SmolLM-135M": {"SPC102", "SPC104", "SPC108", "SPC301"},
    "deepseek-ai-DeepSeek-V3.1-Base": {"SPC101"},
    "meta-llama-Meta-Llama-3-8B": {"SPC104", "SPC108", "SPC301", "SPC601"},
    "meta-llama-Meta-Llama-3.1-8B-Instruct": {"SPC102", "SPC104", "SPC108", "SPC301"},
    "mistralai-Mixtral-8x22B-v0.1": {"SPC102", "SPC104", "SPC108", "SPC110", "SPC301", "SPC304", "SPC601"},
    "openai-gpt-oss-120b": {"SPC104", "SPC108", "SPC110", "SPC111", "SPC301"},
}


@pytest.mark.parametrize("name", _PUBLISHED)
def test_published_files(published, run, name):
    """What is wrong with each of them is said, and no more."""
    path = published / f"snr_results_{name}.json"
    assert set(codes(run, "--transformers", "5.16.1", scan=path)) == _PUBLISHED[name]


def test_published_file_imported(published, run):
    """After the import it is a scan file; what it cannot tell is still said."""
    run("import", published / "snr_results_openai-gpt-oss-120b.json")
    scan = "snr_results/openai-gpt-oss-120b.json"
    assert set(codes(run, scan=scan)) == {"SPC108", "SPC110", "SPC111", "SPC301"}


def test_zero_3_without_a_range_of_rows(project, run):
    """Whole parameters go with it."""
    assert codes(run, *config("deepspeed: deepspeed_configs/zero3_bf16.json")) == []


def test_order_of_findings():
    """By file, line, code; whole-file findings first."""
    places = [("b", 2, "SPC407"), ("b", 10, "SPC405"), ("b", None, "SPC101"), ("a", 9, "SPC101")]
    items = [Finding(code, "m", "r", file, line) for file, line, code in places]
    assert ordered(reversed(items)) == [items[3], items[2], items[0], items[1]]


@pytest.mark.parametrize("words", [["--top", "0"], ["--format", "xml"], ["--nonsense"]])
def test_wrong_usage(project, run, words):
    """Exit 2 and one line."""
    code, out, err = run("check", SCAN, *words)
    assert (code, out, err.count("\n")) == (2, "", 1)


def test_no_such_scan(run):
    """A finding like any other."""
    assert codes(run, scan="nowhere.json") == ["SPC101"]


def test_a_nearly_saturated_selection(project, run):
    """One value of 64 at or below the threshold is a warning about the selection; two are not, nor is none."""
    lines = yaml.safe_load(Path(CONFIG).read_text())["unfrozen_parameters"]
    name = next(line.strip("^$") for line in lines if "mlp.up_proj" in line)
    for signal, warned in ((63, True), (62, False), (64, False)):
        edit(lambda scan, signal=signal: scan["parameters"][name].update(signal_count=signal))
        code, findings = found(run, "--config", CONFIG)
        remarks = [item["message"] for item in findings if item["code"] == "SPC601"]
        assert (code, len(remarks)) == (0, int(warned))
        assert not warned or remarks[0].startswith(f"'{name}' is nearly saturated: 1 of its 64 singular values lies at")
