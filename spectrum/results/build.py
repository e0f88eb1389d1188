"""From an open checkpoint to a finished scan, and whether a stored one still fits."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from spectrum import __version__
from spectrum.checkpoint import Checkpoint, fingerprint
from spectrum.errors import CheckpointError
from spectrum.naming import Parameter, Scope, identity_parameters, split_by_scope
from spectrum.results.scan import MatrixScore, Model, ParameterScore, Scan, Settings, Unscored
from spectrum.results.spectra import matrix_key, score_parameter
from spectrum.snr import Array


@dataclass(frozen=True)
class Plan:
    """What a scan will do; made from headers alone.

    Attributes:
        model: what is scored, fingerprint included.
        settings: how.
        scored: parameters to score, in natural order of name.
        unscored: the model's other parameters.
        skipped: parameter or tensor -> why it is not scored.
    """

    model: Model
    settings: Settings
    scored: tuple[Parameter, ...]
    unscored: tuple[Unscored, ...]
    skipped: Mapping[str, str]

    @property
    def matrix_count(self) -> int:
        """Number of matrices to decompose."""
        return sum(len(parameter.matrices) for parameter in self.scored)


def plan_scan(checkpoint: Checkpoint, settings: Settings) -> Plan:
    """Decide what to score.

    Args:
        checkpoint: open.
        settings: with the scope the user asked for.

    Raises:
        CheckpointError: nothing to score.
        SpectrumError: a module pattern that matches nothing.
    """
    parameters, no_parameters = identity_parameters(checkpoint.tensors)
    scope = Scope(settings.modules, settings.exclude, settings.all_modules)
    scored, reasons = split_by_scope(parameters, scope)
    if not scored:
        raise CheckpointError(
            f"'{checkpoint.id}' has no matrix to score among its {len(parameters)} parameters. "
            "Matrices outside numbered layers are scored with --all-modules."
        )
    model = Model(
        id=checkpoint.id,
        revision=checkpoint.revision,
        fingerprint=fingerprint(checkpoint),
        parameters=sum(parameter.numel for parameter in parameters),
    )
    unscored = [Unscored(item.name, item.kind, item.shape) for item in parameters if item.name in reasons]
    return Plan(model, settings, tuple(scored), tuple(unscored), {**no_parameters, **reasons})


def run_scan(
    checkpoint: Checkpoint, plan: Plan, *, on_matrix: Callable[[str], None] = lambda _: None
) -> tuple[Scan, dict[str, Array]]:
    """Decompose and score everything planned.

    Args:
        checkpoint: that the plan was made from.
        plan: what to do; its device and precision may be 'auto'.
        on_matrix: called with the key of each matrix when it is done.

    Returns:
        The scan, and matrix key -> (p,) float64 spectrum, descending.

    Raises:
        CheckpointError: a weight that is not finite; a checkpoint that changed since it was opened.
    """
    import torch  # noqa: PLC0415  what plans and reads scans must not wait for it

    from spectrum import scan  # noqa: PLC0415

    spectra = {}
    plan = with_device(plan)
    settings = replace(plan.settings, tool=__version__, torch=torch.__version__)
    for done in scan.decompose(checkpoint, plan.scored, precision=settings.precision, device=settings.device or "cpu"):
        key = matrix_key(done.parameter.name, done.matrix.label)
        spectra[key] = done.spectrum
        on_matrix(key)
    scores = tuple(score_parameter(_blank(item), spectra, settings.noise_model) for item in plan.scored)
    return Scan(plan.model, settings, scores, plan.unscored, plan.skipped), spectra


def with_device(plan: Plan) -> Plan:
    """The plan with the device it will run on in place of 'auto'.

    Raises:
        CheckpointError: this machine has no such device.
    """
    from spectrum import scan  # noqa: PLC0415  it imports torch

    return replace(plan, settings=replace(plan.settings, device=scan.choose_device(plan.settings.device or "auto")))


def why_not_reusable(stored: Scan, plan: Plan) -> str | None:
    """Why a stored scan cannot stand for a planned one; None where it can.

    The noise model does not matter: it is computed from the stored spectra. Nor do device and version of torch,
    across which scores agree to 1e-6.
    """
    if stored.model.fingerprint != plan.model.fingerprint or stored.model.revision != plan.model.revision:
        return "it is of other weights"
    if stored.settings.tool != __version__:
        return f"it was made by version {stored.settings.tool}"
    if stored.settings.precision != plan.settings.precision:
        return f"it was made with precision {stored.settings.precision}"
    if not stored.settings.complete:
        return "it is not complete"
    missing = {item.name for item in plan.scored} - {item.name for item in stored.parameters}
    if missing:
        return f"it lacks {len(missing)} of the parameters asked for"
    return None


def narrow(scan: Scan, names: Sequence[str]) -> Scan:
    """The scan with the scores of these parameters only; the others count as unscored."""
    wanted = frozenset(names)
    others = [
        Unscored(item.name, item.kind, item.shape)
        for item in scan.parameters
        if item.name not in wanted and item.shape is not None
    ]
    kept = tuple(item for item in scan.parameters if item.name in wanted)
    return replace(scan, parameters=kept, unscored=(*scan.unscored, *others))


def _blank(parameter: Parameter) -> ParameterScore:
    """The parameter as it stands in a scan, before it has a score."""
    matrices = tuple(
        MatrixScore(matrix.label, matrix.shape, None, saturated=False, score=None)
        for matrix in parameter.matrices
        if matrix.label
    )
    return ParameterScore(
        name=parameter.name,
        module_type=parameter.module_type,
        layer=parameter.layer,
        kind=parameter.kind,
        shape=parameter.shape,
        dtype=parameter.dtype,
        snr=None,
        saturated=False,
        score=None,
        tensors=parameter.tensors,
        matrices=matrices,
    )
