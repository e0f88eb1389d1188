"""Whether a stored scan still stands for a planned one, and the part of it that is asked for."""

from collections.abc import Collection, Sequence
from dataclasses import replace

from spectrum import __version__
from spectrum.naming import RANKED, Matrix, Parameter, natural_key
from spectrum.results.scan import MatrixScore, ParameterScore, Scan, Unscored
from spectrum.scanning.run import Plan


def why_not_reusable(stored: Scan, plan: Plan) -> str | None:
    """Why a stored scan cannot stand for a planned one; None where it can.

    The noise model does not matter: it is computed from the stored spectra. Nor do device and version of torch,
    across which scores agree to 1e-6, nor the version of transformers as long as it makes the same names.
    """
    known = {(item.name, _labels(item.matrices)) for item in stored.parameters}
    missing = {(item.name, _labels(item.matrices)) for item in plan.scored} - known
    reasons = (
        (stored.model.fingerprint != plan.model.fingerprint, "it is of other weights"),
        (stored.model.revision != plan.model.revision, "it is of another revision"),
        (stored.settings.tool != __version__, f"it was made by version {stored.settings.tool}"),
        (
            stored.settings.precision != plan.settings.precision,
            f"it was made with precision {stored.settings.precision}",
        ),
        (not stored.settings.complete, "it is not complete"),
        (
            _identities((*stored.parameters, *stored.unscored)) != _identities((*plan.scored, *plan.unscored)),
            "its parameters have other names, kinds or shapes",
        ),
        (bool(missing), f"it lacks {len(missing)} of the parameters asked for, or has other experts of them"),
    )
    return next((reason for holds, reason in reasons if holds), None)


def adopt(stored: Scan, plan: Plan) -> Scan:
    """A stored scan that stands for a planned one, with the names' origin as it is now."""
    model = replace(
        stored.model,
        model_class=plan.model.model_class,
        transformers=plan.model.transformers,
        name_mapping=plan.model.name_mapping,
        auto_classes=plan.model.auto_classes,
    )
    return replace(stored, model=model)


def _identities(entries: Sequence[Parameter | ParameterScore | Unscored]) -> set[tuple[object, ...]]:
    return {(entry.name, entry.kind, entry.shape) for entry in entries}


def _labels(matrices: Sequence[Matrix | MatrixScore]) -> frozenset[str]:
    return frozenset(matrix.label for matrix in matrices if matrix.label)


def narrow(scan: Scan, names: Collection[str]) -> Scan:
    """The scan with these of its ranked parameters; the others of them count as unscored. Embeddings stay."""
    wanted = frozenset(names)
    kept = tuple(item for item in scan.parameters if item.name in wanted or item.kind not in RANKED)
    left = [item for item in scan.parameters if item.name not in wanted and item.kind in RANKED]
    others = [*scan.unscored, *(Unscored(item.name, item.kind, item.shape) for item in left)]
    return replace(scan, parameters=kept, unscored=tuple(sorted(others, key=lambda item: natural_key(item.name))))
