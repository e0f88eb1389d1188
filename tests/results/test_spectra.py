"""The spectra file, and scores computed from it anew."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from spectrum.checkpoint import Fingerprint
from spectrum.errors import ScanFileError
from spectrum.results import Spectra, matrix_key, read_all_spectra, read_spectra, write_spectra
from spectrum.scanning.scoring import rescore
from spectrum.spectra.snr import snr

_PRINT = Fingerprint("h", "samples:c")


def _spectra(scan):
    random = np.random.default_rng(1)
    keys = [
        matrix_key(item.name, label)
        for item in scan.parameters
        for label in ([matrix.label for matrix in item.matrices] or [""])
    ]
    return {key: np.sort(random.uniform(0.5, 3.0, size=8))[::-1] for key in keys}


def test_round_trip(scan, tmp_path):
    """Every value comes back bit for bit."""
    spectra = _spectra(scan)
    write_spectra(spectra, tmp_path / "x.spectra.safetensors", fingerprint=_PRINT)
    back = read_spectra(tmp_path / "x.spectra.safetensors", fingerprint=_PRINT)
    assert (
        set(back)
        == set(spectra)
        == {
            "model.layers.2.experts.down#0",
            "model.layers.2.experts.down#1",
            "model.layers.2.mlp.up_proj.weight",
            "model.layers.10.mlp.up_proj.weight",
        }
    )
    for key, values in spectra.items():
        assert (back[key] == values).all()


def test_how_they_were_computed_comes_back(scan, tmp_path):
    """Algorithm, precision and the matrices that were redone; the file is as readable as any other."""
    path = tmp_path / "x.spectra.safetensors"
    spectra = Spectra(_spectra(scan), {"model.layers.2.mlp.up_proj.weight": "svd-float64"}, 7, "float32")
    write_spectra(spectra, path, fingerprint=_PRINT)
    back = read_all_spectra(path, fingerprint=_PRINT)
    assert (back.redone, back.algorithm, back.precision) == (spectra.redone, 7, "float32")
    (tmp_path / "plain").touch()
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_same_bytes_in_another_process(tmp_path):
    """safetensors writes metadata in the order of a hash map that is seeded anew in each process."""
    code = (
        "import sys, numpy as np, pathlib\n"
        "from spectrum.checkpoint import Fingerprint\n"
        "from spectrum.results import write_spectra\n"
        "arrays = {f'a.{i}': np.arange(4.0)[::-1] for i in range(20)}\n"
        "write_spectra(arrays, pathlib.Path(sys.argv[1]), fingerprint=Fingerprint('h', 'c'))\n"
    )
    for name in "abc":
        subprocess.run([sys.executable, "-c", code, str(tmp_path / name)], check=True)
    assert len({(tmp_path / name).read_bytes() for name in "abc"}) == 1


@pytest.mark.parametrize("model", ["mp", "gavish-donoho", "std", "iqr"])
def test_rescore(scan, model):
    """Each parameter gets the score of its own spectrum; experts the median of theirs."""
    spectra = _spectra(scan)
    again = rescore(scan, spectra, model)
    assert again.settings.noise_model == model
    by_name = {item.name: item for item in again.parameters}
    plain = by_name["model.layers.2.mlp.up_proj.weight"]
    assert plain.score == snr(spectra[plain.name], (8, 32), noise_model=model)
    experts = by_name["model.layers.2.experts.down"]
    scores = [snr(spectra[f"{experts.name}#{n}"], (8, 8), noise_model=model) for n in (0, 1)]
    assert [matrix.score for matrix in experts.matrices] == scores
    assert experts.score.threshold == np.median([score.threshold for score in scores])


def test_a_spectrum_is_missing(scan):
    """Named together with what to do."""
    spectra = _spectra(scan)
    del spectra["model.layers.2.experts.down#1"]
    with pytest.raises(ScanFileError, match="no valid spectrum of 'model.layers.2.experts.down'"):
        rescore(scan, spectra, "mp")


def test_an_imported_scan_has_no_shapes(scan):
    """It cannot be scored anew."""
    parameters = tuple(replace(item, shape=None, matrices=()) for item in scan.parameters)
    with pytest.raises(ScanFileError, match="no valid spectrum"):
        rescore(replace(scan, parameters=parameters), _spectra(scan), "mp")


def test_spectra_of_other_weights(scan, tmp_path):
    """A spectra file left over from other weights is not used."""
    path = tmp_path / "x.spectra.safetensors"
    write_spectra(_spectra(scan), path, fingerprint=Fingerprint("h", "samples:other"))
    with pytest.raises(ScanFileError, match="are of other weights than the scan"):
        read_spectra(path, fingerprint=_PRINT)
    with pytest.raises(ScanFileError, match="are of other weights than the scan"):
        read_spectra(path, fingerprint=None)


def test_files_that_are_no_spectra(tmp_path):
    """Missing and damaged."""
    with pytest.raises(ScanFileError, match="does not exist, and other noise models are computed from it"):
        read_spectra(tmp_path / "x.spectra.safetensors", fingerprint=_PRINT)
    (tmp_path / "x.spectra.safetensors").write_bytes(b"\0" * 30)
    with pytest.raises(ScanFileError, match="is not a valid spectra file"):
        read_spectra(tmp_path / "x.spectra.safetensors", fingerprint=_PRINT)
