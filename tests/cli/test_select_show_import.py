"""The commands that work on stored scans."""

import json
import re
import statistics
from pathlib import Path

import pytest
import yaml
from conftest import LLAMA_SHAPES

from spectrum.results import read_scan

SCAN = "snr_results/tiny-llama.json"


def test_select_prints_the_yaml(scanned, run):
    """What scan wrote for 25 %, select prints; without the model."""
    code, out, err = run("select", SCAN, "--top", "25")
    assert (code, err) == (0, "")
    assert out == Path("snr_results/tiny-llama.top25.yaml").read_text()


def test_select_to_a_file(scanned, run):
    """--out writes there and prints nothing."""
    assert run("select", SCAN, "--top", "50", "--out", "deep/x.yaml") == (0, "", "Wrote 'deep/x.yaml'.\n")
    assert len(yaml.safe_load(Path("deep/x.yaml").read_text())["unfrozen_parameters"]) == 2 + 7 * 6


def test_select_options(scanned, run):
    """Modules, exclusion, embeddings, norms, noise model and JSON."""
    _, out, _ = run("select", SCAN, "--modules", "mlp.*", "--embeddings", "freeze")
    assert {line.split(".")[3] for line in yaml.safe_load(out)["unfrozen_parameters"]} == {"mlp"}
    _, out, _ = run("select", SCAN, "--exclude", "mlp.*", "--norms", "train")
    assert len(yaml.safe_load(out)["unfrozen_parameters"]) == 4 * 3 + 2 + 25
    _, out, _ = run("select", SCAN, "--noise-model", "mp", "--format", "json")
    assert json.loads(out)["noise_model"] == "mp"


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["select", "nowhere.json"], 1, "'nowhere.json' cannot be read: No such file or directory."),
        (["select", SCAN, "--top", "0"], 2, "0 is out of range"),
        (["select", SCAN, "--modules", "x*"], 1, "No module type matches 'x*'"),
        (["select"], 2, "Missing argument"),
        (["show", SCAN, "--heatmap", "--json"], 2, "give --heatmap or --json, not both"),
        (["show", SCAN, "--summary", "--sort", "SNR"], 2, "give --summary or --sort, not both"),
        (["import", SCAN], 1, "is a scan file of this program already"),
        (["select", SCAN, "--out", SCAN], 2, "is the scan itself"),
        (["select", SCAN, "--out", "/dev/null"], 1, "'/dev/null' is not a file that can be replaced"),
        (["select", "x" * 300], 1, "cannot be read: File name too long"),
        (["selct", SCAN], 2, "No such command 'selct'"),
    ],
)
def test_wrong_input(scanned, run, words, code, message):
    """One line, the right exit code."""
    got, out, err = run(*words)
    assert (got, out, err.count("\n")) == (code, "", 1)
    assert message in err


def test_noise_model_without_its_spectra(scanned, run):
    """The spectra file was not kept."""
    Path("snr_results/tiny-llama.spectra.safetensors").unlink()
    code, _, err = run("select", SCAN, "--noise-model", "mp")
    assert (code, "does not exist, and other noise models are computed from it" in err) == (1, True)


def test_half_a_scan_file(scanned, run):
    """Cut in half: one line, no traceback."""
    text = Path(SCAN).read_text()
    Path(SCAN).write_text(text[: len(text) // 2])
    code, out, err = run("select", SCAN)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert "it was cut off or altered. Scan the model again." in err


def test_show(scanned, run):
    """A row per parameter, best first within its module type; unwrapped in a pipe."""
    code, out, err = run("show", SCAN)
    header, *rows = out.splitlines()
    assert (code, err, len(rows)) == (0, "", 84)
    assert re.split("  +", header.strip())[0] == "module type"
    assert re.split(" +", header)[2:] == [
        "layer",
        "SNR",
        "ratio",
        "sigma_max",
        "threshold",
        "signal",
        "stable",
        "rank",
        "shape",
    ]
    assert [row.split()[0] for row in rows] == [kind for kind in sorted(LLAMA_SHAPES) for _ in range(12)]
    scores = [float(row.split()[2]) for row in rows[:12]]
    assert scores == sorted(scores, reverse=True)
    assert rows[0].endswith("64 x 96")


def test_show_heatmap(scanned, run):
    """A row per layer, a column per module type, the SNR in each cell."""
    _, out, _ = run("show", SCAN, "--heatmap")
    header, *rows = out.splitlines()
    assert header.split() == ["layer", *sorted(LLAMA_SHAPES)]
    assert [row.split()[0] for row in rows] == [str(number) for number in range(12)]
    scores = {item.name: item.snr for item in read_scan(Path(SCAN)).parameters}
    assert rows[7].split()[1] == f"{scores['model.layers.7.mlp.down_proj.weight']:.4g}"


def test_show_summary(scanned, run):
    """A row per module type, written out from the scan; with a pattern, only those."""
    _, out, err = run("show", SCAN, "--summary")
    header, *rows = out.splitlines()
    assert (err, header.split()) == ("", ["module", "type", "parameters", "lowest", "median", "highest", "saturated"])
    assert [row.split()[0] for row in rows] == sorted(LLAMA_SHAPES)
    scores = [item.snr for item in read_scan(Path(SCAN)).parameters if item.module_type.endswith("q_proj")]
    (row,) = (row.split() for row in rows if "q_proj" in row)
    assert [float(cell) for cell in row[2:5]] == pytest.approx(
        [min(scores), statistics.median(scores), max(scores)], rel=1e-3
    )
    assert (row[1], row[5]) == ("12", "0")
    assert len(run("show", SCAN, "--summary", "--modules", "mlp.*")[1].splitlines()) == 1 + 3


@pytest.mark.parametrize(
    ("column", "cell", "descending"),
    [("SNR", 2, True), ("layer", 1, False), ("sigma-max", 4, True), ("Stable_Rank", 7, True), ("signal", 6, True)],
)
def test_show_sorted(scanned, run, column, cell, descending):
    """All rows in the order of a column, across module types."""
    _, out, _ = run("show", SCAN, "--sort", column)
    values = [float(row.split()[cell]) for row in out.splitlines()[1:]]
    assert len(values) == 84
    assert values == sorted(values, reverse=descending)


def test_show_sorted_by_size(scanned, run):
    """A shape counts by its number of weights."""
    rows = run("show", SCAN, "--sort", "shape", "--modules", "*_proj")[1].splitlines()[1:]
    sizes = [int(row.split()[-3]) * int(row.split()[-1]) for row in rows]
    assert sizes == sorted(sizes, reverse=True)


@pytest.mark.parametrize("column", ["snrr", "", "rank", "x" * 300])
def test_an_unknown_column(scanned, run, column):
    """The error names the columns."""
    code, out, err = run("show", SCAN, "--sort", column)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "is not a column: give one of 'module type', layer, SNR, ratio, sigma_max" in err


def test_show_json(scanned, run):
    """The scan file itself; with a pattern, the part of it."""
    _, out, _ = run("show", SCAN, "--json")
    assert out == Path(SCAN).read_text()
    _, out, _ = run("show", SCAN, "--json", "--modules", "mlp.*")
    assert len(json.loads(out)["parameters"]) == 36


def test_import(published, run):
    """The path of the new file on stdout, the count on stderr, and the file works."""
    old = published / "snr_results_meta-llama-Meta-Llama-3-8B.json"
    code, out, err = run("import", old, "--model", "meta-llama/Meta-Llama-3-8B")
    assert (code, out) == (0, "snr_results/meta-llama--Meta-Llama-3-8B.json\n")
    first, warning = err.splitlines()
    assert first == "Imported 224 scores of 224 parameters."
    assert warning.startswith("warning: this file holds no infinite score. Since April 2025 ")
    code, out, err = run("select", out.strip())
    assert (code, len(yaml.safe_load(out)["unfrozen_parameters"])) == (0, 56)
    assert "lists no embedding and no head" in err
    assert run("show", "snr_results/meta-llama--Meta-Llama-3-8B.json", "--heatmap")[0] == 0


def test_import_of_infinities_does_not_warn(published, run):
    """A file with infinite scores says which matrices are saturated."""
    _, _, err = run("import", published / "snr_results_HuggingFaceTB-SmolLM-135M.json")
    assert "warning" not in err


def test_import_does_not_replace_a_scan(scanned, run, tmp_path):
    """An older file of the same model's name."""
    (tmp_path / "snr_results_tiny-llama.json").write_text('{"a.0.q": {"snr": 1, "type": "q"}}')
    code, _, err = run("import", "snr_results_tiny-llama.json")
    assert (code, "is a scan that was made here; choose another folder with --out." in err) == (1, True)


def test_an_altered_scan_of_a_saturated_zero(scanned, run):
    """Fields that contradict each other in a way the reader cannot see do not end in a traceback."""
    scan = json.loads(Path(SCAN).read_text())
    for entry in scan["parameters"].values():
        entry |= {"snr": None, "saturated": True, "ratio": None, "sigma_max": 0}
    Path(SCAN).write_text(json.dumps(scan))
    assert run("select", SCAN)[0] == 0


def test_a_link_stays_a_link(scanned, run):
    """--out through a symbolic link replaces the file it leads to."""
    Path("real.yaml").touch()
    Path("link.yaml").symlink_to("real.yaml")
    assert run("select", SCAN, "--out", "link.yaml")[0] == 0
    assert Path("link.yaml").is_symlink()
    assert Path("real.yaml").read_text().startswith("# Spectrum")


def test_import_of_the_empty_file(published, run):
    """One clear line."""
    code, out, err = run("import", published / "snr_results_deepseek-ai-DeepSeek-V3.1-Base.json")
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert "is empty: it holds no scores" in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--top", "abc"], "Invalid value for '--top': 'abc' is not a percentage: give a number such as 25 or 2.5%."),
        (["--strategy", "best"], "'best' is not one of 'top', 'bottom', 'random', 'first', 'last'."),
        (["--count", "0"], "greater than or equal to 1."),
    ],
)
def test_wrong_usage_is_whole_sentences(run, words, message):
    """Typer's own messages end in a full stop, too, and without the name of an exception."""
    code, out, err = run("select", SCAN, *words)
    assert (code, out) == (2, "")
    assert err.endswith(f"{message} Try 'spectrum select --help'.\n")
    assert "Value error" not in err


def test_help_lists_the_commands_in_the_order_of_their_use(run):
    """From scan to bench."""
    _, out, _ = run("--help")
    listed = [line.split()[0] for line in out.partition("Commands:")[2].splitlines() if line.startswith("  ")]
    assert [name for name in listed if name in ("scan", "select", "show", "diff", "budget", "check")] == [
        "scan",
        "select",
        "show",
        "diff",
        "budget",
        "check",
    ]


def test_a_scan_is_found_by_the_name_of_its_model(run):
    """`owner/name`, or the name of a folder, as `scan` stored it; a name without a scan is an error that says so."""
    numbers = {f"model.layers.{n}.mlp.up_proj": {"snr": n + 0.5, "type": "mlp.up_proj"} for n in range(4)}
    Path("old.json").write_text(json.dumps(numbers))
    assert run("import", "old.json", "--model", "Qwen/Qwen3-8B")[1] == "snr_results/Qwen--Qwen3-8B.json\n"
    for command in ("select", "show"):
        by_path = run(command, "snr_results/Qwen--Qwen3-8B.json")
        assert (by_path[0], run(command, "Qwen/Qwen3-8B")) == (0, by_path)
    assert run("diff", "Qwen/Qwen3-8B", "Qwen/Qwen3-8B")[0] == 0
    code, _, err = run("select", "Qwen/Qwen3-9B")
    assert (code, err.count("\n")) == (1, 1)
    assert "There is neither a scan file 'Qwen/Qwen3-9B' nor a scan of a model of that name in 'snr_results'." in err


def test_patterns_with_commas(run):
    """`--modules a,b` is `--modules a --modules b`."""
    names = ("mlp.up_proj", "mlp.down_proj", "self_attn.q_proj")
    numbers = {f"model.layers.{n}.{name}": {"snr": n + 0.5, "type": name} for n in range(4) for name in names}
    Path("old.json").write_text(json.dumps(numbers))
    run("import", "old.json", "--model", "m")
    both = run("select", "m", "--modules", "mlp.up_proj", "--modules", "self_attn.*", "--format", "names")[1]
    assert run("select", "m", "--modules", "mlp.up_proj, self_attn.*", "--format", "names")[1] == both
    assert both.count("\n") == 2


def test_a_fraction_in_place_of_a_percentage(run):
    """0.25 selects a quarter of a percent, and says how a quarter is written; 1 and more say nothing."""
    numbers = {f"model.layers.{n}.mlp.up_proj": {"snr": n + 0.5, "type": "mlp.up_proj"} for n in range(4)}
    Path("old.json").write_text(json.dumps(numbers))
    run("import", "old.json", "--model", "m")
    for top, said in (("0.25", "0.25 %; for a quarter give 25."), ("0.3", "0.3 %; for that share give 30.")):
        assert f"warning: this is {said}" in run("select", "m", "--top", top)[2]
    assert "warning: this is" not in run("select", "m", "--top", "1")[2]
    assert "warning: this is 0.5 %; for half give 50." in run("select", "m", "--per-type", "mlp.*=0.5")[2]
    assert "warning: this is 0.3 %; for that share give 30." in run("select", "m", "--trainable", "0.3")[2]
    assert "warning: this is" not in run("select", "m", "--per-type", "mlp.*=0")[2]
