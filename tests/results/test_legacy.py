"""The authors' published result files, imported whole."""

import json
import math

import numpy as np
import pytest

from spectrum.errors import ScanFileError
from spectrum.results import import_scan, read_scan, write_scan
from spectrum.selection import rank, select_top

_ENTRIES = {
    "HuggingFaceTB-SmolLM-135M": 273,
    "meta-llama-Meta-Llama-3-8B": 224,
    "meta-llama-Meta-Llama-3.1-8B-Instruct": 291,
    "mistralai-Mixtral-8x22B-v0.1": 1624,
    "openai-gpt-oss-120b": 255,
}


def _numbers(path):
    """Layer -> score, read from either shape without the code under test."""
    value = json.loads(path.read_text())
    if "snr" in next(iter(value.values())):
        return {name: entry["snr"] for name, entry in value.items()}
    return {name: number for group in value.values() for name, number in group.items()}


def _imported(scan):
    """Layer -> score as imported, an expert's under the name it had in the file."""
    numbers = {}
    for item in scan.parameters:
        for label, snr in [(m.label, m.snr) for m in item.matrices] or [("", item.snr)]:
            numbers[item.name.removesuffix(".weight").replace("*", label)] = math.inf if snr is None else snr
    return numbers


@pytest.mark.parametrize("name", _ENTRIES)
def test_every_entry_with_its_number(published, name, tmp_path):
    """No entry is lost, none changed, and the imported scan survives its own file."""
    path = published / f"snr_results_{name}.json"
    scan = import_scan(path)
    assert scan.model.id == name
    assert scan.settings.origin == path.name
    assert _imported(scan) == _numbers(path)
    assert len(_imported(scan)) == _ENTRIES[name]
    write_scan(scan, tmp_path / "s.json")
    assert read_scan(tmp_path / "s.json") == scan


@pytest.mark.parametrize("name", _ENTRIES)
def test_order_is_kept(published, name):
    """Ranked by our rule, the scores of a module type descend, and all of them are there."""
    scan = import_scan(published / f"snr_results_{name}.json")
    for module_type in {item.module_type for item in scan.parameters}:
        members = [item for item in scan.parameters if item.module_type == module_type]
        scores = [math.inf if item.snr is None else item.snr for item in rank(members)]
        assert scores == sorted(scores, reverse=True)
        assert len(scores) == len(members)


def test_llama_3_8b_selects_the_eight_highest_of_each_type(published):
    """25 % of 32 layers: per module type the 8 highest, as sorting the file's own numbers gives."""
    path = published / "snr_results_meta-llama-Meta-Llama-3-8B.json"
    selection = select_top(import_scan(path), 25)
    value = json.loads(path.read_text())
    assert len(selection.groups) == 7
    for group in selection.groups:
        members = {name: entry["snr"] for name, entry in value.items() if entry["type"] == group.label}
        highest = sorted(members, key=members.get, reverse=True)[:8]
        assert [item.name.removesuffix(".weight") for item in group.selected] == highest


def test_mixtral_experts_become_one_parameter_a_layer(published):
    """Its 1,344 expert entries are 56 x 3 parameters of 8 matrices; each scores the median of its experts."""
    path = published / "snr_results_mistralai-Mixtral-8x22B-v0.1.json"
    scan, numbers = import_scan(path), _numbers(path)
    experts = [item for item in scan.parameters if item.kind == "experts"]
    assert len(experts) == 56 * 3
    for item in experts:
        name = item.name.removesuffix(".weight")
        values = [numbers[name.replace("*", str(expert))] for expert in range(8)]
        assert (math.inf if item.snr is None else item.snr) == float(np.median(values))


def test_mixtral_warns_of_its_names(published):
    """What a current trainer will not find is said."""
    selection = select_top(import_scan(published / "snr_results_mistralai-Mixtral-8x22B-v0.1.json"), 25)
    assert any("are those of transformers 4" in warning for warning in selection.warnings)


def test_norms_and_embeddings_are_not_ranked(published):
    """The authors' program ranked one-value norms by file order; here they follow --norms and --embeddings."""
    selection = select_top(import_scan(published / "snr_results_HuggingFaceTB-SmolLM-135M.json"), 25)
    assert {group.label for group in selection.groups} == {
        *(f"self_attn.{name}_proj" for name in "qkvo"),
        *(f"mlp.{name}_proj" for name in ("gate", "up", "down")),
    }
    assert selection.embeddings == ("lm_head.weight", "model.embed_tokens.weight")


def test_the_empty_file(published):
    """DeepSeek-V3.1's result is empty: one clear line."""
    with pytest.raises(ScanFileError, match="DeepSeek-V3.1-Base.json' is empty: it holds no scores"):
        import_scan(published / "snr_results_deepseek-ai-DeepSeek-V3.1-Base.json")


def test_experts_score_their_median(tmp_path):
    """Of 1, 2 and 30 it is 2; the numbers of the file are kept, in natural order of the expert."""
    entries = {f"a.0.experts.{expert}.w1": {"snr": snr, "type": "w1"} for expert, snr in ((10, 30), (2, 1), (1, 2))}
    (tmp_path / "x.json").write_text(json.dumps(entries))
    (item,) = import_scan(tmp_path / "x.json").parameters
    assert (item.name, item.snr, item.kind) == ("a.0.experts.*.w1.weight", 2.0, "experts")
    assert [(matrix.label, matrix.snr) for matrix in item.matrices] == [("1", 2), ("2", 1), ("10", 30)]


def test_nan_is_skipped_with_its_reason(tmp_path):
    """NaN was the authors' word for a matrix they could not read."""
    path = tmp_path / "snr_results_x.json"
    path.write_text('{"a.0.q": {"snr": NaN, "type": "q"}, "a.1.q": {"snr": Infinity, "type": "q"}}')
    scan = import_scan(path, model_id="owner/x")
    assert [(item.name, item.snr, item.saturated) for item in scan.parameters] == [("a.1.q.weight", None, True)]
    assert scan.skipped == {"a.0.q": "NaN in the older file"}
    assert scan.model.id == "owner/x"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}", "holds no scores"),
        ("[]", "holds no scores"),
        ('{"a": {"snr": "high", "type": "q"}}', "the score of 'a' is 'high', expected a number"),
        ('{"a": {"snr": -1, "type": "q"}}', "the score of 'a' is -1"),
        ('{"a": 3}', "none of the shapes of a result file"),
        ('{"q": {"a": null}}', "the score of 'a' is None"),
        ('{"format": "spectrum-scan"}', "is a scan file of this program already"),
    ],
)
def test_what_is_no_older_file(tmp_path, text, message):
    """Refused with the reason."""
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(ScanFileError, match=message):
        import_scan(tmp_path / "x.json")
