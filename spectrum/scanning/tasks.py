"""The work of a scan: one task per matrix, most expensive first, in batches that are read and decomposed together."""

from collections.abc import Sequence
from dataclasses import dataclass

from spectrum.checkpoint import FLOAT_SIZES
from spectrum.naming import Matrix, Parameter
from spectrum.results.spectra import matrix_key
from spectrum.scanning.matrices import Source, part_bytes, reads_of
from spectrum.spectra.solver import ONE_THREAD

# Small matrices of one shape are read and decomposed together up to this size in storage, large ones one at a time on
# the CPU. 32 MiB are a hundred 384 x 384 matrices in bfloat16, which is little compared with torch's own memory.
BATCH_BYTES = 32 * 2**20
GPU_BATCH_BYTES = 1024 * 2**20

# Time for the eigenvalues of a p x p Gram matrix, in units of the product of p rows that makes one; measured at
# p = 4096 on two CPU cores: 1.0 s against 0.12 s. Only the balance between ranks and the time left depend on it.
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
    def key(self) -> str:
        """Name of the matrix in the spectra file."""
        return matrix_key(self.parameter.name, self.matrix.label)

    @property
    def cost(self) -> float:
        """See `estimated_cost`."""
        return estimated_cost(self.matrix.shape)

    @property
    def size_bytes(self) -> int:
        """Of the matrix in the dtype it is read in."""
        return self.matrix.shape[0] * self.matrix.shape[1] * FLOAT_SIZES[self.dtype]


def estimated_cost(shape: tuple[int, int]) -> float:
    """Roughly how many multiplications decomposing a matrix takes: p^2 (q + EIGENVALUE_COST p)."""
    p, q = min(shape), max(shape)
    return float(p * p) * (q + EIGENVALUE_COST * p)


def plan_tasks(source: Source, parameters: Sequence[Parameter]) -> list[Task]:
    """Every matrix of the parameters, most expensive first; equal shapes are neighbours, ready for a batch."""
    tasks = [
        Task(parameter, matrix, source.tensors[matrix.tensor].dtype)
        for parameter in parameters
        for matrix in parameter.matrices
    ]
    return sorted(tasks, key=lambda task: (-task.cost, task.matrix.shape, task.dtype))  # stable: natural order of name


def batches(tasks: Sequence[Task], device: str) -> list[list[Task]]:
    """Neighbours of one shape and dtype that are read and decomposed together."""
    on_gpu = device.startswith("cuda")
    result: list[list[Task]] = []
    limit = GPU_BATCH_BYTES if on_gpu else BATCH_BYTES
    held = 0
    for task in tasks:
        alone = not on_gpu and min(task.matrix.shape) > ONE_THREAD
        alike = result and (result[-1][0].matrix.shape, result[-1][0].dtype) == (task.matrix.shape, task.dtype)
        if alone or not alike or held + task.size_bytes > limit:
            result.append([])
            held = 0
        result[-1].append(task)
        held += task.size_bytes
    return result


def by_rows(batch: Sequence[Task]) -> bool:
    """Whether a batch is one tall matrix that is read in slices of rows, so that it is never whole in memory."""
    matrix = batch[0].matrix
    plain = not (matrix.index or matrix.pieces or matrix.view)
    return len(batch) == 1 and plain and matrix.shape[0] >= matrix.shape[1] and batch[0].size_bytes > BATCH_BYTES


def bytes_to_read(source: Source, tasks: Sequence[Task], *, device: str) -> int:
    """Bytes of the checkpoint that are read to decompose matrices once."""
    reads = ({read for task in batch for read in reads_of(source, task.matrix)} for batch in batches(tasks, device))
    return sum(part_bytes(source, *read) for batch in reads for read in batch)
