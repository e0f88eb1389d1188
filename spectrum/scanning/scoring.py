"""Spectra to scores: of a new scan, and of a stored one under another noise model. Needs no torch."""

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from spectrum.checkpoint import Checkpoint
from spectrum.errors import CheckpointError, ScanFileError
from spectrum.naming import Parameter
from spectrum.results.scan import MatrixScore, ParameterScore, Scan, Settings
from spectrum.results.spectra import Spectra, matrix_key
from spectrum.scanning.plan import Plan, plan_scan
from spectrum.spectra.snr import Array, NoiseModel, Score, median_score, snr, snr_of_each


def score_plan(plan: Plan, spectra: Spectra, noise_model: NoiseModel) -> tuple[ParameterScore, ...]:
    """Scores of the planned parameters.

    Raises:
        CheckpointError: singular values so small or large that a score leaves the range of a float.
        KeyError: a spectrum is missing.
    """
    return tuple(_score(item, plan, spectra, noise_model) for item in plan.scored)


def blank_scan(plan: Plan) -> Scan:
    """The scan that a plan leads to, with equal scores: enough to try whether a selection from it can be written."""
    parameters = tuple(replace(_blank(item, plan.formats[item.name], Spectra()), snr=1.0) for item in plan.scored)
    return Scan(plan.model, plan.settings, parameters, plan.unscored, plan.skipped)


def scan_headers(checkpoint: Checkpoint, settings: Settings, notify: Callable[[str], None]) -> Scan:
    """A scan with equal scores, from the headers of a checkpoint alone: enough to count what a selection needs.

    Args:
        checkpoint: open.
        settings: with the scope the user asked for.
        notify: called with each note on how the names were found.

    Raises:
        CheckpointError: nothing to score; weights that do not fit the model that config.json describes.
        SpectrumError: a module pattern that matches nothing.
    """
    plan = plan_scan(checkpoint, settings, same=lambda _one, _other: True)  # tied copies: reads no weights
    for text in plan.notes:
        notify(text)
    return blank_scan(plan)


def rescore(scan: Scan, spectra: Mapping[str, Array], noise_model: NoiseModel) -> Scan:
    """The scan under another noise model, from its spectra.

    Raises:
        ScanFileError: a spectrum is missing or of the wrong length.
    """
    parameters = tuple(_rescore(parameter, spectra, noise_model) for parameter in scan.parameters)
    return replace(scan, parameters=parameters, settings=replace(scan.settings, noise_model=noise_model))


def snr_again(parameter: ParameterScore, spectra: Mapping[str, Array], noise_model: NoiseModel) -> Array:
    """The SNR of each matrix of a parameter from its spectra, up to rounding; infinity if it is saturated.

    Much faster than `rescore`, which computes every number of a score.

    Raises:
        ScanFileError: a spectrum is missing, has the wrong length or is not a spectrum.
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


def _score(parameter: Parameter, plan: Plan, spectra: Spectra, noise_model: NoiseModel) -> ParameterScore:
    blank = _blank(parameter, plan.formats[parameter.name], spectra)
    try:
        return score_parameter(blank, spectra.values, noise_model)
    except ValueError as error:
        raise CheckpointError(
            f"'{parameter.name}' of '{plan.model.id}' cannot be scored: {error}. Leave its module out with --exclude."
        ) from error


def _blank(parameter: Parameter, dtype: str, spectra: Spectra) -> ParameterScore:
    """The parameter's entry in a scan before it has a score."""
    matrices = tuple(
        MatrixScore(matrix.label, matrix.shape, redone=spectra.redone.get(matrix_key(parameter.name, matrix.label)))
        for matrix in parameter.matrices
        if matrix.label
    )
    return ParameterScore(
        name=parameter.name,
        module_type=parameter.module_type,
        layer=parameter.layer,
        kind=parameter.kind,
        shape=parameter.shape,
        dtype=dtype,
        tensors=parameter.tensors,
        matrices=matrices,
        redone=spectra.redone.get(parameter.name),
    )


def _score_matrix(name: str, matrix: MatrixScore, spectra: Mapping[str, Array], noise_model: NoiseModel) -> Score:
    return snr(spectra[matrix_key(name, matrix.label)], _two_sides(matrix.shape), noise_model=noise_model)


def _rescore(parameter: ParameterScore, spectra: Mapping[str, Array], noise_model: NoiseModel) -> ParameterScore:
    try:
        return score_parameter(parameter, spectra, noise_model)
    except (KeyError, ValueError) as error:
        raise _unsound(parameter, error) from error


def _unsound(parameter: ParameterScore, error: Exception) -> ScanFileError:
    return ScanFileError(
        f"The spectra file has no valid spectrum of '{parameter.name}' ({error}). Scan the model again."
    )


def _two_sides(shape: tuple[int, ...] | None) -> tuple[int, int]:
    if shape is None or len(shape) != 2:
        raise ValueError(f"shape {shape} is not the shape of one matrix")
    return shape[0], shape[1]
