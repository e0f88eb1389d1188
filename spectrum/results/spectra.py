"""The spectra file: every singular value computed so far, so that nothing has to be decomposed twice."""

import json
import os
from collections.abc import Callable, Container, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from spectrum.checkpoint.fingerprint import Fingerprint
from spectrum.errors import ScanFileError
from spectrum.results.writer import replace_file
from spectrum.spectra.snr import Array
from spectrum.untrusted import is_name, parse_json

T = TypeVar("T")

_KEY = "spectrum"  # a single metadata entry: safetensors writes several in the random order of a hash map


@dataclass(frozen=True)
class Spectra:
    """Singular values of many matrices, all computed by one version of the algorithm.

    Attributes:
        values: matrix key -> (p,) float64, descending.
        redone: matrix key -> how it was decomposed, if not by the fast path.
        algorithm: version of the algorithm; files of release 0.1.0 do not say and have 1.
        precision: 'auto', 'float32' or 'float64'.
    """

    values: dict[str, Array] = field(default_factory=dict)
    redone: dict[str, str] = field(default_factory=dict)
    algorithm: int = 1
    precision: str = "auto"

    def add(self, key: str, values: Array, redone: str | None) -> None:
        """Add a matrix, or replace it."""
        self.values[key] = values
        self.redone.pop(key, None)
        if redone:
            self.redone[key] = redone

    def without(self, keys: Container[str]) -> "Spectra":
        """A copy without some matrices."""
        values = {key: values for key, values in self.values.items() if key not in keys}
        redone = {key: path for key, path in self.redone.items() if key not in keys}
        return Spectra(values, redone, self.algorithm, self.precision)


def matrix_key(parameter: str, label: str) -> str:
    """Name of a matrix in the spectra file and in messages: the parameter's, followed by the label if it has one."""
    return f"{parameter}#{label}" if label else parameter


def spectra_file(scan_file: Path) -> Path:
    """Where the spectra of a scan are: beside its file."""
    return scan_file.with_name(f"{scan_file.name.removesuffix('.json')}.spectra.safetensors")


def write_spectra(spectra: Spectra | Mapping[str, Array], path: Path, *, fingerprint: Fingerprint) -> None:
    """Write the spectra of a scan.

    Args:
        spectra: of a scan, or only matrix key -> (p,) float64, descending.
        path: ends in .spectra.safetensors; replaced in one step.
        fingerprint: of the checkpoint they were computed from.

    Raises:
        SpectrumError: the folder cannot be written to.
    """
    spectra = spectra if isinstance(spectra, Spectra) else Spectra(dict(spectra))
    origin = {"algorithm": spectra.algorithm, "precision": spectra.precision, "redone": spectra.redone}
    metadata = {_KEY: json.dumps(asdict(fingerprint) | origin, sort_keys=True)}
    arrays = {key: np.ascontiguousarray(values, dtype=np.float64) for key, values in spectra.values.items()}
    replace_file(path, lambda temporary: _save(arrays, temporary, metadata))


def _save(arrays: Mapping[str, Array], path: Path, metadata: Mapping[str, str]) -> None:
    """Write a file.

    Raises:
        OSError: it cannot be written; the library raises an error of its own if the disk is full.
    """
    try:
        save_file(dict(arrays), path, metadata=dict(metadata))
    except SafetensorError as error:
        raise OSError(str(error)) from error
    path.chmod(0o666 & ~_umask())  # the library makes files that only their owner can read


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def read_spectra(path: Path, *, fingerprint: Fingerprint | None) -> dict[str, Array]:
    """Read spectra back.

    Raises:
        ScanFileError: the file is missing or damaged, or belongs to other weights.
    """
    return read_all_spectra(path, fingerprint=fingerprint).values


def read_all_spectra(path: Path, *, fingerprint: Fingerprint | None) -> Spectra:
    """Read spectra back together with how they were computed. Errors as in `read_spectra`."""
    metadata, values = _read(path, fingerprint, lambda file, key: _spectrum(file.get_tensor(key)))
    algorithm, precision, redone = (metadata.get(key) for key in ("algorithm", "precision", "redone"))
    return Spectra(
        values,
        {key: path for key, path in redone.items() if is_name(path)} if isinstance(redone, dict) else {},
        algorithm if isinstance(algorithm, int) else 1,
        precision if isinstance(precision, str) else "auto",
    )


def read_fingerprint(path: Path) -> Fingerprint | None:
    """Which weights a spectra file belongs to; None if it does not exist or is not one."""
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = parse_json((file.metadata() or {}).get(_KEY, "null"))
        return Fingerprint(str(metadata["headers"]), str(metadata["content"]))
    except (SafetensorError, ValueError, TypeError, KeyError, OSError):
        return None


def is_spectrum(values: Array) -> bool:
    """Whether numbers can be singular values: finite, non-negative and descending."""
    return bool(np.isfinite(values).all() and (values >= 0).all() and (np.diff(values) <= 0).all())


def read_extremes(path: Path, *, fingerprint: Fingerprint | None) -> dict[str, tuple[float, float]]:
    """The largest and the smallest singular value of each matrix, without reading those between.

    Raises:
        ScanFileError: the file is missing or damaged, or belongs to other weights.
    """
    return _read(path, fingerprint, lambda file, key: _ends(file.get_slice(key)))[1]


def _read(
    path: Path, fingerprint: Fingerprint | None, read: Callable[[Any, str], T]
) -> tuple[dict[str, Any], dict[str, T]]:
    if not path.is_file():
        raise ScanFileError(
            f"The spectra file '{path}' does not exist, and other noise models are computed from it, as are condition "
            "numbers. Put it beside the scan file, or scan the model again."
        )
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = parse_json((file.metadata() or {}).get(_KEY, "null"))
            spectra = {key: read(file, key) for key in file.keys()}  # noqa: SIM118  not a dict
    except (SafetensorError, ValueError, TypeError, OSError) as error:
        raise ScanFileError(f"'{path}' is not a valid spectra file ({error}). Scan the model again.") from error
    stored = metadata if isinstance(metadata, dict) else {}
    if fingerprint is None or any(stored.get(key) != value for key, value in asdict(fingerprint).items()):
        raise ScanFileError(f"The spectra in '{path}' are of other weights than the scan. Scan the model again.")
    return stored, spectra


def _ends(values: Any) -> tuple[float, float]:
    (length,) = values.get_shape()
    if not length:
        raise ValueError("a spectrum is empty")
    return float(values[:1][0]), float(values[length - 1 :][0])


def _spectrum(values: Array) -> Array:
    """The values, if they can be a spectrum.

    Raises:
        ValueError: they are not a list of float64.
    """
    if values.ndim != 1 or values.dtype != np.float64:
        raise ValueError(f"a spectrum of {values.dtype} in {values.ndim} dimensions")
    return values
