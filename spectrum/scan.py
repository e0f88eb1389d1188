"""The loop: reads one matrix after the other and decomposes it. Knows no files of results."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from spectrum.checkpoint import Checkpoint
from spectrum.errors import CheckpointError
from spectrum.naming import Matrix, Parameter
from spectrum.singular import Array, Precision, singular_values


@dataclass(frozen=True)
class Decomposed:
    """One matrix done.

    Attributes:
        parameter: that it belongs to.
        matrix: which.
        spectrum: (p,) float64, descending.
    """

    parameter: Parameter
    matrix: Matrix
    spectrum: Array


def decompose(
    checkpoint: Checkpoint, parameters: Sequence[Parameter], *, precision: Precision = "auto", device: str = "cpu"
) -> Iterator[Decomposed]:
    """Spectra of all matrices of the parameters, in their order; one matrix is in memory at a time.

    Args:
        checkpoint: open.
        parameters: to score.
        precision: see `singular.singular_values`.
        device: see `choose_device`.

    Raises:
        CheckpointError: a weight that is not finite, by the name of its tensor.
    """
    for parameter in parameters:
        for matrix in parameter.matrices:
            values = read_matrix(checkpoint, matrix)
            try:
                spectrum = singular_values(values, precision=precision, device=device)
            except ValueError as error:
                place = f" (matrix {matrix.label})" if matrix.label else ""
                raise CheckpointError(
                    f"Tensor '{matrix.tensor}' of '{checkpoint.id}'{place} cannot be scored: {error}. "
                    "The checkpoint is damaged: download it again, or leave the module out with --exclude."
                ) from error
            yield Decomposed(parameter, matrix, spectrum)


def read_matrix(checkpoint: Checkpoint, matrix: Matrix) -> torch.Tensor:
    """The numbers of one matrix, (rows, cols), in the dtype of the file.

    Of a stack of experts only the one is read.
    """
    if matrix.pieces:
        return torch.cat([read_matrix(checkpoint, piece) for piece in matrix.pieces], dim=matrix.axis)
    if matrix.view is not None:
        return checkpoint.read(matrix.tensor).reshape(matrix.view)[matrix.index]
    if matrix.index and isinstance(expert := matrix.index[0], int):
        inside = (0, *matrix.index[1:])
        return checkpoint.read(matrix.tensor, expert, expert + 1)[inside]
    return checkpoint.read(matrix.tensor)[matrix.index]


def choose_device(wanted: str) -> str:
    """The device to decompose on.

    Args:
        wanted: 'auto' (CUDA where there is one, else the CPU), or a device as torch names it.

    Raises:
        CheckpointError: this machine has no such device.
    """
    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    kind, _, number = wanted.partition(":")
    if kind == "cuda" and (not torch.cuda.is_available() or int(number or 0) >= torch.cuda.device_count()):
        raise CheckpointError(
            f"This machine has no device '{wanted}' that torch can use ({torch.cuda.device_count()} CUDA devices). "
            "Use --device cpu, or install a CUDA build of torch."
        )
    # torch has no singular values on Apple's GPU: it would copy each matrix there and back.
    return "cpu" if kind == "mps" else wanted
