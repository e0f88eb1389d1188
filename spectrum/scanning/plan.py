"""What a scan will read and compute, decided from headers alone."""

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import get_args

from spectrum import __version__
from spectrum.checkpoint import Checkpoint, fingerprint
from spectrum.errors import CheckpointError, SpectrumError
from spectrum.naming import Parameter, Scope, auto_classes, name_parameters, sample_experts, split_by_scope
from spectrum.results.scan import Model, Precision, Settings, Unscored
from spectrum.scanning.ranks import ALONE, Team
from spectrum.spectra.snr import NOISE_MODELS
from spectrum.untrusted import check_word

COMPARED_NUMBERS = 2**22  # at a time


@dataclass(frozen=True)
class Plan:
    """What a scan will do.

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
        """Number of matrices to score."""
        return sum(len(parameter.matrices) for parameter in self.scored)


def plan_scan(checkpoint: Checkpoint, settings: Settings, *, same: Callable[[str, str], bool] | None = None) -> Plan:
    """Decide what to score.

    Args:
        checkpoint: open.
        settings: with the scope the user asked for.
        same: whether two tensors hold equal numbers, asked only about tied weights that are stored twice; by default
            they are read and compared.

    Raises:
        CheckpointError: nothing to score; weights that do not fit the model that config.json describes.
        SpectrumError: a module pattern that matches nothing; a noise model or precision that does not exist.
    """
    check_word(settings.noise_model, NOISE_MODELS, of="noise_model")
    check_word(settings.precision, get_args(Precision), of="precision")
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
        counts = Counter(reasons.values()).most_common()
        raise CheckpointError(
            f"'{checkpoint.id}' has no matrix to score among its {len(naming.parameters)} parameters: "
            f"{', '.join(f'{count} x {reason}' for reason, count in counts)}. Parameters outside numbered layers are "
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


def with_device(plan: Plan, *, team: Team = ALONE) -> Plan:
    """The plan with the device that will be used in place of 'auto', and the versions that will compute.

    Raises:
        CheckpointError: this machine has no such device.
    """
    import torch  # noqa: PLC0415  reading stored scans must not wait for it

    from spectrum.scanning.devices import choose_device  # noqa: PLC0415
    from spectrum.spectra.solver import ALGORITHM  # noqa: PLC0415

    device = choose_device(plan.settings.device or "auto", local_rank=team.local_rank)
    settings = replace(plan.settings, device=device, tool=__version__, torch=torch.__version__, algorithm=ALGORITHM)
    return replace(plan, settings=settings)


def check_ranks(team: Team, plan: Plan) -> None:
    """Raise SpectrumError unless all ranks have read the same checkpoint and will do the same."""
    facts = (plan.model, replace(plan.settings, device=None), plan.scored)
    digests = team.gather(hashlib.sha256(repr(facts).encode()).hexdigest())
    others = [rank for rank, digest in enumerate(digests) if digest != digests[0]]
    if others:
        raise SpectrumError(
            f"The checkpoint, the versions or the options of rank {', '.join(map(str, others))} differ from those of "
            "rank 0. Give every rank the same copy of the model and the same packages."
        )


def _same(checkpoint: Checkpoint, one: str, other: str) -> bool:
    """Whether two tensors hold equal numbers; compared in parts, because they may be embeddings of gigabytes."""
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
