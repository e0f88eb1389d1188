"""Scans put together, and the part of a scan that is asked for."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from spectrum.naming import RANKED, Matrix, match_module_types, natural_key
from spectrum.results import (
    MatrixScore,
    ParameterScore,
    Scan,
    Settings,
    Spectra,
    Unscored,
    matrix_key,
    read_spectra,
    spectra_file,
)
from spectrum.scanning.plan import Plan
from spectrum.scanning.scoring import rescore, score_parameter, score_plan
from spectrum.spectra.snr import NOISE_MODELS, NoiseModel, median_score
from spectrum.untrusted import check_word


def labels_of(matrices: Iterable[Matrix | MatrixScore]) -> frozenset[str]:
    """Labels of a parameter's matrices; none if it is one plain matrix."""
    return frozenset(matrix.label for matrix in matrices if matrix.label)


def union(stored: Scan | None, plan: Plan, spectra: Spectra) -> Scan:
    """The planned scan together with the parameters and experts that a stored one has.

    Args:
        stored: of the same weights under the same names, or None.
        plan: with its device.
        spectra: of everything planned, at least.

    Returns:
        A scan under the noise model of the stored one, if there is one.

    Raises:
        CheckpointError: singular values so small or large that a score leaves the range of a float.
    """
    noise_model = stored.settings.noise_model if stored else plan.settings.noise_model
    planned = score_plan(plan, spectra, noise_model)
    if stored is None:
        return Scan(plan.model, plan.settings, planned, plan.unscored, plan.skipped)
    before = {item.name: item for item in stored.parameters}
    scores = [_with_experts(item, before.pop(item.name, None), spectra, noise_model) for item in planned]
    scores = sorted((*scores, *before.values()), key=lambda item: natural_key(item.name))
    names = {item.name for item in scores}
    return Scan(
        plan.model,
        _joint_settings(stored.settings, plan.settings),
        tuple(scores),
        tuple(item for item in plan.unscored if item.name not in names),
        {name: reason for name, reason in plan.skipped.items() if name not in names},
    )


def as_asked(scan: Scan, plan: Plan) -> Scan:
    """The part of a stored scan that a plan asks for: the same as if nothing else had been stored."""
    known = {item.name: item for item in scan.parameters}
    asked = {name: getattr(plan.settings, name) for name in ("modules", "exclude", "all_modules", "experts")}
    return Scan(
        scan.model,
        replace(scan.settings, **asked),
        tuple(_sample(known[item.name], labels_of(item.matrices)) for item in plan.scored),
        plan.unscored,
        plan.skipped,
    )


def narrow(scan: Scan, names: Collection[str]) -> Scan:
    """The scan with only these of its ranked parameters; the others become unscored. Embeddings stay."""
    wanted = frozenset(names)
    kept = tuple(item for item in scan.parameters if item.name in wanted or item.kind not in RANKED)
    left = [item for item in scan.parameters if item.name not in wanted and item.kind in RANKED]
    others = [*scan.unscored, *(Unscored(item.name, item.kind, item.shape) for item in left)]
    return replace(scan, parameters=kept, unscored=tuple(sorted(others, key=lambda item: natural_key(item.name))))


def narrowed(scans: Sequence[Scan], modules: Sequence[str] | None, exclude: Sequence[str] | None) -> list[Scan]:
    """The scans with the module types that patterns leave of those of all scans; None or () is no pattern.

    Raises:
        SpectrumError: a pattern that matches none.
    """
    if not modules and not exclude:
        return list(scans)
    types = {item.module_type for scan in scans for item in scan.parameters}
    wanted = match_module_types(types, modules or (), exclude or ())
    return [narrow(scan, [item.name for item in scan.parameters if item.module_type in wanted]) for scan in scans]


def rescored(scan: Scan, scan_file: Path, noise_model: NoiseModel | None) -> Scan:
    """The scan under a noise model, from the spectra beside its file; unchanged if that is its own, or None.

    Raises:
        ScanFileError: the spectra file is missing, damaged or of other weights.
        SpectrumError: there is no such noise model.
    """
    if noise_model is None or noise_model == scan.settings.noise_model:
        return scan
    check_word(noise_model, NOISE_MODELS, of="noise_model")
    return rescore(scan, read_spectra(spectra_file(scan_file), fingerprint=scan.model.fingerprint), noise_model)


def _with_experts(
    new: ParameterScore, old: ParameterScore | None, spectra: Spectra, noise_model: NoiseModel
) -> ParameterScore:
    """A parameter with the experts of an earlier sample besides its own."""
    own = labels_of(new.matrices)
    others = [
        each
        for each in (old.matrices if old else ())
        if each.label not in own and matrix_key(new.name, each.label) in spectra.values
    ]
    if not others:
        return new
    matrices = sorted((*new.matrices, *others), key=lambda each: natural_key(each.label))
    return score_parameter(replace(new, matrices=tuple(matrices)), spectra.values, noise_model)


def _sample(item: ParameterScore, labels: frozenset[str]) -> ParameterScore:
    """A parameter with only some of its experts."""
    kept = tuple(each for each in item.matrices if each.label in labels)
    if len(kept) == len(item.matrices):
        return item
    score = median_score([each.score for each in kept if each.score is not None])
    return replace(item, matrices=kept, snr=score.snr, saturated=score.saturated, score=score)


def _joint_settings(one: Settings, other: Settings) -> Settings:
    """What two scans were asked for together; versions and device are those of the second."""
    return replace(
        other,
        noise_model=one.noise_model,
        modules=tuple(dict.fromkeys((*one.modules, *other.modules))) if one.modules and other.modules else (),
        exclude=tuple(pattern for pattern in one.exclude if pattern in other.exclude),
        all_modules=one.all_modules or other.all_modules,
        experts=None if one.experts is None or other.experts is None else max(one.experts, other.experts),
    )
