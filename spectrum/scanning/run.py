"""Decomposing what a plan asks for, split among ranks, and the scan that the spectra make."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import chain, islice

from spectrum.checkpoint import Checkpoint
from spectrum.results.scan import Scan
from spectrum.results.spectra import Spectra
from spectrum.scanning import decompose as loop
from spectrum.scanning.matrices import Source
from spectrum.scanning.plan import Plan, check_ranks, with_device
from spectrum.scanning.ranks import ALONE, Team, rounds
from spectrum.scanning.scoring import score_plan
from spectrum.scanning.tasks import Task, plan_tasks
from spectrum.spectra.snr import Array

# Cost below which no round of several ranks ends: about half a second of two CPU cores.
ROUND_COST = 2e11


@dataclass(frozen=True)
class Finished:
    """A decomposed matrix, as ranks send it to each other.

    Attributes:
        key: of the matrix.
        cost: see `tasks.estimated_cost`.
        values: (p,) float64, descending.
        redone: how it was decomposed, if not by the fast path.
    """

    key: str
    cost: float
    values: Array
    redone: str | None


def decompose_missing(
    source: Source, plan: Plan, *, known: Collection[str] = (), team: Team = ALONE
) -> Iterator[Finished]:
    """Decompose the planned matrices that are not known, on all ranks together.

    Args:
        source: that the plan was made from.
        plan: what to do, with its device; the same on every rank.
        known: keys of matrices that need no decomposition; only the leading rank's count.
        team: the processes that share the work.

    Yields:
        On the leading rank every matrix of every rank, as soon as its round is over; nothing on the others, which have
        to be iterated all the same.

    Raises:
        CheckpointError: a weight that is not finite; a file that became shorter since it was opened.
        SpectrumError: another rank has ended, or read another checkpoint.
    """
    check_ranks(team, plan)
    tasks = missing_tasks(source, plan, team.gather(frozenset(known))[0])
    schedule = rounds([task.cost for task in tasks], team.size, smallest=ROUND_COST if team.size > 1 else 0)
    mine = [tasks[index] for each in schedule for index in each[team.rank]]
    done = loop.decompose(source, mine, precision=plan.settings.precision, device=plan.settings.device or "cpu")
    for each in schedule:
        own = [_finished(entry) for entry in islice(done, len(each[team.rank]))]
        yield from chain.from_iterable(team.collect(own))


def missing_tasks(source: Source, plan: Plan, known: Collection[str]) -> list[Task]:
    """The planned tasks whose matrices are not known, most expensive first."""
    return [task for task in plan_tasks(source, plan.scored) if task.key not in known]


def run_scan(checkpoint: Checkpoint, plan: Plan, *, team: Team = ALONE) -> tuple[Scan, dict[str, Array]]:
    """Decompose and score everything planned, without reading or writing result files; `spectrum.scan` uses a store.

    Args:
        checkpoint: that the plan was made from.
        plan: what to do; its device may be 'auto'.
        team: the processes that share the work; each calls this with the same plan.

    Returns:
        The scan, and matrix key -> (p,) float64 spectrum, descending; without scores and spectra on ranks that do not
        lead.

    Raises:
        CheckpointError, SpectrumError: as for `decompose_missing`.
    """
    plan = with_device(plan, team=team)
    spectra = Spectra()
    for item in decompose_missing(checkpoint, plan, team=team):
        spectra.add(item.key, item.values, item.redone)
    scores = score_plan(plan, spectra, plan.settings.noise_model) if team.leads else ()
    return Scan(plan.model, plan.settings, scores, plan.unscored, plan.skipped), spectra.values


def _finished(entry: loop.Decomposed) -> Finished:
    path = entry.spectrum.path
    return Finished(entry.task.key, entry.task.cost, entry.spectrum.values, None if path == "gram" else path)
