"""Matrices from an open checkpoint: which rows of which tensors they are made of, and how several are read together."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock
from typing import Protocol, TypeAlias

import torch

from spectrum.checkpoint import Tensor
from spectrum.naming import Matrix

ReadRows: TypeAlias = Callable[[str, int, int | None], torch.Tensor]


class Source(Protocol):
    """Whatever holds named tensors and reads rows of them: an open checkpoint."""

    @property
    def id(self) -> str:
        """Name for messages."""

    @property
    def tensors(self) -> Mapping[str, Tensor]:
        """Name -> tensor."""

    @property
    def concurrent_reads(self) -> int:
        """How many reads at a time are fastest."""

    @property
    def largest_ahead(self) -> int | None:
        """Bytes up to which a matrix is read while another is decomposed; None for any."""

    def read(self, name: str, start: int = 0, stop: int | None = None) -> torch.Tensor:
        """Entries `start` to `stop` along the first dimension of a tensor, on the CPU."""


def read_matrices(source: Source, matrices: Sequence[Matrix]) -> list[torch.Tensor]:
    """The numbers of several matrices, as `read_matrix` gives them; rows that two of them share are read once."""
    read = _once(source.read)
    if source.concurrent_reads == 1 or len(matrices) == 1:
        return [read_matrix(source, matrix, read) for matrix in matrices]
    with ThreadPoolExecutor(source.concurrent_reads) as pool:
        return list(pool.map(lambda matrix: read_matrix(source, matrix, read), matrices))


def read_matrix(source: Source, matrix: Matrix, read: ReadRows | None = None) -> torch.Tensor:
    """The numbers of one matrix, (rows, cols), in the dtype the checkpoint is read in.

    Of a stack of experts only the one is read.

    Args:
        source: of the weights.
        matrix: of one of its parameters.
        read: instead of `source.read`.
    """
    read = read or source.read
    if matrix.pieces:
        return torch.cat([read_matrix(source, piece, read) for piece in matrix.pieces], dim=matrix.axis)
    rows = _rows_of(source, matrix)
    part = read(matrix.tensor, *(rows or (0, None)))
    if matrix.view is None:
        return part[0][matrix.index[1:]] if rows else part[matrix.index]
    # A copy of the part, or it would keep the whole alive.
    return part[matrix.index[1:]] if rows else part.reshape(matrix.view)[matrix.index].clone()


def reads_of(source: Source, matrix: Matrix) -> list[tuple[str, tuple[int, int] | None]]:
    """What reading a matrix reads: (tensor, first row and the row after the last; None for all of it)."""
    if matrix.pieces:
        return [read for piece in matrix.pieces for read in reads_of(source, piece)]
    return [(matrix.tensor, _rows_of(source, matrix))]


def part_bytes(source: Source, name: str, rows: tuple[int, int] | None) -> int:
    """Size of such a read in bytes."""
    tensor = source.tensors[name]
    return tensor.size_bytes * (rows[1] - rows[0]) // tensor.shape[0] if rows else tensor.size_bytes


def _rows_of(source: Source, matrix: Matrix) -> tuple[int, int] | None:
    """The rows of its tensor that hold a matrix of a stack; None if all of it is read."""
    expert = matrix.index[0] if matrix.index else None
    if not isinstance(expert, int):
        return None
    if matrix.view is None:
        return expert, expert + 1
    view, shape = matrix.view, source.tensors[matrix.tensor].shape
    flat = len(view) == 3 and (view[0] * view[1], view[2]) == shape
    return (expert * view[1], (expert + 1) * view[1]) if flat else None


def _once(read: ReadRows) -> ReadRows:
    """The same, but rows that two matrices share (gate and up of a fused expert) are read once, by the first caller."""
    lock, results = Lock(), dict[tuple[str, int, int | None], "Future[torch.Tensor]"]()

    def read_once(name: str, start: int, stop: int | None) -> torch.Tensor:
        with lock:
            first = (name, start, stop) not in results
            result = results.setdefault((name, start, stop), Future())
        if first:
            try:
                result.set_result(read(name, start, stop))
            except BaseException as error:
                result.set_exception(error)
                raise
        return result.result()

    return read_once
