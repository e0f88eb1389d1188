"""The scan file: written byte for byte as stated, read back whole, and every wrong field named."""

import copy
import json

import pytest

from spectrum.errors import ScanFileError, SpectrumError
from spectrum.results import Settings, read_scan, replace_file, scan_from_json, scan_to_json, write_scan

_GOLDEN_PARAMETER = """\
  "model.layers.10.mlp.up_proj.weight": {
   "dtype": "BF16",
   "kind": "matrix",
   "layer": 10,
   "module_type": "model.layers.*.mlp.up_proj",
   "nuclear": 9.25,
   "ratio": null,
   "saturated": true,
   "shape": [
    8,
    32
   ],
   "sigma_max": 2.0,
   "signal_count": 8,
   "snr": null,
   "stable_rank": 4.0,
   "tensors": [
    "model.layers.10.mlp.up_proj.weight"
   ],
   "threshold": 0.0
  },
"""
_GOLDEN_HEAD = """\
{
 "format": "spectrum-scan",
 "model": {
  "auto_classes": {},
  "class": null,
  "fingerprint": {
   "content": "samples:c",
   "headers": "h"
  },
  "id": "owner/name",
  "name_mapping": "identity",
  "parameters": 1234,
  "revision": "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
  "transformers": null
 },
 "parameters": {
"""
_GOLDEN_TAIL = """\
 "scan": {
  "algorithm": 1,
  "all_modules": false,
  "complete": true,
  "device": "cpu",
  "exclude": [],
  "experts": null,
  "model_class": null,
  "modules": [],
  "names": "runtime",
  "noise_model": "iqr",
  "origin": null,
  "precision": "auto",
  "tool": "0.1.0",
  "torch": "2.13.0"
 },
 "skipped": {
  "model.norm.weight": "vector"
 },
 "unscored": {
  "lm_head.weight": {
   "kind": "head",
   "shape": [
    5,
    8
   ]
  },
  "model.norm.weight": {
   "kind": "norm",
   "shape": [
    8
   ]
  }
 },
 "version": 1
}
"""


def test_golden_text(scan, tmp_path):
    """Strict JSON, sorted, indented by one, a newline at the end."""
    write_scan(scan, tmp_path / "s.json")
    text = (tmp_path / "s.json").read_text()
    assert text.startswith(_GOLDEN_HEAD + _GOLDEN_PARAMETER)
    assert text.endswith(_GOLDEN_TAIL)
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def test_round_trip(scan, tmp_path):
    """What is read back equals what was written, in natural order: layer 2 before layer 10."""
    write_scan(scan, tmp_path / "s.json")
    assert read_scan(tmp_path / "s.json") == scan


def test_same_bytes_twice(scan, tmp_path):
    """No clock, no chance."""
    for name in ("a.json", "b.json"):
        write_scan(scan, tmp_path / name)
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


def test_a_failed_write_leaves_the_old_file(scan, tmp_path):
    """The disk fills up halfway: the file is as before and nothing is left beside it."""
    path = tmp_path / "s.json"
    write_scan(scan, path)
    before = path.read_bytes()

    def _fill_up(temporary):
        temporary.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    with pytest.raises(SpectrumError, match="s.json' cannot be written: No space left on device"):
        replace_file(path, _fill_up)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir() if entry.name != "cache"] == ["s.json"]


def test_a_folder_that_cannot_be(scan, tmp_path):
    """The output folder's place is taken by a file."""
    (tmp_path / "taken").touch()
    with pytest.raises(SpectrumError, match="cannot be written: .*Choose another place"):
        write_scan(scan, tmp_path / "taken" / "s.json")


_PLAIN = ("parameters", "model.layers.2.mlp.up_proj.weight")
_EXPERT = ("parameters", "model.layers.2.experts.down", "matrices", "1")
_WRONG = {
    "a number is NaN": ((*_PLAIN, "snr"), float("nan"), r"up_proj.weight'\].snr is nan, expected a finite number"),
    "a number is infinite": ((*_PLAIN, "nuclear"), float("inf"), r"nuclear is inf, expected a finite number"),
    "a number is negative": ((*_PLAIN, "threshold"), -1.0, r"threshold is -1.0, expected a finite number, 0 or more"),
    "a number is a text": ((*_PLAIN, "sigma_max"), "2", r"sigma_max is '2', expected a finite number"),
    "a number is a flag": ((*_PLAIN, "ratio"), True, r"ratio is True, expected a finite number"),
    "a flag is a number": ((*_PLAIN, "saturated"), 1, r"saturated is 1, expected true or false"),
    "saturated with a score": ((*_PLAIN, "saturated"), True, r"snr is 1.5, expected null if saturated is true"),
    "no score, not saturated": ((*_PLAIN, "snr"), None, r"snr is None, expected null if saturated is true"),
    "shape of texts": ((*_PLAIN, "shape"), ["8"], r"shape\[0\] is '8', expected a whole number"),
    "shape no list": ((*_PLAIN, "shape"), 8, r"shape is 8, expected a list"),
    "unknown kind": ((*_PLAIN, "kind"), "thing", r"kind is 'thing', expected one of 'matrix'"),
    "layer no number": ((*_PLAIN, "layer"), 1.5, r"layer is 1.5, expected a whole number"),
    "matrix shape": ((*_EXPERT, "shape"), [8], r"matrices\['1'\].shape is \[8\], expected two numbers"),
    "matrix score": ((*_EXPERT, "snr"), "x", r"matrices\['1'\].snr is 'x'"),
    "parameters no object": (("parameters",), [1], r"parameters is \[1\], expected an object"),
    "id no text": (("model", "id"), None, r"model.id is None, expected a string"),
    "mapping unknown": (("model", "name_mapping"), "guess", r"model.name_mapping is 'guess', expected one of 'exact'"),
    "noise model unknown": (("scan", "noise_model"), "x", r"scan.noise_model is 'x', expected one of 'iqr'"),
    "reason no text": (("skipped", "model.norm.weight"), 3, r"skipped\['model.norm.weight'\] is 3, expected a string"),
    "version": (("version",), 2, r"has version 2 of the scan format, this program reads 1"),
    "format": (("format",), "other", r"is not a scan file: it lacks '\"format\": \"spectrum-scan\"'"),
}


def _changed(document, path, value):
    document = copy.deepcopy(document)
    *inner, last = path
    target = document
    for key in inner:
        target = target[key]
    target[last] = value
    return document


@pytest.mark.parametrize("fault", _WRONG)
def test_errors_name_the_field(scan, fault):
    """One wrong field anywhere is found, and the message says which it is and what was expected."""
    path, value, message = _WRONG[fault]
    document = json.loads(json.dumps(scan_to_json(scan)))
    with pytest.raises(ScanFileError, match=message):
        scan_from_json(_changed(document, path, value), source="s.json")


def _paths(value, path=()):
    if isinstance(value, dict):
        for key, inner in value.items():
            yield (*path, key)
            yield from _paths(inner, (*path, key))


def test_every_field_must_be_there(scan):
    """Each field that is not a name of the model's own is required, except for settings, which have defaults."""
    document = json.loads(json.dumps(scan_to_json(scan)))
    # A plain matrix has no matrices, an imported score no details, a file of an earlier release no auto_classes.
    optional = {"matrices", "sigma_max", "auto_classes"}
    names = set(document["parameters"]) | set(document["unscored"]) | {"0", "1"}
    removed = 0
    for path in _paths(document):
        if path[-1] in optional | names or (path[0] == "scan" and len(path) == 2):
            continue
        without = _changed(document, path, None)
        target = without
        for key in path[:-1]:
            target = target[key]
        del target[path[-1]]
        with pytest.raises(ScanFileError, match="lacks the field|is not a scan file|has version"):
            scan_from_json(without, source="s.json")
        removed += 1
    assert removed > 50


def test_settings_that_a_file_lacks_have_defaults(scan):
    """A file of an earlier release says less, one of a later release more: both are read."""
    document = json.loads(json.dumps(scan_to_json(scan)))
    document["scan"] = {"tool": "0.0.1", "of a later release": 1}
    assert scan_from_json(document, source="s.json").settings == Settings(tool="0.0.1", algorithm=1)


def test_files_that_are_no_json(scan, tmp_path):
    """Cut in half, empty, missing, binary: one sentence each."""
    path = tmp_path / "s.json"
    write_scan(scan, path)
    whole = path.read_text()
    path.write_text(whole[: len(whole) // 2])
    with pytest.raises(ScanFileError, match=r"is not valid JSON \(line \d+\): it was cut off or altered"):
        read_scan(path)
    path.write_text("\n")
    with pytest.raises(ScanFileError, match="is empty: it holds no scores"):
        read_scan(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ScanFileError, match="it is not UTF-8 text"):
        read_scan(path)
    path.write_text("[" * 100_000)
    with pytest.raises(ScanFileError, match="is not valid JSON"):
        read_scan(path)
    with pytest.raises(ScanFileError, match="cannot be read: No such file"):
        read_scan(tmp_path / "other.json")
    path.write_text("[]")
    with pytest.raises(ScanFileError, match="An older result file is converted by 'spectrum import'"):
        read_scan(path)
