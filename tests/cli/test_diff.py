"""`spectrum diff` on real scan files."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from selection.scans import entry, layers, make_scan

from spectrum.results import write_scan


def _write(name, entries, **model):
    scan = make_scan(entries)
    write_scan(replace(scan, model=replace(scan.model, id=name, **model)), Path(f"{name}.json"))


@pytest.fixture
def two():
    """A base model and one trained on: one type reordered, one as before, one alone; one missing, one new."""
    alone = [entry("model.layers.0.alone.weight", 1.0)]
    _write("base", [*layers([9, 7, 5, 3, 1], "a"), *layers([1, 2], "b"), *alone, entry("model.layers.9.a.weight", 8)])
    _write("tuned", [*layers([1, 7, 5, 3, 9], "a"), *layers([1, 2], "b"), *alone, entry("model.layers.3.b.weight", 0)],
           revision="f" * 40)  # fmt: skip


_TEXT = f"""\
A: base, noise model iqr
B: tuned @ {"f" * 40}, noise model iqr

module type  compared  Spearman  missing  new
a                   5    -0.600        1    0
alone               1         -        0    0
b                   2     1.000        0    1

selection  A  B  both  Jaccard
top 40 %   4  4     2    0.333
top 100 %  9  9     8    0.800

largest movers           rank in A  rank in B  of
model.layers.0.a.weight          1          5   5
missing in B: 1 parameters, model.layers.9.a.weight
new in B: 1 parameters, model.layers.3.b.weight
"""


def test_golden_text(two, run):
    """The whole of it; what is left out is said on stderr."""
    code, out, err = run("diff", "base.json", "tuned.json", "--at", "40,100", "--movers", "1")
    assert (code, out) == (0, _TEXT)
    assert err == "2 parameters changed their rank; --movers shows more of them.\n"


def test_golden_json(two, run):
    """Strict, keys sorted, all movers."""
    code, out, err = run(
        "diff", "base.json", "tuned.json", "--at", "40", "--modules", "b", "--modules", "alone", "--json"
    )
    expected = {
        "first": {"id": "base", "noise_model": "iqr", "revision": None},
        "missing": [],
        "module_types": [
            {"compared": 1, "label": "alone", "missing": 0, "module_type": "model.layers.*.alone", "new": 0,
             "spearman": None},
            {"compared": 2, "label": "b", "missing": 0, "module_type": "model.layers.*.b", "new": 1, "spearman": 1.0},
        ],
        "moves": [],
        "new": ["model.layers.3.b.weight"],
        "overlaps": [{"first": 2, "jaccard": 1.0, "percent": 40.0, "second": 2, "shared": 2}],
        "reshaped": [],
        "second": {"id": "tuned", "noise_model": "iqr", "revision": "f" * 40},
    }  # fmt: skip
    assert (code, out, err) == (0, json.dumps(expected, indent=1) + "\n", "")


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["base.json", "base.json", "--fail-below", "1"], 0, ""),
        (["base.json", "tuned.json", "--fail-below", "-0.9", "--exclude", "b"], 1,
         "spectrum: 1 parameters missing and 0 new, such as 'model.layers.9.a.weight', have no rank to compare.\n"),
        (["tuned.json", "reordered.json", "--fail-below", "0.9"], 1,
         "spectrum: The rankings of a correlate by -1 (Spearman), below 0.9.\n"),
        (["tuned.json", "reordered.json", "--fail-below", "0.9", "--exclude", "a"], 0, ""),
        (["tuned.json", "reordered.json", "--fail-below", "-0.5", "--modules", "alone"], 1,
         "spectrum: No module type has a correlation: each has fewer than two parameters, or equal scores.\n"),
    ],
)  # fmt: skip
def test_fail_below(two, run, words, code, message):
    """For CI: exit 1 and one line; the comparison stands on stdout all the same."""
    _write("reordered", [*layers([9, 3, 5, 7, 1], "a"), *layers([1, 2], "b"),
                         entry("model.layers.0.alone.weight", 1.0), entry("model.layers.3.b.weight", 0)])  # fmt: skip
    got, out, err = run("diff", *words, "--movers", "0")
    assert (got, err) == (code, message)
    assert out.startswith("A: ")


def test_two_noise_models_of_one_scan(llama, run):
    """From the stored spectra: as two scans made under them."""
    for name in ("iqr", "mp"):
        run("scan", "--model", llama, "--noise-model", name, "--out", name)
    scan, other = "iqr/tiny-llama.json", "mp/tiny-llama.json"
    _, expected, _ = run("diff", scan, other, "--json")
    _, found, _ = run("diff", scan, scan, "--other-noise-model", "mp", "--json")
    assert found == expected
    _, found, _ = run("diff", other, other, "--noise-model", "iqr", "--other-noise-model", "mp", "--json")
    assert found == expected
    _, out, _ = run("diff", scan, other, "--noise-model", "mp", "--fail-below", "1")
    assert out.count("noise model mp") == 2


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--at", "0"], 2, "0 is out of range: give more than 0, at most 100."),
        (["--at", "10,x"], 2, "'10,x' is not a list of percentages: give numbers such as 10,25,50."),
        (["--at", ""], 2, "'' is not a list of percentages"),
        (["--fail-below", "1.5"], 2, "1.5 is out of range: give more than -1 and at most 1."),
        (["--fail-below", "nan"], 2, "nan is out of range"),
        (["--movers", "-1"], 2, "Invalid value for '--movers'"),
        (["--modules", "x"], 1, "No module type matches 'x'"),
        (["--noise-model", "mp"], 1, "'base.spectra.safetensors' does not exist"),
    ],
)
def test_wrong_input(two, run, words, code, message):
    """One line, nothing on stdout."""
    got, out, err = run("diff", "base.json", "tuned.json", *words)
    assert (got, out, err.count("\n")) == (code, "", 1)
    assert message in err
