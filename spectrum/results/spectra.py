"""The spectra file: every singular value of a scan, so that other noise models need no second scan."""

import json
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from spectrum.checkpoint.fingerprint import Fingerprint
from spectrum.errors import ScanFileError
from spectrum.results.scan import MatrixScore, ParameterScore, Scan
from spectrum.results.writer import replace_file
from spectrum.spectra.snr import Array, NoiseModel, Score, median_score, snr, snr_of_each
from spectrum.untrusted import parse_json

T = TypeVar("T")

_KEY = "spectrum"  # one metadata entry only: safetensors writes several in the random order of a hash map


def matrix_key(parameter: str, label: str) -> str:
    """Name of a matrix in the spectra file and wherever one is named: the parameter, and the label where it has one."""
    return f"{parameter}#{label}" if label else parameter


def write_spectra(spectra: Mapping[str, Array], path: Path, *, fingerprint: Fingerprint) -> None:
    """Write the spectra of a scan.

    Args:
        spectra: matrix key -> (p,) float64, descending.
        path: ends in .spectra.safetensors; replaced in one step.
        fingerprint: of the checkpoint they were computed from.

    Raises:
        SpectrumError: the folder cannot be written to.
    """
    metadata = {_KEY: json.dumps(asdict(fingerprint), sort_keys=True)}
    arrays = {key: np.ascontiguousarray(values, dtype=np.float64) for key, values in spectra.items()}
    replace_file(path, lambda temporary: _save(arrays, temporary, metadata))


def _save(arrays: Mapping[str, Array], path: Path, metadata: Mapping[str, str]) -> None:
    """Write a file.

    Raises:
        OSError: it cannot be written; the library has an error of its own for a full disk.
    """
    try:
        save_file(dict(arrays), path, metadata=dict(metadata))
    except SafetensorError as error:
        raise OSError(str(error)) from error


def read_spectra(path: Path, *, fingerprint: Fingerprint | None) -> dict[str, Array]:
    """Read spectra back.

    Raises:
        ScanFileError: the file is missing or damaged, or belongs to other weights.
    """
    return _read(path, fingerprint, lambda file, key: _spectrum(file.get_tensor(key)))


def read_extremes(path: Path, *, fingerprint: Fingerprint | None) -> dict[str, tuple[float, float]]:
    """The largest and the smallest singular value of each matrix, without reading those between.

    Raises:
        ScanFileError: the file is missing or damaged, or belongs to other weights.
    """
    return _read(path, fingerprint, lambda file, key: _ends(file.get_slice(key)))


def _read(path: Path, fingerprint: Fingerprint | None, read: Callable[[Any, str], T]) -> dict[str, T]:
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
        raise ScanFileError(f"'{path}' is no sound spectra file ({error}). Scan the model again.") from error
    if fingerprint is None or metadata != asdict(fingerprint):
        raise ScanFileError(f"The spectra in '{path}' are of other weights than the scan. Scan the model again.")
    return spectra


def _ends(values: Any) -> tuple[float, float]:
    (length,) = values.get_shape()
    if not length:
        raise ValueError("a spectrum is empty")
    return float(values[:1][0]), float(values[length - 1 :][0])


def _spectrum(values: Array) -> Array:
    """The values, where they can be a spectrum.

    Raises:
        ValueError: they are no list of float64.
    """
    if values.ndim != 1 or values.dtype != np.float64:
        raise ValueError(f"a spectrum of {values.dtype} in {values.ndim} dimensions")
    return values


def rescore(scan: Scan, spectra: Mapping[str, Array], noise_model: NoiseModel) -> Scan:
    """The scan under another noise model, from its spectra.

    Raises:
        ScanFileError: a spectrum is missing or of the wrong length.
    """
    parameters = tuple(_rescore(parameter, spectra, noise_model) for parameter in scan.parameters)
    return replace(scan, parameters=parameters, settings=replace(scan.settings, noise_model=noise_model))


def snr_again(parameter: ParameterScore, spectra: Mapping[str, Array], noise_model: NoiseModel) -> Array:
    """The SNR of each matrix of a parameter from its spectra, but for rounding; infinity where saturated.

    Many times as fast as `rescore`, which gives every number of a score.

    Raises:
        ScanFileError: a spectrum is missing, of the wrong length or no spectrum.
    """
    matrices: list[tuple[str, tuple[int, ...] | None]]
    matrices = [(matrix.label, matrix.shape) for matrix in parameter.matrices] or [("", parameter.shape)]
    places: dict[tuple[int, ...] | None, list[int]] = defaultdict(list)
    for place, (_, shape) in enumerate(matrices):
        places[shape].append(place)
    values = np.empty(len(matrices))
    try:
        for shape, alike in places.items():
            stack = np.stack([spectra[matrix_key(parameter.name, matrices[place][0])] for place in alike])
            values[alike] = snr_of_each(stack, _two_sides(shape), noise_model=noise_model)
    except (KeyError, ValueError) as error:
        raise _unsound(parameter, error) from error
    return values


def score_parameter(parameter: ParameterScore, spectra: Mapping[str, Array], noise_model: NoiseModel) -> ParameterScore:
    """Fill in the scores of a parameter and its matrices.

    Args:
        parameter: its shapes are used, its scores replaced.
        spectra: matrix key -> (p,), descending; of every matrix of the parameter.
        noise_model: where the threshold lies.

    Returns:
        The parameter with its own score and those of its matrices.

    Raises:
        KeyError: a spectrum is missing.
        ValueError: a spectrum of the wrong length, or too small or large to be scored.
    """
    if not parameter.matrices:
        score = snr(spectra[parameter.name], _two_sides(parameter.shape), noise_model=noise_model)
        return replace(parameter, snr=score.snr, saturated=score.saturated, score=score)
    scores = [_score_matrix(parameter.name, matrix, spectra, noise_model) for matrix in parameter.matrices]
    matrices = tuple(
        replace(matrix, snr=score.snr, saturated=score.saturated, score=score)
        for matrix, score in zip(parameter.matrices, scores, strict=True)
    )
    score = median_score(scores)
    return replace(parameter, snr=score.snr, saturated=score.saturated, score=score, matrices=matrices)


def _score_matrix(name: str, matrix: MatrixScore, spectra: Mapping[str, Array], noise_model: NoiseModel) -> Score:
    return snr(spectra[matrix_key(name, matrix.label)], _two_sides(matrix.shape), noise_model=noise_model)


def _rescore(parameter: ParameterScore, spectra: Mapping[str, Array], noise_model: NoiseModel) -> ParameterScore:
    try:
        return score_parameter(parameter, spectra, noise_model)
    except (KeyError, ValueError) as error:
        raise _unsound(parameter, error) from error


def _unsound(parameter: ParameterScore, error: Exception) -> ScanFileError:
    return ScanFileError(
        f"The spectra file has no sound spectrum of '{parameter.name}' ({error}). Scan the model again."
    )


def _two_sides(shape: tuple[int, ...] | None) -> tuple[int, int]:
    if shape is None or len(shape) != 2:
        raise ValueError(f"shape {shape} is not that of one matrix")
    return shape[0], shape[1]
