"""This machine against the plain SVD: time, accuracy and memory on the matrix shapes of known models."""

import math
import multiprocessing
import resource
import statistics
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import numpy as np
import torch

from spectrum.errors import SpectrumError
from spectrum.spectra.snr import Array, snr
from spectrum.spectra.solver import Spectrum, batch_singular_values


@dataclass(frozen=True)
class Shape:
    """A shape of weight matrix, as stored, and how many of it a layer has."""

    rows: int
    cols: int
    per_layer: int


@dataclass(frozen=True)
class ModelShapes:
    """The weight matrices of a model's layers."""

    layers: int
    dtype: torch.dtype
    shapes: tuple[Shape, ...]


def _decoder(layers: int, hidden: int, intermediate: int, key_value: int, experts: int = 1) -> ModelShapes:
    shapes = (
        Shape(hidden, hidden, 2),  # q, o
        Shape(key_value, hidden, 2),  # k, v
        Shape(intermediate, hidden, 2 * experts),  # gate, up
        Shape(hidden, intermediate, experts),  # down
    )
    return ModelShapes(layers, torch.bfloat16, shapes)


# From the config.json of each model.
MODELS = {
    "minilm": ModelShapes(6, torch.float32, (Shape(384, 384, 4), Shape(1536, 384, 1), Shape(384, 1536, 1))),
    "llama-3-8b": _decoder(32, 4096, 14336, 1024),
    "llama-3-70b": _decoder(80, 8192, 28672, 1024),
    "mixtral-8x22b": _decoder(56, 6144, 16384, 1024, experts=8),
}


@dataclass(frozen=True)
class Measurement:
    """One shape measured.

    Attributes:
        shape: rows and cols.
        matrices: how many were timed together.
        plain_seconds: median time of the plain SVD for all of them.
        seconds: median time of ours for all of them.
        ratio: median over the pairs of plain over ours.
        deviation: relative difference of the SNR from that of a float64 SVD; None if it was not asked for.
        peak_bytes: memory of a process that does nothing else, imports included; on a GPU that of the GPU.
        rate_share: multiplications per second, over those of this machine's matrix product.
    """

    shape: tuple[int, int]
    matrices: int
    plain_seconds: float
    seconds: float
    ratio: float
    deviation: float | None
    peak_bytes: int
    rate_share: float


def measure(
    model: ModelShapes, *, layers: int = 1, pairs: int = 3, device: str = "cpu", accuracy: bool = True
) -> Iterator[Measurement]:
    """Measure each shape of a model: the plain SVD and ours in turn, pair by pair.

    The plain method is that of the authors' program: torch.linalg.svdvals of the float32 matrix, one at a time.

    Args:
        model: whose shapes are measured.
        layers: how many layers' matrices are timed together.
        pairs: of measurements, after one that does not count.
        device: as torch names it.
        accuracy: compare with a float64 SVD, which takes longest.
    """
    rate = product_rate(device)
    for shape in model.shapes:
        matrices = _matrices(shape, shape.per_layer * layers, model.dtype, device)
        times = [_pair(matrices, device) for _ in range(pairs + 1)][1:]
        seconds = statistics.median(ours for _, ours in times)
        work = len(matrices) * multiplications(shape.rows, shape.cols)
        yield Measurement(
            shape=(shape.rows, shape.cols),
            matrices=len(matrices),
            plain_seconds=statistics.median(plain for plain, _ in times),
            seconds=seconds,
            ratio=statistics.median(plain / ours for plain, ours in times),
            deviation=_deviation(matrices[0], device) if accuracy else None,
            peak_bytes=peak_bytes(shape, model.dtype, device),
            rate_share=work / seconds / rate,
        )


def estimate_seconds(model: ModelShapes, measurements: Sequence[Measurement], *, layers: int) -> tuple[float, float]:
    """Seconds for all layers of the model: (plain, ours), reading not included."""
    factor = model.layers / layers
    plain = sum(measurement.plain_seconds for measurement in measurements)
    return factor * plain, factor * sum(measurement.seconds for measurement in measurements)


def multiplications(rows: int, cols: int) -> float:
    """Multiplications for one matrix: one triangle of its Gram matrix, and its tridiagonal form.

    Source: Golub and Van Loan, Matrix Computations, section 8.3.1: 4/3 p^3 operations, half of them multiplications.
    """
    p, q = min(rows, cols), max(rows, cols)
    return p * p * q / 2 + 2 / 3 * p**3


def product_rate(device: str) -> float:
    """Multiplications per second of a float32 matrix product, the best of five."""
    side = 2048 if device == "cpu" else 8192
    one = torch.randn(side, side, device=device)
    return side**3 / min(_seconds(lambda: one @ one, device) for _ in range(5))


def peak_bytes(shape: Shape, dtype: torch.dtype, device: str) -> int:
    """Most memory held while one matrix of the shape is decomposed."""
    if device.startswith("cuda"):
        matrices = _matrices(shape, 1, dtype, device)
        torch.cuda.reset_peak_memory_stats(device)
        batch_singular_values(matrices, device=device)
        return int(torch.cuda.max_memory_allocated(device))
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            return pool.submit(_peak_of_process, shape, dtype).result()
        except BrokenProcessPool as error:
            raise SpectrumError(
                f"The process that measures the memory of {shape.rows} x {shape.cols} was killed, probably because "
                "memory ran out. Close other programs, or measure a smaller model with --like."
            ) from error


def _peak_of_process(shape: Shape, dtype: torch.dtype) -> int:
    torch.manual_seed(0)
    matrix = torch.empty(shape.rows, shape.cols, dtype=dtype)
    for row in range(0, shape.rows, 512):  # in parts: the whole float32 matrix would take more than decomposing it
        matrix[row : row + 512] = 0.02 * torch.randn(min(512, shape.rows - row), shape.cols)
    batch_singular_values([matrix])
    status = Path("/proc/self/status")
    if status.exists():  # on Linux, ru_maxrss includes the process that started this one
        (peak,) = [line.split()[1] for line in status.read_text().splitlines() if line.startswith("VmHWM")]
        return int(peak) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _matrices(shape: Shape, count: int, dtype: torch.dtype, device: str) -> list[torch.Tensor]:
    """Noise with eight directions of 1.5 to 6 times its edge: no harder to decompose than MiniLM's trained weights."""
    generator = torch.Generator().manual_seed(shape.rows * shape.cols)
    sizes = 0.02 * (math.sqrt(shape.rows) + math.sqrt(shape.cols)) * torch.linspace(1.5, 6, 8)
    matrices = []
    for _ in range(count):
        left = torch.randn(shape.rows, 8, generator=generator) / math.sqrt(shape.rows)
        right = torch.randn(8, shape.cols, generator=generator) / math.sqrt(shape.cols)
        noise = 0.02 * torch.randn(shape.rows, shape.cols, generator=generator)
        matrices.append((noise + (left * sizes) @ right).to(device=device, dtype=dtype))
    return matrices


def _pair(matrices: Sequence[torch.Tensor], device: str) -> tuple[float, float]:
    plain = _seconds(lambda: [torch.linalg.svdvals(matrix.float()) for matrix in matrices], device)
    return plain, _seconds(lambda: batch_singular_values(matrices, device=device), device)


def _seconds(work: Callable[[], object], device: str) -> float:
    def now() -> float:
        if device.startswith("cuda"):
            torch.cuda.synchronize(device)
        return perf_counter()

    start = now()
    work()
    return now() - start


def _deviation(matrix: torch.Tensor, device: str) -> float:
    exact: Array = torch.linalg.svdvals(matrix.double()).cpu().numpy().astype(np.float64)
    ours: Spectrum = batch_singular_values([matrix], device=device)[0]
    scores = [snr(values, (matrix.shape[0], matrix.shape[1])).snr for values in (ours.values, exact)]
    if None in scores:
        return 0.0 if scores[0] == scores[1] else math.inf
    return abs(float(scores[0] or 0.0) / float(scores[1] or math.nan) - 1)
