"""The commands in Python, a line each, on the files that the commands write."""

import subprocess
import sys
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


def test_import_is_light():
    """Neither torch nor transformers, not even for choosing."""
    use = "spectrum.select, spectrum.diff, spectrum.Scan"
    code = f"import sys, spectrum; {use}; print({{'torch', 'transformers'}} & {{*sys.modules}})"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
