"""The stored scan where it fits, else a new one, written beside it."""

from pathlib import Path
from typing import TypeAlias

from spectrum.checkpoint import Checkpoint, written_since
from spectrum.cli.output import hint, progress, warn
from spectrum.cli.plan import plan_lines
from spectrum.errors import CheckpointError, ScanFileError
from spectrum.results import (
    Scan,
    check_writable,
    read_scan,
    read_spectra,
    rescore,
    write_scan,
    write_spectra,
)
from spectrum.scanning.lock import locked
from spectrum.scanning.partial import PartialScan
from spectrum.scanning.ranks import Team
from spectrum.scanning.reuse import adopt, why_not_reusable
from spectrum.scanning.run import Plan, run_scan, total_cost, with_device

Both: TypeAlias = tuple[Scan, Scan]  # as the file has it, and under the noise model asked for


def obtain(checkpoint: Checkpoint, plan: Plan, stem: Path, ranks: Team, *, rescan: bool, quiet: bool) -> Both | None:
    """The stored scan where it fits, else a new one; None on the ranks that do not lead."""
    if not ranks.leads:
        if not ranks.gather(False)[0]:
            run_scan(checkpoint, plan, team=ranks)
        return None
    check_writable(stem.parent, spectra_file(stem).name)
    with locked(stem.with_name(f".{stem.name}.lock"), on_wait=_waiting):
        stored = None if rescan else _stored(checkpoint, stem, plan, quiet=quiet)
        ranks.gather(stored is not None)
        if stored is not None:
            return stored
        result = _scan(checkpoint, plan, stem, ranks, quiet=quiet)
        return result, result


def _waiting(holder: str) -> None:
    hint(f"Another scan of this model writes to this folder ({holder}); waiting until it is done.")


def _stored(checkpoint: Checkpoint, stem: Path, plan: Plan, *, quiet: bool) -> Both | None:
    """The scan stored under this name; None where it does not fit any more."""
    path = scan_file(stem)
    if not path.exists():
        return None
    try:
        stored = scored = read_scan(path)
        reason = why_not_reusable(stored, plan)
        if reason is None and written_since(checkpoint, path.stat().st_mtime_ns):
            reason = "files of the checkpoint were written after it"
        if reason is None and stored.model != plan.model:
            stored = scored = adopt(stored, plan)
            write_scan(stored, path)
        if reason is None and stored.settings.noise_model != plan.settings.noise_model:
            spectra = read_spectra(spectra_file(stem), fingerprint=stored.model.fingerprint)
            scored = rescore(stored, spectra, plan.settings.noise_model)  # the file keeps its noise model
    except ScanFileError as error:
        reason = f"it cannot be used ({error})"
    if reason is None:
        hint(f"Using the stored scan '{path}'; --rescan makes a new one.", quiet=quiet)
        return stored, scored
    warn(f"the stored scan '{path}' is replaced: {reason}.")
    return None


def _scan(checkpoint: Checkpoint, plan: Plan, stem: Path, ranks: Team, *, quiet: bool) -> Scan:
    plan = with_device(plan, team=ranks)
    together = f" on {ranks.size} ranks" if ranks.size > 1 else ""
    what = f"{plan.matrix_count} matrices of {len(plan.scored)} parameters of '{plan.model.id}'"
    hint(f"Scanning {what}{together}.", quiet=quiet)
    if checkpoint.remote:  # it costs time that the user should know of
        for line in plan_lines(checkpoint, plan)[1:]:
            hint(line, quiet=quiet)
    files = checkpoint.states()
    with PartialScan(_partial_file(stem), plan.model, plan.settings, files=files) as partial:
        if partial.set_aside:
            warn(f"'{partial.path}' is of another scan (weights, files, names, settings); now '{partial.set_aside}'.")
        if partial.done:
            hint(f"Carrying on: {len(partial.done)} matrices were finished before.", quiet=quiet)
        with progress(total_cost(plan), plan.matrix_count, quiet=quiet) as advance:
            result, spectra = run_scan(checkpoint, plan, team=ranks, partial=partial, on_done=advance)
        if checkpoint.states() != files:
            raise CheckpointError(
                f"Files of '{checkpoint.folder}' were written while they were scanned. "
                "Run the command again when nothing writes to them."
            )
        assert plan.model.fingerprint is not None
        # The scan file last: where it stands, its spectra stand beside it.
        write_spectra(spectra, spectra_file(stem), fingerprint=plan.model.fingerprint)
        write_scan(result, scan_file(stem))
        partial.remove()
    hint(f"Wrote '{scan_file(stem)}' and '{spectra_file(stem)}'.", quiet=quiet)
    return result


def scan_file(stem: Path) -> Path:
    """Where the scan is written."""
    return stem.with_name(f"{stem.name}.json")


def spectra_file(stem: Path) -> Path:
    """Where the singular values are written."""
    return stem.with_name(f"{stem.name}.spectra.safetensors")


def _partial_file(stem: Path) -> Path:
    return stem.with_name(f"{stem.name}.partial.jsonl")
