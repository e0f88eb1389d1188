"""Scan files: strict JSON, keys sorted, no clock, the same bytes for the same scan, replaced in one step."""

import json
import os
import secrets
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from spectrum.errors import SpectrumError
from spectrum.results.scan import MatrixScore, ParameterScore, Scan
from spectrum.spectra.snr import Score

FORMAT = "spectrum-scan"
VERSION = 1


def file_stem(model_id: str) -> str:
    """File name of a model's results, without ending: the id with `/` as `--`."""
    return model_id.replace("/", "--")


def write_scan(scan: Scan, path: Path) -> None:
    """Write a scan file; a file that is there is replaced in one step, or not at all.

    Raises:
        SpectrumError: the folder cannot be written to.
    """
    text = json.dumps(scan_to_json(scan), allow_nan=False, sort_keys=True, indent=1, ensure_ascii=False)
    replace_file(path, lambda temporary: temporary.write_text(text + "\n", encoding="utf-8"))


def scan_to_json(scan: Scan) -> dict[str, Any]:
    """The scan as the JSON object of a scan file."""
    model, settings = asdict(scan.model), asdict(scan.settings)
    model["class"] = model.pop("model_class")
    return {
        "format": FORMAT,
        "version": VERSION,
        "model": model,
        "scan": settings,
        "parameters": {parameter.name: _parameter_to_json(parameter) for parameter in scan.parameters},
        "unscored": {entry.name: {"kind": entry.kind, "shape": entry.shape} for entry in scan.unscored},
        "skipped": dict(scan.skipped),
    }


def replace_file(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file beside `path`, then put it in the place of `path` in one step.

    Raises:
        SpectrumError: the folder cannot be made or written to, or the disk is full; `path` is as before.
    """
    try:
        target = _replaceable(path)
        temporary = _temporary(target)
        try:
            write(temporary)
            _flush_to_disk(temporary)
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise _unwritable(path, error) from error


def check_writable(path: Path) -> None:
    """Raise SpectrumError unless `replace_file` could write this file: before the slow part, not after it."""
    try:
        temporary = _temporary(_replaceable(path))
        temporary.touch()
        temporary.unlink()
    except OSError as error:
        raise _unwritable(path, error) from error


def _replaceable(path: Path) -> Path:
    """The file that a link leads to, which is replaced instead of the link; its folder is made."""
    if path.exists() and not path.is_file():
        raise SpectrumError(f"'{path}' is not a file that can be replaced. Choose another place.")
    path = path.resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _unwritable(path: Path, error: OSError) -> SpectrumError:
    return SpectrumError(f"'{path}' cannot be written: {error.strerror or error}. Choose another place.")


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")


def _flush_to_disk(path: Path) -> None:
    """After a power cut, a rename may be on disk without the data it names."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _parameter_to_json(parameter: ParameterScore) -> dict[str, Any]:
    entry = {
        "module_type": parameter.module_type,
        "layer": parameter.layer,
        "kind": parameter.kind,
        "shape": parameter.shape,
        "dtype": parameter.dtype,
        "tensors": parameter.tensors,
        **_score_to_json(parameter),
    }
    if parameter.matrices:
        entry["matrices"] = {
            matrix.label: {"shape": matrix.shape, **_score_to_json(matrix)} for matrix in parameter.matrices
        }
    return entry


def _score_to_json(scored: ParameterScore | MatrixScore) -> dict[str, Any]:
    entry: dict[str, Any] = {"snr": scored.snr, "saturated": scored.saturated}
    if scored.redone:
        entry["redone"] = scored.redone
    return entry | _facts(scored.score) if scored.score else entry


def _facts(score: Score) -> dict[str, Any]:
    return {key: value for key, value in asdict(score).items() if key not in ("snr", "saturated")}
