"""The commands in Python, a line each, on the files that the commands write."""

import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

import spectrum
from spectrum.errors import SpectrumError
from spectrum.selection import Choice, Count

FILE = Path("snr_results/tiny-llama.json")


def test_from_a_model_to_a_list(llama, run):
    """Scan, select, export, compare, check: the same as the commands."""
    scan = spectrum.scan(llama)
    assert run("scan", "--model", llama, "-q")[0] == 0
    written = Path("snr_results/tiny-llama.top25.yaml").read_text()
    assert spectrum.export(spectrum.select(scan), scan) == written
    assert spectrum.select(FILE, 50).names == spectrum.select_top(scan, 50).names
    assert spectrum.select(str(FILE), Choice(Count(1))).names == spectrum.select(scan, Choice(Count(1))).names
    assert {group.label for group in spectrum.select(scan, modules=["mlp.up_proj"]).groups} == {"mlp.up_proj"}
    assert (
        spectrum.select(FILE, noise_model="mp").names == spectrum.select(spectrum.scan(llama, noise_model="mp")).names
    )
    assert spectrum.diff(FILE, scan).moves == ()
    assert not [finding for finding in spectrum.check(FILE, model=llama) if finding.severity == "error"]
    Path("c.yaml").write_text("".join(written.splitlines(keepends=True)[:-1]))
    assert [finding for finding in spectrum.check(FILE, config="c.yaml") if finding.severity == "error"]


def test_a_scan_without_a_path_has_no_spectra(llama):
    """Another noise model or condition numbers need the file."""
    scan = spectrum.scan(llama)
    with pytest.raises(SpectrumError, match="The singular values for noise model mp are beside the scan file"):
        spectrum.select(scan, noise_model="mp")
    with pytest.raises(SpectrumError, match="for condition numbers"):
        spectrum.select(scan, Choice(score="condition"))
    assert spectrum.select(FILE, Choice(score="condition")).names


@pytest.mark.parametrize("name", ["noise_model", "precision", "embeddings", "norms", "score", "strategy"])
def test_words_that_do_not_exist(llama, name):
    """Python takes the words that the command takes, and says which."""
    use = partial(spectrum.scan, llama) if name in ("noise_model", "precision") else Choice
    with pytest.raises(SpectrumError, match=f"'typo' is not a value of {name}: give one of '"):
        use(**{name: "typo"})
    assert not FILE.exists()


def test_a_stored_scan_has_no_such_noise_model(llama):
    """The spectra file is not to blame."""
    spectrum.scan(llama, modules="mlp.up_proj")
    with pytest.raises(SpectrumError, match="'typo' is not a value of noise_model"):
        spectrum.select(FILE, noise_model="typo")


def test_one_pattern_needs_no_list(llama):
    """A string is one pattern, not a list of letters."""
    scan = spectrum.scan(llama, modules="mlp.*", exclude="mlp.up_proj")
    assert {item.module_type for item in scan.parameters} == {
        "model.layers.*.mlp.gate_proj",
        "model.layers.*.mlp.down_proj",
    }
    assert {group.label for group in spectrum.select(scan, modules="*.gate_proj").groups} == {"mlp.gate_proj"}


def test_adapters_have_options(llama):
    """Rank and alpha, as --lora-rank and --lora-alpha."""
    scan = spectrum.scan(llama)
    selection = spectrum.select(scan, 25, embeddings="freeze")
    text = spectrum.export(selection, scan, "peft", lora=spectrum.LoraOptions(8, 32))
    assert (json.loads(text)["r"], json.loads(text)["lora_alpha"]) == (8, 32)


def test_import_is_light():
    """Neither torch nor transformers, not even for choosing."""
    use = "spectrum.select, spectrum.diff, spectrum.Scan"
    code = f"import sys, spectrum; {use}; print({{'torch', 'transformers'}} & {{*sys.modules}})"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
