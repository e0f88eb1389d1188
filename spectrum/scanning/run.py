"""From an open checkpoint to a finished scan."""

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
from typing import TYPE_CHECKING

from spectrum import __version__
from spectrum.checkpoint import Checkpoint, fingerprint
from spectrum.errors import CheckpointError, SpectrumError
from spectrum.naming import (
    Parameter,
    Scope,
    auto_classes,
    name_parameters,
    sample_experts,
    split_by_scope,
)
from spectrum.results.scan import MatrixScore, Model, ParameterScore, Scan, Settings, Unscored
from spectrum.results.spectra import matrix_key, score_parameter
from spectrum.scanning.partial import PartialScan
from spectrum.scanning.ranks import ALONE, Team, rounds
from spectrum.spectra.snr import Array

if TYPE_CHECKING:
    from spectrum.scanning.decompose import Decomposed, Task

# Cost under which no round of several ranks ends: about half a second of two CPU cores.
ROUND_COST = 2e11
COMPARED_NUMBERS = 2**22  # at a time


@dataclass(frozen=True)
class Plan:
    """What a scan will do; made from headers alone.

    Attributes:
        model: what is scored, fingerprint included.
        settings: how.
        scored: parameters to score, in natural order of name.
        unscored: the model's other parameters.
        skipped: parameter or tensor -> why it is not scored.
        formats: parameter -> dtype of its tensors as they are stored.
        notes: whole sentences on how the names were found.
    """

    model: Model
    settings: Settings
    scored: tuple[Parameter, ...]
    unscored: tuple[Unscored, ...]
    skipped: Mapping[str, str]
    formats: Mapping[str, str]
    notes: tuple[str, ...]

    @property
    def matrix_count(self) -> int:
        """Number of matrices to decompose."""
        return sum(len(parameter.matrices) for parameter in self.scored)


def plan_scan(checkpoint: Checkpoint, settings: Settings, *, same: Callable[[str, str], bool] | None = None) -> Plan:
    """Decide what to score.

    Args:
        checkpoint: open.
        settings: with the scope the user asked for.
        same: whether two tensors hold equal numbers, asked only of tied weights that are stored twice; by default
            they are read and compared.

    Raises:
        CheckpointError: nothing to score; weights that do not fit the model that config.json describes.
        SpectrumError: a module pattern that matches nothing.
    """
    naming = name_parameters(
        checkpoint.tensors,
        checkpoint.config,
        model_class=settings.model_class,
        names=settings.names,
        same=same or (lambda one, other: _same(checkpoint, one, other)),
    )
    scope = Scope(settings.modules, settings.exclude, settings.all_modules)
    scored, reasons = split_by_scope(naming.parameters, scope)
    if not scored:
        counts = Counter({**naming.skipped, **reasons}.values()).most_common(3)
        raise CheckpointError(
            f"'{checkpoint.id}' has no matrix to score among its {len(naming.parameters)} parameters: "
            f"{', '.join(f'{count} x {reason}' for reason, count in counts)}. What lies outside numbered layers is "
            "scored with --all-modules."
        )
    if settings.experts is not None:
        scored = [sample_experts(item, settings.experts) for item in scored]
    model = Model(
        id=checkpoint.id,
        revision=checkpoint.revision,
        fingerprint=fingerprint(checkpoint),
        model_class=naming.model_class,
        transformers=naming.transformers,
        name_mapping=naming.name_mapping,
        parameters=sum(item.numel for item in naming.parameters),
        auto_classes=auto_classes(checkpoint.config or {}) if naming.model_class else {},
    )
    return Plan(
        model=model,
        settings=settings,
        scored=tuple(scored),
        unscored=tuple(
            Unscored(item.name, item.kind, item.shape) for item in naming.parameters if item.name in reasons
        ),
        skipped={**naming.skipped, **reasons},
        formats={item.name: _format(checkpoint, item) for item in scored},
        notes=naming.notes,
    )


def run_scan(
    checkpoint: Checkpoint,
    plan: Plan,
    *,
    team: Team = ALONE,
    partial: PartialScan | None = None,
    on_done: Callable[[float, int], None] = lambda _cost, _count: None,
) -> tuple[Scan, dict[str, Array]]:
    """Decompose and score everything planned.

    Args:
        checkpoint: that the plan was made from.
        plan: what to do; its device may be 'auto'.
        team: the processes among which the matrices are split; each calls this with the same plan.
        partial: where finished matrices are kept, and taken from; of the rank that leads, or None.
        on_done: called with the cost and the number of matrices that are done since it was called last.

    Returns:
        The scan, and matrix key -> (p,) float64 spectrum, descending; without scores and spectra on ranks that do not
        lead.

    Raises:
        CheckpointError: a weight that is not finite; a file that became shorter since it was opened.
        SpectrumError: another rank has ended, or read another checkpoint; the partial file cannot be written to.
    """
    from spectrum.scanning import decompose  # noqa: PLC0415  it imports torch

    plan = with_device(plan, team=team)
    _check_ranks(team, plan)
    tasks = decompose.plan_tasks(checkpoint, plan.scored)
    spectra = _taken_over(partial.done, tasks) if partial else {}
    redone = {key: path for key, path in partial.redone.items() if key in spectra} if partial else {}
    known = team.gather(frozenset(spectra))[0]
    before = [task.cost for task in tasks if _key(task) in known]
    on_done(sum(before), len(before))
    tasks = [task for task in tasks if _key(task) not in known]
    schedule = rounds([task.cost for task in tasks], team.size, smallest=ROUND_COST if team.size > 1 else 0)
    mine = [tasks[index] for each in schedule for index in each[team.rank]]
    done = decompose.decompose(
        checkpoint, mine, precision=plan.settings.precision, device=plan.settings.device or "cpu"
    )
    for each in schedule:
        own = [_finished(entry) for entry in islice(done, len(each[team.rank]))]
        for key, cost, values, path in chain.from_iterable(team.collect(own)):
            spectra[key] = values
            if path:
                redone[key] = path
            if partial:
                partial.append(key, values, redone=path)
            on_done(cost, 1)
    scores = tuple(_score(item, plan, spectra, redone) for item in plan.scored) if team.leads else ()
    wanted = {matrix_key(item.name, matrix.label) for item in plan.scored for matrix in item.matrices}
    result = Scan(plan.model, plan.settings, scores, plan.unscored, plan.skipped)
    return result, {key: values for key, values in spectra.items() if key in wanted}


def total_cost(plan: Plan) -> float:
    """Sum of what `on_done` of `run_scan` is told."""
    from spectrum.scanning.decompose import estimated_cost  # noqa: PLC0415  it imports torch

    return sum(estimated_cost(matrix.shape) for item in plan.scored for matrix in item.matrices)


def with_device(plan: Plan, *, team: Team = ALONE) -> Plan:
    """The plan with the device it will run on in place of 'auto', and the versions that will do it.

    Raises:
        CheckpointError: this machine has no such device.
    """
    import torch  # noqa: PLC0415  what plans and reads scans must not wait for it

    from spectrum.scanning import decompose  # noqa: PLC0415

    device = decompose.choose_device(plan.settings.device or "auto", local_rank=team.local_rank)
    return replace(plan, settings=replace(plan.settings, device=device, tool=__version__, torch=torch.__version__))


def _check_ranks(team: Team, plan: Plan) -> None:
    """Raise SpectrumError unless all ranks have read the same checkpoint and will do the same."""
    facts = (plan.model, replace(plan.settings, device=None), plan.scored)
    digests = team.gather(hashlib.sha256(repr(facts).encode()).hexdigest())
    others = [rank for rank, digest in enumerate(digests) if digest != digests[0]]
    if others:
        raise SpectrumError(
            f"The checkpoint, the versions or the options of rank {', '.join(map(str, others))} differ from those of "
            "rank 0. Give every rank the same copy of the model and the same packages."
        )


def _taken_over(done: Mapping[str, Array], tasks: "Sequence[Task]") -> dict[str, Array]:
    """The spectra that were finished before, where they have the length of their matrix's; another is done again."""
    lengths = {_key(task): min(task.matrix.shape) for task in tasks}
    return {key: values for key, values in done.items() if values.shape == (lengths.get(key),)}


def _key(task: "Task") -> str:
    return matrix_key(task.parameter.name, task.matrix.label)


def _finished(entry: "Decomposed") -> tuple[str, float, Array, str | None]:
    """Key, cost, spectrum, and the path taken where it was not the fast one."""
    path = entry.spectrum.path
    return _key(entry.task), entry.task.cost, entry.spectrum.values, None if path == "gram" else path


def _score(parameter: Parameter, plan: Plan, spectra: Mapping[str, Array], redone: Mapping[str, str]) -> ParameterScore:
    blank = _blank(parameter, plan.formats[parameter.name], redone)
    try:
        return score_parameter(blank, spectra, plan.settings.noise_model)
    except ValueError as error:
        raise CheckpointError(
            f"'{parameter.name}' of '{plan.model.id}' cannot be scored: {error}. Leave its module out with --exclude."
        ) from error


def _same(checkpoint: Checkpoint, one: str, other: str) -> bool:
    """Whether two tensors hold equal numbers; read a part at a time, for they may be embeddings of gigabytes."""
    import torch  # noqa: PLC0415

    shape = checkpoint.tensors[one].shape
    if not shape or shape != checkpoint.tensors[other].shape:
        return shape == checkpoint.tensors[other].shape and torch.equal(checkpoint.read(one), checkpoint.read(other))
    step = max(1, COMPARED_NUMBERS // max(1, math.prod(shape[1:])))
    parts = ((start, min(start + step, shape[0])) for start in range(0, shape[0], step))
    return all(torch.equal(checkpoint.read(one, *part), checkpoint.read(other, *part)) for part in parts)


def _format(checkpoint: Checkpoint, parameter: Parameter) -> str:
    tensor = checkpoint.tensors[parameter.tensors[0]]
    return tensor.stored_as or tensor.dtype


def _blank(parameter: Parameter, dtype: str, redone: Mapping[str, str]) -> ParameterScore:
    """The parameter as it stands in a scan, before it has a score."""
    matrices = tuple(
        MatrixScore(
            matrix.label,
            matrix.shape,
            None,
            saturated=False,
            score=None,
            redone=redone.get(matrix_key(parameter.name, matrix.label)),
        )
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
        snr=None,
        saturated=False,
        score=None,
        tensors=parameter.tensors,
        matrices=matrices,
        redone=redone.get(parameter.name),
    )
