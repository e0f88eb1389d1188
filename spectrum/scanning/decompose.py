"""The loop: in which order matrices are read and decomposed, on which device. Knows no files of results."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch

from spectrum.checkpoint import FLOAT_SIZES, Checkpoint
from spectrum.errors import CheckpointError, DecompositionError, SpectrumError
from spectrum.naming import Matrix, Parameter
from spectrum.scanning.matrices import part_bytes, read_matrices, reads_of
from spectrum.scanning.read_ahead import Read, read_ahead
from spectrum.spectra.gram import slice_length
from spectrum.spectra.solver import (
    ONE_THREAD,
    Precision,
    Spectrum,
    batch_singular_values,
    singular_values_of_rows,
)

# Small matrices of one shape are read and decomposed together up to this much in storage, large ones one at a time on
# the CPU. 32 MiB are a hundred 384 x 384 matrices in bfloat16, and little beside what torch itself takes.
BATCH_BYTES = 32 * 2**20
GPU_BATCH_BYTES = 1024 * 2**20

# What torch's allocators say on a CPU; those of GPUs have an error of their own, which is a RuntimeError too.
_OUT_OF_MEMORY = re.compile(r"can't allocate memory|not enough memory|out of memory", re.IGNORECASE)

# Time for the eigenvalues of a p x p Gram matrix over that for one such product of p rows, measured at p = 4096 on two
# CPU cores: 1.0 s against 0.12 s. Only the balance between ranks and the time left depend on it.
EIGENVALUE_COST = 8


@dataclass(frozen=True)
class Task:
    """One matrix to decompose.

    Attributes:
        parameter: that it belongs to.
        matrix: which.
        dtype: of its tensor.
    """

    parameter: Parameter
    matrix: Matrix
    dtype: str

    @property
    def cost(self) -> float:
        """See `estimated_cost`."""
        return estimated_cost(self.matrix.shape)


@dataclass(frozen=True)
class Decomposed:
    """One matrix done: which, and its spectrum."""

    task: Task
    spectrum: Spectrum


def estimated_cost(shape: tuple[int, int]) -> float:
    """What decomposing a matrix takes, about: p^2 (q + EIGENVALUE_COST p) multiplications."""
    p, q = min(shape), max(shape)
    return float(p * p) * (q + EIGENVALUE_COST * p)


def plan_tasks(checkpoint: Checkpoint, parameters: Sequence[Parameter]) -> list[Task]:
    """Every matrix of the parameters, the dearest first; equal shapes then stand together, ready for a batch."""
    tasks = [
        Task(parameter, matrix, checkpoint.tensors[matrix.tensor].dtype)
        for parameter in parameters
        for matrix in parameter.matrices
    ]
    return sorted(tasks, key=lambda task: (-task.cost, task.matrix.shape, task.dtype))  # stable: natural order of name


def decompose(
    checkpoint: Checkpoint, tasks: Sequence[Task], *, precision: Precision = "auto", device: str = "cpu"
) -> Iterator[Decomposed]:
    """Spectra of the tasks, in their order; the next matrix is read while one is decomposed.

    On the CPU a spectrum does not depend, to the last bit, on which other matrices are done with it.

    Args:
        checkpoint: open.
        tasks: what to do.
        precision: see `solver.singular_values`.
        device: as torch names it; see `choose_device`.

    Yields:
        Each task with its spectrum.

    Raises:
        CheckpointError: a weight that is not finite, by the name of its tensor.
        DecompositionError: a matrix for which no solver converged or memory did not suffice, likewise.
        SpectrumError: there is not enough memory for it.
    """
    batches = _batches(tasks, device)
    reads = (read for batch in batches for read in _reads(checkpoint, batch))
    pieces = read_ahead(reads, largest_bytes=checkpoint.largest_ahead)
    try:
        for batch in batches:
            with _told(checkpoint, batch[0]):
                if _by_rows(batch):
                    spectra = [_decompose_rows(checkpoint, batch[0], pieces, precision, device)]
                else:
                    spectra = _decompose_whole(checkpoint, batch, next(pieces), precision, device)
            yield from map(Decomposed, batch, spectra)
    finally:
        pieces.close()


def bytes_to_read(checkpoint: Checkpoint, parameters: Sequence[Parameter], *, device: str) -> int:
    """Bytes of the checkpoint that decomposing the parameters once reads."""
    batches = _batches(plan_tasks(checkpoint, parameters), device)
    reads = ({read for task in batch for read in reads_of(checkpoint, task.matrix)} for batch in batches)
    return sum(part_bytes(checkpoint, *read) for batch in reads for read in batch)


def choose_device(wanted: str, *, local_rank: int = 0) -> str:
    """The device to decompose on.

    Args:
        wanted: 'auto' (CUDA where there is one, else the CPU), or a device as torch names it.
        local_rank: of this process among those on its machine; 'auto' and 'cuda' give each a GPU of its own.

    Returns:
        As torch names it. 'mps' gives 'cpu': torch has no eigenvalues on Apple's GPU.

    Raises:
        CheckpointError: this machine has no such device.
    """
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if wanted == "auto":
        wanted = "cuda" if count else "cpu"
    if wanted == "cuda" and count > 1:
        return f"cuda:{local_rank % count}"
    number = re.fullmatch(r"cuda(?::([0-9]+))?", wanted)
    if number and int(number.group(1) or 0) >= count:
        raise CheckpointError(
            f"This machine has no device '{wanted}' that torch can use ({count} CUDA devices). "
            "Use --device cpu, or install a CUDA build of torch."
        )
    return "cpu" if wanted == "mps" else wanted


def _batches(tasks: Sequence[Task], device: str) -> list[list[Task]]:
    """Neighbours of one shape and dtype that are read and decomposed together."""
    batches: list[list[Task]] = []
    limit = GPU_BATCH_BYTES if device.startswith("cuda") else BATCH_BYTES
    held = 0
    for task in tasks:
        alone = not device.startswith("cuda") and min(task.matrix.shape) > ONE_THREAD
        size = _size_bytes(task)
        alike = batches and (batches[-1][0].matrix.shape, batches[-1][0].dtype) == (task.matrix.shape, task.dtype)
        if alone or not alike or held + size > limit:
            batches.append([])
            held = 0
        batches[-1].append(task)
        held += size
    return batches


def _by_rows(batch: Sequence[Task]) -> bool:
    """Whether a batch is one tall matrix that is read slice by slice, so that it is never whole in memory."""
    matrix = batch[0].matrix
    plain = not (matrix.index or matrix.pieces or matrix.view)
    return len(batch) == 1 and plain and matrix.shape[0] >= matrix.shape[1] and _size_bytes(batch[0]) > BATCH_BYTES


def _reads(checkpoint: Checkpoint, batch: Sequence[Task]) -> Iterator[Read[list[torch.Tensor]]]:
    if not _by_rows(batch):
        matrices = [task.matrix for task in batch]
        size_bytes = sum(map(_size_bytes, batch))
        yield Read(size_bytes, lambda: read_matrices(checkpoint, matrices))
        return
    rows, cols = batch[0].matrix.shape
    step = slice_length(cols)
    for start in range(0, rows, step):
        stop = min(start + step, rows)
        row_bytes = _size_bytes(batch[0]) // rows
        yield Read((stop - start) * row_bytes, partial(_read_rows, checkpoint, batch[0].matrix.tensor, start, stop))


def _read_rows(checkpoint: Checkpoint, tensor: str, start: int, stop: int) -> list[torch.Tensor]:
    return [checkpoint.read(tensor, start, stop)]


def _decompose_whole(
    checkpoint: Checkpoint, batch: Sequence[Task], matrices: Sequence[torch.Tensor], precision: Precision, device: str
) -> list[Spectrum]:
    try:
        return batch_singular_values(matrices, precision=precision, device=device)
    except ValueError as error:
        wrong = next((task for task, m in zip(batch, matrices, strict=True) if not m.isfinite().all()), batch[0])
        raise _unusable(checkpoint, wrong, error) from error
    except DecompositionError as error:
        if len(batch) == 1:
            raise _unsolved(checkpoint, batch[0], error) from error
    # One by one they need less memory at a time, and the one that fails is known by name.
    alone = zip(batch, matrices, strict=True)
    return [_decompose_whole(checkpoint, [task], [matrix], precision, device)[0] for task, matrix in alone]


def _decompose_rows(
    checkpoint: Checkpoint, task: Task, pieces: Iterator[list[torch.Tensor]], precision: Precision, device: str
) -> Spectrum:
    rows, cols = task.matrix.shape
    ahead = list(range(0, rows, slice_length(cols)))  # first rows of the slices that are being read ahead

    def read_rows(start: int, stop: int) -> torch.Tensor:
        """Slices come ahead once, in order; a second pass reads for itself."""
        if ahead and start == ahead[0]:
            ahead.pop(0)
            return next(pieces)[0]
        return checkpoint.read(task.matrix.tensor, start, stop)

    try:
        spectrum = singular_values_of_rows(read_rows, (rows, cols), precision=precision, device=device)
    except ValueError as error:
        raise _unusable(checkpoint, task, error) from error
    except DecompositionError as error:
        raise _unsolved(checkpoint, task, error) from error
    for _ in ahead:  # left over where a GPU ran out of memory and the CPU began anew
        next(pieces)
    return spectrum


@contextmanager
def _told(checkpoint: Checkpoint, task: Task) -> Iterator[None]:
    """Let what torch and the system have no memory for end as an error that a user can act on."""
    name, shape = task.matrix.tensor, " x ".join(map(str, task.matrix.shape))
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not _OUT_OF_MEMORY.search(str(error)):
            raise
        raise SpectrumError(
            f"There is not enough memory to decompose '{name}' of '{checkpoint.id}' ({shape}). Free some, use a "
            "machine with more, or leave the module out with --exclude. What is finished is kept."
        ) from error


def _unusable(checkpoint: Checkpoint, task: Task, error: ValueError) -> CheckpointError:
    return CheckpointError(
        f"{_place(checkpoint, task)} cannot be scored: {error} "
        "The checkpoint is damaged: download it again, or leave the module out with --exclude."
    )


def _unsolved(checkpoint: Checkpoint, task: Task, error: DecompositionError) -> DecompositionError:
    return DecompositionError(
        f"{_place(checkpoint, task)} cannot be scored: {error} Close other programs if memory is short, "
        "or leave the module out with --exclude; what is finished is kept."
    )


def _place(checkpoint: Checkpoint, task: Task) -> str:
    place = f" (matrix {task.matrix.label})" if task.matrix.label else ""
    return f"Tensor '{task.matrix.tensor}' of '{checkpoint.id}'{place}"


def _size_bytes(task: Task) -> int:
    return task.matrix.shape[0] * task.matrix.shape[1] * FLOAT_SIZES[task.dtype]
