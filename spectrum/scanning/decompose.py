"""Tasks to spectra: reads each batch ahead of time and decomposes it. Knows nothing about result files."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch

from spectrum.errors import CheckpointError, DecompositionError, SpectrumError
from spectrum.scanning.matrices import Source, read_matrices
from spectrum.scanning.read_ahead import Read, ReadAhead
from spectrum.scanning.tasks import Task, batches, by_rows
from spectrum.spectra.gram import slice_length
from spectrum.spectra.solver import Precision, Spectrum, batch_singular_values, singular_values_of_rows

# What torch's allocator says on a CPU; those of GPUs have an error of their own, which is a RuntimeError, too.
_OUT_OF_MEMORY = re.compile(r"can't allocate memory|not enough memory|out of memory", re.IGNORECASE)


@dataclass(frozen=True)
class Decomposed:
    """One finished matrix and its spectrum."""

    task: Task
    spectrum: Spectrum


@dataclass(frozen=True)
class _Job:
    """A batch and its reads: one for all its matrices, or one for each slice of rows of a single tall matrix."""

    tasks: Sequence[Task]
    reads: Sequence[Read[list[torch.Tensor]]]
    rows: Sequence[tuple[int, int]] = ()  # first and last + 1 of each slice; () if whole matrices are read


def decompose(
    source: Source, tasks: Sequence[Task], *, precision: Precision = "auto", device: str = "cpu"
) -> Iterator[Decomposed]:
    """Spectra of the tasks, in their order; the next batch is read while one is decomposed.

    On the CPU a spectrum does not depend, to the last bit, on which other matrices are decomposed with it.

    Args:
        source: of the weights.
        tasks: what to do.
        precision: see `solver.singular_values`.
        device: as torch names it; see `choose_device`.

    Yields:
        Each task with its spectrum.

    Raises:
        CheckpointError: a weight that is not finite; the error names its tensor.
        DecompositionError: a matrix for which no solver converged or the memory was too small; likewise.
        SpectrumError: there is not enough memory for it.
    """
    jobs = [_job(source, batch) for batch in batches(tasks, device)]
    reads = [read for job in jobs for read in job.reads]
    with ReadAhead(reads, largest_bytes=source.largest_ahead) as ahead:
        for job in jobs:
            with _memory_errors(source, job.tasks[0]):
                if job.rows:
                    spectra = [_by_rows(source, job, ahead, precision, device)]
                else:
                    spectra = _whole(source, job.tasks, ahead.get(job.reads[0]), precision, device)
            yield from map(Decomposed, job.tasks, spectra)


def _job(source: Source, batch: Sequence[Task]) -> _Job:
    if not by_rows(batch):
        matrices = [task.matrix for task in batch]
        size_bytes = sum(task.size_bytes for task in batch)
        return _Job(batch, [Read(size_bytes, partial(read_matrices, source, matrices))])
    (task,) = batch
    rows, cols = task.matrix.shape
    step = slice_length(cols)
    slices = [(start, min(start + step, rows)) for start in range(0, rows, step)]
    row_bytes = task.size_bytes // rows
    reads = [
        Read((stop - start) * row_bytes, partial(_read_rows, source, task.matrix.tensor, start, stop))
        for start, stop in slices
    ]
    return _Job(batch, reads, slices)


def _read_rows(source: Source, tensor: str, start: int, stop: int) -> list[torch.Tensor]:
    return [source.read(tensor, start, stop)]


def _whole(
    source: Source, batch: Sequence[Task], matrices: Sequence[torch.Tensor], precision: Precision, device: str
) -> list[Spectrum]:
    try:
        return batch_singular_values(matrices, precision=precision, device=device)
    except ValueError as error:
        wrong = next((task for task, m in zip(batch, matrices, strict=True) if not m.isfinite().all()), batch[0])
        raise _unusable(source, wrong, error) from error
    except DecompositionError as error:
        if len(batch) == 1:
            raise _unsolved(source, batch[0], error) from error
    # One by one they need less memory at a time, and the one that fails is known by name.
    alone = zip(batch, matrices, strict=True)
    return [_whole(source, [task], [matrix], precision, device)[0] for task, matrix in alone]


def _by_rows(
    source: Source, job: _Job, ahead: ReadAhead[list[torch.Tensor]], precision: Precision, device: str
) -> Spectrum:
    (task,) = job.tasks
    planned = dict(zip(job.rows, job.reads, strict=True))

    def read_rows(start: int, stop: int) -> torch.Tensor:
        """A pass in other slices reads for itself; a second one in the same slices reads them once more."""
        read = planned.get((start, stop))
        return ahead.get(read)[0] if read else source.read(task.matrix.tensor, start, stop)

    try:
        return singular_values_of_rows(read_rows, task.matrix.shape, precision=precision, device=device)
    except ValueError as error:
        raise _unusable(source, task, error) from error
    except DecompositionError as error:
        raise _unsolved(source, task, error) from error


@contextmanager
def _memory_errors(source: Source, task: Task) -> Iterator[None]:
    """Turn out-of-memory into an error that names the tensor."""
    name, shape = task.matrix.tensor, " x ".join(map(str, task.matrix.shape))
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not _OUT_OF_MEMORY.search(str(error)):
            raise
        raise SpectrumError(
            f"There is not enough memory to decompose '{name}' of '{source.id}' ({shape}). Free some, use a "
            "machine with more, or leave the module out with --exclude. What is finished is kept."
        ) from error


def _unusable(source: Source, task: Task, error: ValueError) -> CheckpointError:
    return CheckpointError(
        f"{_place(source, task)} cannot be scored: {error} "
        "The checkpoint is damaged: download it again, or leave the module out with --exclude."
    )


def _unsolved(source: Source, task: Task, error: DecompositionError) -> DecompositionError:
    return DecompositionError(
        f"{_place(source, task)} cannot be scored: {error} Close other programs if memory is short, "
        "or leave the module out with --exclude; what is finished is kept."
    )


def _place(source: Source, task: Task) -> str:
    place = f" (matrix {task.matrix.label})" if task.matrix.label else ""
    return f"Tensor '{task.matrix.tensor}' of '{source.id}'{place}"
