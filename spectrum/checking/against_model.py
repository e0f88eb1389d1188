"""Does a scan belong to a checkpoint, and were its names made by the transformers that will train?

Headers, file hashes and samples decide; nothing is decomposed.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from spectrum.checking.findings import Finding, of_error, some
from spectrum.checkpoint import Checkpoint, Fingerprint, fingerprint, open_model, written_since
from spectrum.errors import SpectrumError
from spectrum.naming import Parameter, natural_key
from spectrum.results.scan import ParameterScore, Scan, Unscored
from spectrum.scanning.plan import Plan, plan_scan

_ANOTHER = "Scan this checkpoint, or check against the one that was scanned."
_RESCAN = "Scan again with the transformers that trains."


def check_model(
    scan: Scan,
    model: str,
    *,
    scan_file: Path,
    transformers: str | None,
    revision: str | None = None,
    token: str | None = None,
    notify: Callable[[str], None] = lambda _message: None,
) -> list[Finding]:
    """Compare a scan with a checkpoint. Of one on the Hub only headers are fetched.

    Args:
        scan: stored.
        model: path of the checkpoint, or 'owner/name[@revision]'.
        scan_file: where the scan is stored; its time is compared with the checkpoint's files.
        transformers: the installed version, to compare its names; None leaves that out.
        revision: branch, tag or commit on the Hub.
        token: for private and gated models.
        notify: called with a sentence about what is waited for.
    """
    try:
        checkpoint = open_model(model, revision=revision, token=token, notify=notify)
    except SpectrumError as error:
        return [of_error("SPC201", error)]
    with checkpoint:
        findings = _compare(scan, checkpoint, scan_file)
        if transformers is None or any(finding.severity == "error" for finding in findings):
            return findings
        return [*findings, *_compare_names(scan, checkpoint, transformers)]


def check_names(scan: Scan, *, transformers: str | None) -> Iterator[Finding]:
    """Compare where the names come from with the trainer's version of transformers, None if that is not known."""
    model = scan.model
    if model.name_mapping != "exact":
        how = {"identity": "are those of the checkpoint", "table": "come from a conversion table alone"}
        message = f"The names {how[model.name_mapping]}; no model was built to confirm them."
        yield Finding("SPC301", message, "Scan with a transformers that can build the model from its config.json.")
    if transformers is None:
        message = "The trainer's version of transformers is not known, so the names cannot be compared with it."
        yield Finding("SPC305", message, "Pass --transformers VERSION, or install it here.")
        return
    if model.transformers and model.transformers != transformers:
        code = "SPC302" if _major(model.transformers) != _major(transformers) else "SPC303"
        message = f"The names were made by transformers {model.transformers}, the trainer has {transformers}."
        yield Finding(code, message, f"Scan again beside transformers {transformers}, or check with --model there.")
    stacked = next((item.name for item in scan.parameters if "*" in item.name), None)
    if stacked and _is_from_transformers_4(scan) and _major(transformers) != "4":
        message = f"Names of single experts, such as '{stacked}', are those of transformers 4. In "
        message += f"transformers {transformers} the experts of a layer are one parameter, so they match nothing."
        yield Finding("SPC304", message, "Scan the model again with the transformers that trains it.")


def _is_from_transformers_4(scan: Scan) -> bool:
    """Imported files are; a model with remote code keeps single experts under every version."""
    version = scan.model.transformers
    return scan.settings.origin is not None or (version is not None and _major(version) == "4")


def _major(version: str) -> str:
    return version.partition(".")[0]


def _compare(scan: Scan, checkpoint: Checkpoint, scan_file: Path) -> list[Finding]:
    """At most one finding: the first difference is enough."""
    stored, now = scan.model.fingerprint, fingerprint(checkpoint)
    if stored is None:
        message = f"The scan has no fingerprint, so nothing shows whether it is of '{checkpoint.id}'."
        return [Finding("SPC205", message, "Scan the model.")]
    if stored.headers != now.headers:
        message = f"The tensors of '{checkpoint.id}' are not those of the scan: {_difference(scan, checkpoint)}."
        return [Finding("SPC202", message, _ANOTHER)]
    if scan.model.revision and checkpoint.revision and scan.model.revision != checkpoint.revision:
        message = f"The checkpoint is at revision {checkpoint.revision}, the scan of {scan.model.revision}."
        return [Finding("SPC204", message, _ANOTHER)]
    return _compare_content(stored, now, checkpoint, scan_file)


def _compare_content(stored: Fingerprint, now: Fingerprint, checkpoint: Checkpoint, scan_file: Path) -> list[Finding]:
    if _evidence(stored) != _evidence(now):
        message = (
            f"The tensors of '{checkpoint.id}' are those of the scan, but their content cannot be compared: the scan "
            f"holds {_evidence(stored)}, the checkpoint gives {_evidence(now)}."
        )
        return [Finding("SPC205", message, "Check against a copy of the kind that was scanned: Hub cache or folder.")]
    if stored.content != now.content:
        message = f"'{checkpoint.id}' has the tensors of the scan with other weights: it was trained or edited since."
        return [Finding("SPC203", message, _ANOTHER)]
    if written_since(checkpoint, scan_file.stat().st_mtime_ns):
        message = f"Files of '{checkpoint.id}' are younger than the scan; samples of every tensor are the same."
        remedy = "Scan again if they may have been edited; a copy or download is younger too."
        return [Finding("SPC206", message, remedy)]
    return []


def _difference(scan: Scan, checkpoint: Checkpoint) -> str:
    known = {name for item in scan.parameters for name in item.tensors}
    missing = sorted(known - checkpoint.tensors.keys(), key=natural_key)
    return f"it lacks {some(missing)}" if missing else "names, dtypes or shapes differ"


def _evidence(value: Fingerprint) -> str:
    return "file hashes" if value.content.startswith("hub:") else "samples"


def _compare_names(scan: Scan, checkpoint: Checkpoint, transformers: str) -> list[Finding]:
    """Compare the names that the installed transformers gives this checkpoint with those of the scan."""
    wrong: list[str] = []
    try:
        for plan in _plans(scan, checkpoint):
            wrong = _renamed(scan, plan)
            if not wrong:
                return []
    except SpectrumError as error:
        return [Finding("SPC306", f"transformers {transformers} cannot name the parameters: {error}", _RESCAN)]
    message = f"transformers {transformers} names, sorts or shapes {some(wrong)} differently than the scan."
    return [Finding("SPC306", message, _RESCAN)]


def _plans(scan: Scan, checkpoint: Checkpoint) -> Iterator[Plan]:
    """What a scan would do now.

    Tied weights that are stored twice are compared only if that needs no download. Otherwise both answers are tried:
    the scan did compare the weights, so its names are those of one of the two.
    """
    if checkpoint.remote:
        yield plan_scan(checkpoint, scan.settings, same=lambda _one, _other: True)
        yield plan_scan(checkpoint, scan.settings, same=lambda _one, _other: False)
    else:
        yield plan_scan(checkpoint, scan.settings)


def _renamed(scan: Scan, plan: Plan) -> list[str]:
    """Names that differ. An imported scan holds neither shapes nor all parameters, so only its own are looked for."""
    now: tuple[Parameter | Unscored, ...] = (*plan.scored, *plan.unscored)
    if scan.settings.origin is not None:
        wrong = {item.name for item in scan.parameters} - {item.name for item in now}
    else:
        wrong = {name for name, _, _ in _identities(now) ^ _identities(scan.entries)}
    return sorted(wrong, key=natural_key)


def _identities(
    entries: Sequence[Parameter | ParameterScore | Unscored],
) -> set[tuple[str, str, tuple[int, ...] | None]]:
    return {(item.name, item.kind, item.shape) for item in entries}
