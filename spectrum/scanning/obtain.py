"""A scan from model to files: reuses what is stored, resumes what was interrupted, adds what is missing."""

from dataclasses import dataclass, replace
from pathlib import Path

from spectrum.checkpoint import Checkpoint
from spectrum.errors import CheckpointError
from spectrum.results import Scan, Spectra, check_writable, write_scan
from spectrum.scanning.lock import locked
from spectrum.scanning.partial import PartialScan
from spectrum.scanning.plan import Plan, with_device
from spectrum.scanning.progress import SILENT, Listener, Progress
from spectrum.scanning.ranks import ALONE, Team
from spectrum.scanning.scoring import rescore
from spectrum.scanning.store import (
    Place,
    Stored,
    named_place,
    planned_shapes,
    read_store,
    set_aside,
    write_store,
)
from spectrum.scanning.union import as_asked, union


@dataclass(frozen=True)
class Scanned:
    """The result of a scan.

    Attributes:
        scan: what was asked for, under the noise model asked for.
        as_stored: the same parameters under the noise model of the scan file.
        place: of the files, which may hold more.
    """

    scan: Scan
    as_stored: Scan
    place: Place


def obtain(
    checkpoint: Checkpoint,
    plan: Plan,
    folder: Path,
    *,
    ranks: Team = ALONE,
    rescan: bool = False,
    listener: Listener = SILENT,
) -> Scanned:
    """The planned scan from the store, to which everything missing is added.

    Args:
        checkpoint: that the plan was made from.
        plan: what is asked for; the same on every rank.
        folder: of the store.
        ranks: the processes that share the work.
        rescan: decompose everything planned again.
        listener: receives messages and progress; on the leading rank only.

    Returns:
        The same on every rank.

    Raises:
        SpectrumError: as for `spectrum.scan`.
    """
    if not ranks.leads:
        if not ranks.gather(False)[0]:
            _help(checkpoint, with_device(plan, team=ranks), ranks)
        return ranks.from_leader(None)
    name = named_place(folder, plan)
    check_writable(name.spectra_file)
    with locked(name.lock_file, on_wait=lambda holder: listener.hint(_waiting(holder))):
        stored = read_store(checkpoint, plan, folder, rescan=rescan)
        reused = not rescan and stored.serves(plan)
        ranks.gather(reused)
        if reused:
            result = _reuse(stored, plan, listener)
        else:
            if stored.place != name:
                listener.warn(
                    f"'{name.scan_file}' is a scan of other weights; this one goes to '{stored.place.scan_file}'."
                )
            plan = with_device(plan, team=ranks)
            result = _extend(checkpoint, plan, stored, ranks=ranks, rescan=rescan, listener=listener)
    return ranks.from_leader(result)


def preview(checkpoint: Checkpoint, plan: Plan, folder: Path, *, ranks: Team = ALONE) -> list[str]:
    """What `obtain` would do, a line each: how much is left to score, to read and to compute."""
    from spectrum.scanning.estimate import describe_work  # noqa: PLC0415  they import torch
    from spectrum.scanning.run import missing_tasks  # noqa: PLC0415

    stored = read_store(checkpoint, plan, folder)
    plan = with_device(plan, team=ranks)
    known = planned_shapes(plan) if stored.serves(plan) else stored.spectra.values
    missing = missing_tasks(checkpoint, plan, known)
    others = plan.matrix_count - len(missing)
    revision = f" @ {plan.model.revision}" if plan.model.revision else ""
    return [
        f"'{plan.model.id}'{revision}: {plan.matrix_count} matrices of {len(plan.scored)} parameters"
        + (f"; {others} of them are stored" if others else ""),
        *describe_work(checkpoint, plan, missing),
    ]


def _help(checkpoint: Checkpoint, plan: Plan, ranks: Team) -> None:
    """The part of a rank that does not lead: its spectra go to the one that does."""
    from spectrum.scanning.run import decompose_missing  # noqa: PLC0415  it imports torch

    for _ in decompose_missing(checkpoint, plan, team=ranks):
        pass


def _waiting(holder: str) -> str:
    return f"Another scan of this model writes to this folder ({holder}); waiting until it is done."


def _reuse(stored: Stored, plan: Plan, listener: Listener) -> Scanned:
    """The stored scan, whose file is only written if its names are known better now."""
    assert stored.scan is not None
    whole, now = stored.scan, plan.model
    if (whole.model.model_class, whole.model.name_mapping) != (now.model_class, now.name_mapping):
        whole = replace(whole, model=now)
        write_scan(whole, stored.place.scan_file)
    listener.hint(f"Using the stored scan '{stored.place.scan_file}'; --rescan makes a new one.")
    return _scanned(whole, plan, stored.place, stored.spectra)


def _extend(
    checkpoint: Checkpoint, plan: Plan, stored: Stored, *, ranks: Team, rescan: bool, listener: Listener
) -> Scanned:
    """Decompose what is missing, and write it together with what is stored."""
    place = stored.place
    if stored.problem:
        listener.warn(f"the stored scan '{place.scan_file}' is replaced: {stored.problem}.")
    files = checkpoint.states()
    with PartialScan(place.partial_file, plan.model, plan.settings, files=files) as partial:
        if partial.set_aside:
            listener.warn(f"'{partial.path}' is of another scan (weights, files, method); now '{partial.set_aside}'.")
        spectra = stored.spectra.without(planned_shapes(plan) if rescan else ())
        _decompose(checkpoint, plan, spectra, partial, ranks=ranks, listener=listener)
        if checkpoint.states() != files:
            raise CheckpointError(
                f"Files of '{checkpoint.folder}' were written while they were scanned. "
                "Run the command again when nothing writes to them."
            )
        whole = union(stored.scan, plan, spectra)
        moved = set_aside(stored, plan)
        if moved:
            listener.warn(f"the older scan is kept as '{moved}'.")
        write_store(place, whole, spectra)
        partial.remove()
    listener.hint(f"Wrote '{place.scan_file}' and '{place.spectra_file}'.")
    return _scanned(whole, plan, place, spectra)


def _decompose(
    checkpoint: Checkpoint, plan: Plan, spectra: Spectra, partial: PartialScan, *, ranks: Team, listener: Listener
) -> None:
    """Add the planned spectra that are neither stored nor in the partial file."""
    from spectrum.scanning.estimate import describe_work  # noqa: PLC0415  they import torch
    from spectrum.scanning.run import decompose_missing, missing_tasks  # noqa: PLC0415

    missing = missing_tasks(checkpoint, plan, spectra.values)
    parameters = len({task.parameter.name for task in missing})
    together = f" on {ranks.size} ranks" if ranks.size > 1 else ""
    others = plan.matrix_count - len(missing)
    stored = f"; {others} more are stored" if others else ""
    listener.hint(
        f"Scanning {len(missing)} matrices of {parameters} parameters of '{plan.model.id}'{together}{stored}."
    )
    if checkpoint.remote:  # the user should know what the network will carry
        for line in describe_work(checkpoint, plan, missing):
            listener.hint(line)
    partial.add_to(spectra, planned_shapes(plan))
    earlier = [task.cost for task in missing if task.key in spectra.values]
    if earlier:
        listener.hint(f"Carrying on: {len(earlier)} matrices were finished before.")
    state = Progress(
        done=len(earlier),
        total=len(missing),
        earlier=len(earlier),
        done_cost=sum(earlier),
        total_cost=sum(task.cost for task in missing),
        earlier_cost=sum(earlier),
    )
    listener.progress(state)
    for item in decompose_missing(checkpoint, plan, known=spectra.values, team=ranks):
        spectra.add(item.key, item.values, item.redone)
        partial.append(item.key, item.values, redone=item.redone)
        state = replace(state, done=state.done + 1, done_cost=state.done_cost + item.cost)
        listener.progress(state)


def _scanned(whole: Scan, plan: Plan, place: Place, spectra: Spectra) -> Scanned:
    as_stored = as_asked(whole, plan)
    if as_stored.settings.noise_model == plan.settings.noise_model:
        return Scanned(as_stored, as_stored, place)
    return Scanned(rescore(as_stored, spectra.values, plan.settings.noise_model), as_stored, place)
