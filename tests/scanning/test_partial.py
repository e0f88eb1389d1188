"""The partial file: what survives a kill, and what is not taken over."""

import json
import resource
from dataclasses import replace

import numpy as np
import pytest

from spectrum.checkpoint import Fingerprint, open_checkpoint
from spectrum.errors import SpectrumError
from spectrum.results import Settings, Spectra
from spectrum.scanning.partial import PartialScan
from spectrum.scanning.plan import plan_scan, with_device
from spectrum.scanning.store import planned_shapes

_VALUES = np.array([3.0, 1 / 3, 1e-300, 0.0])


@pytest.fixture
def path(tmp_path):
    return tmp_path / "m.partial.jsonl"


def _write(path, scan, keys=("a", "b#0")):
    with PartialScan(path, scan.model, scan.settings) as partial:
        for key in keys:
            partial.append(key, _VALUES, redone="svd-float64" if key == "a" else None)


def test_what_was_finished_comes_back_bit_for_bit(scan, path):
    """Keys, spectra and the paths taken."""
    _write(path, scan)
    with PartialScan(path, scan.model, scan.settings) as partial:
        assert list(partial.spectra.values) == ["a", "b#0"]
        assert all((values == _VALUES).all() for values in partial.spectra.values.values())
        assert partial.spectra.redone == {"a": "svd-float64"}
        assert partial.set_aside is None


def test_each_line_is_out_before_the_next_begins(scan, path):
    """Read by another while it is open: every appended matrix is there."""
    with PartialScan(path, scan.model, scan.settings) as partial:
        for number in range(3):
            partial.append(str(number), _VALUES, redone=None)
            assert len(path.read_bytes().splitlines()) == number + 2


def test_any_cut_loses_at_most_the_matrix_being_written(scan, path):
    """Cut at every byte: what stands in whole lines is taken over, and the file goes on from there."""
    _write(path, scan)
    whole = path.read_bytes()
    ends = [index + 1 for index, byte in enumerate(whole) if byte == ord("\n")]
    for cut in range(len(whole) + 1):
        path.write_bytes(whole[:cut])
        with PartialScan(path, scan.model, scan.settings) as partial:
            assert len(partial.spectra.values) == max(0, sum(end <= cut for end in ends) - 1)
            partial.append("c", _VALUES, redone=None)
        with PartialScan(path, scan.model, scan.settings) as partial:
            assert "c" in partial.spectra.values


@pytest.mark.parametrize("line", [b"[]", b"{}", b'{"key": "x", "values": "?"}', b'{"key": "x", "values": 3}', b"\xff"])
def test_a_damaged_line_ends_what_is_taken_over(scan, path, line):
    """It and what follows is done again."""
    _write(path, scan, keys=("a",))
    path.write_bytes(path.read_bytes() + line + b"\n" + path.read_bytes().splitlines()[1] + b"\n")
    with PartialScan(path, scan.model, scan.settings) as partial:
        assert list(partial.spectra.values) == ["a"]


@pytest.mark.parametrize("values", [[np.nan, 1], [np.inf, 1], [1, -1], [1, 2]])
def test_what_is_no_spectrum_is_not_taken_over(scan, path, values):
    """Whoever wrote it, its checksum right: singular values are finite, non-negative and descending."""
    with PartialScan(path, scan.model, scan.settings) as partial:
        partial.append("a", np.array(values, dtype=np.float64), redone=None)
    with PartialScan(path, scan.model, scan.settings) as partial:
        assert partial.spectra.values == {}


def test_a_spectrum_of_another_length_is_not_taken_over(llama, path):
    """A matrix has as many singular values as its smaller side; what the plan does not know is kept."""
    with open_checkpoint(llama) as checkpoint:
        plan = with_device(plan_scan(checkpoint, Settings(modules=("mlp.up_proj",))))
    name = plan.scored[0].name
    with PartialScan(path, plan.model, plan.settings) as partial:
        partial.append(name, _VALUES, redone="svd-float64")
        partial.append("of another scope", _VALUES, redone=None)
    spectra = Spectra()
    with PartialScan(path, plan.model, plan.settings) as partial:
        partial.add_to(spectra, planned_shapes(plan))
    assert list(spectra.values) == ["of another scope"]


def test_another_scan_is_set_aside(scan, path):
    """Other weights, precision or algorithm: moved, not mixed in, not lost."""
    others = [
        (replace(scan.model, fingerprint=Fingerprint("h", "samples:other")), scan.settings),
        (scan.model, replace(scan.settings, precision="float64")),
        (scan.model, replace(scan.settings, algorithm=scan.settings.algorithm + 1)),
    ]
    for model, settings in others:
        path.unlink(missing_ok=True)
        _write(path, scan)
        content = path.read_bytes()
        with PartialScan(path, model, settings) as partial:
            assert partial.spectra.values == {}
            assert partial.set_aside is not None
            assert partial.set_aside.read_bytes() == content


@pytest.mark.parametrize(
    "change", [{"device": "cuda:1"}, {"torch": "9"}, {"tool": "9"}, {"noise_model": "mp"}, {"modules": ("x",)}]
)
def test_what_does_not_change_a_spectrum_continues(scan, path, change):
    """Another device, version of torch or of the program, noise model or scope."""
    _write(path, scan)
    with PartialScan(path, replace(scan.model, transformers="9"), replace(scan.settings, **change)) as partial:
        assert len(partial.spectra.values) == 2


def test_files_written_in_between(scan, path):
    """An edit that the samples of the fingerprint miss shows in the files' times: nothing old is taken over."""
    with PartialScan(path, scan.model, scan.settings, files=[("s", 10, 1)]) as partial:
        partial.append("a", _VALUES, redone=None)
    with PartialScan(path, scan.model, scan.settings, files=[("s", 10, 2)]) as partial:
        assert partial.spectra.values == {}
        assert partial.set_aside is not None


def test_full_disk(scan, path):
    """A write that finds no room: one sentence that says what to do, and what stood before stays good."""
    with PartialScan(path, scan.model, scan.settings) as partial:
        partial.append("a", _VALUES, redone=None)
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 9, limits[1]))
        try:
            with pytest.raises(SpectrumError, match="cannot be written: .*Make room or choose"):
                partial.append("b", _VALUES, redone=None)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    with PartialScan(path, scan.model, scan.settings) as partial:
        assert list(partial.spectra.values) == ["a"]


def test_a_place_that_is_no_file(scan, path):
    """A folder of that name."""
    path.mkdir()
    with pytest.raises(SpectrumError, match="cannot be written: Is a directory"):
        PartialScan(path, scan.model, scan.settings)


def test_removed_when_finished(scan, path):
    """Nothing is left."""
    with PartialScan(path, scan.model, scan.settings) as partial:
        partial.append("a", _VALUES, redone=None)
        partial.remove()
    assert not path.exists()


def test_the_header_says_what_it_belongs_to(scan, path):
    """For a person who finds the file."""
    _write(path, scan)
    header = json.loads(path.read_text().splitlines()[0])
    assert (header["format"], header["model"]["id"], header["scan"]["precision"]) == (
        "spectrum-partial",
        "owner/name",
        "auto",
    )
