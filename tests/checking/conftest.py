"""One scan of a tiny Llama for all tests of checks; each test works on a copy of its own."""

import shutil
from pathlib import Path

import pytest
import yaml
from conftest import llama_config, tiny_llama, write_checkpoint

import spectrum
from spectrum.results import file_stem, write_spectra
from spectrum.results.scan import Settings

SCAN = "snr_results/tiny-llama.json"
CONFIG = "axolotl.yml"


@pytest.fixture(scope="session")
def _scanned(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("scanned")
    folder = write_checkpoint(root / "tiny-llama", {"_": tiny_llama(layers=4)}, config=llama_config(4))
    with spectrum.open_checkpoint(folder) as checkpoint:
        plan = spectrum.plan_scan(checkpoint, Settings())
        scan, spectra = spectrum.run_scan(checkpoint, plan)
    stem = root / "snr_results" / file_stem(scan.model.id)
    write_spectra(spectra, Path(f"{stem}.spectra.safetensors"), fingerprint=scan.model.fingerprint)
    spectrum.write_scan(scan, Path(f"{stem}.json"))
    return root


@pytest.fixture
def project(_scanned, tmp_path, run) -> Path:
    """A checkpoint, its scan, and a config that trains its selection, in the current folder."""
    shutil.copytree(_scanned, tmp_path, dirs_exist_ok=True, copy_function=shutil.copy2)
    _, listed, _ = run("select", SCAN, "--top", "50")
    Path(CONFIG).write_text("base_model: ./tiny-llama\nlearning_rate: 1e-5\n" + listed)
    assert yaml.safe_load(listed)["unfrozen_parameters"]
    return tmp_path
