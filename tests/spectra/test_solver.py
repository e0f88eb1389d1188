"""Singular values against NumPy's float64 SVD, on matrices whose spectrum is planted."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from spectra.families import make
from spectra.reference import Array, reference_values, score_difference, threshold_and_snr

from spectrum.errors import DecompositionError
from spectrum.spectra import gram, solver
from spectrum.spectra.accuracy import FLOAT32, score_error
from spectrum.spectra.solver import batch_singular_values, singular_values, singular_values_of_rows

CONTRACT = 1e-4  # relative, SNR and threshold, every finite input
ORDINARY = 1e-5  # relative, on ordinary weights
FLOAT32_VALUES = 2e-5  # absolute, in units of the largest singular value, away from 0
FLOAT64_VALUES = 1e-13  # likewise, after a float64 SVD
SHAPES = [(48, 48), (40, 150), (150, 40), (256, 256), (192, 700)]
SPIKES = [10.0, 1e2, 1e3, 1e4, 1e5]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Small products on two threads of a busy machine wait for each other: 2 minutes instead of 4 seconds."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def assert_score(found: Array, matrix: torch.Tensor, tolerance: float) -> None:
    assert score_difference(found, reference_values(matrix), tuple(matrix.shape)) <= tolerance


def gaussian(shape: tuple[int, int], seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def orthonormal(rows: int, columns: int, seed: int) -> torch.Tensor:
    return torch.linalg.qr(gaussian((rows, columns), seed)).Q


def planted(values: Array, q: int, seed: int = 0) -> torch.Tensor:
    """A (p, q) float64 matrix with these singular values."""
    p = len(values)
    return (orthonormal(p, p, seed) * torch.from_numpy(values)) @ orthonormal(q, p, seed + 1).T


def spiked(shape: tuple[int, int], size: float, count: int = 1) -> torch.Tensor:
    """Gaussian noise whose edge is about 1, and `count` singular values of about `size`."""
    left, right = orthonormal(shape[0], count, 1), orthonormal(shape[1], count, 2)
    return gaussian(shape) / (math.sqrt(shape[0]) + math.sqrt(shape[1])) + size * left @ right.T


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_ordinary_weights_take_the_fast_path(shape: tuple[int, int], dtype: torch.dtype) -> None:
    """Gaussian weights in every storage dtype are scored in float32, ten times closer than the contract."""
    matrix = (0.02 * gaussian(shape)).to(dtype)
    found = singular_values(matrix)
    assert found.path == "gram"
    assert found.values.dtype == np.float64
    assert found.values.shape == (min(shape),)
    assert_score(found.values, matrix, ORDINARY)


def test_values_are_those_planted() -> None:
    """Every value of a known spectrum comes back, in order, from both orientations with the same bytes."""
    truth = np.geomspace(8.0, 0.5, 96)
    matrix = planted(truth, 130).float()
    found = singular_values(matrix).values
    assert np.abs(found - truth).max() <= FLOAT32_VALUES * truth[0]
    assert np.array_equal(found, singular_values(matrix.T.contiguous()).values)


@pytest.mark.parametrize("shape", [(256, 256), (128, 400), (40, 40)])
@pytest.mark.parametrize("size", SPIKES)
@pytest.mark.parametrize("count", [1, 5])
def test_dominating_values(shape: tuple[int, int], size: float, count: int) -> None:
    """One or several values 10 to 1e5 times the bulk keep the contract, and the far ones are redone."""
    matrix = spiked(shape, size, count).float()
    found = singular_values(matrix)

    assert found.path != "gram" or size < 1e3
    assert_score(found.values, matrix, CONTRACT)


@pytest.mark.parametrize("power", [0.3, 0.6, 1.0, 1.5, 3.0])
@pytest.mark.parametrize("q", [200, 640])
def test_power_laws(power: float, q: int) -> None:
    """Heavy tails, from those of trained weights to condition numbers that float32 cannot square."""
    matrix = planted(np.arange(1, 201) ** -power, q).float()
    assert_score(singular_values(matrix).values, matrix, CONTRACT)


def test_heavy_tailed_entries_and_rows() -> None:
    """Student entries, rows of very different size, one huge row or column, and a large mean keep the contract."""
    draws = torch.from_numpy(np.random.default_rng(0).standard_t(2.5, size=(200, 300)))
    uneven = gaussian((200, 300)) * torch.exp(gaussian((200, 1), 1))
    row, column, mean = (gaussian((200, 300), seed) for seed in (2, 3, 4))
    row[7] *= 1e3
    column[:, 7] *= 1e2
    for matrix in (draws, uneven, row, column, mean + 3):
        assert_score(singular_values(matrix.float()).values, matrix.float(), CONTRACT)


@pytest.mark.parametrize("rank", [1, 3, 20, 36])
@pytest.mark.parametrize("shape", [(40, 40), (40, 90), (90, 40)])
def test_rank_deficient(rank: int, shape: tuple[int, int]) -> None:
    """What float64 cannot tell from 0 is exactly 0, so the score is that of the rank, not of rounding noise."""
    matrix = gaussian((shape[0], rank)) @ gaussian((rank, shape[1]), 1)
    found = singular_values(matrix)
    assert found.path == "svd-float64"
    assert np.count_nonzero(found.values) == rank
    assert_score(found.values, matrix, CONTRACT)


@pytest.mark.parametrize("rank", [37, 38, 39])
def test_a_few_zeros_too_few_to_matter(rank: int) -> None:
    """Where the score does not need them, zeros may stay rounding noise."""
    matrix = gaussian((40, rank)) @ gaussian((rank, 90), 1)
    assert_score(singular_values(matrix).values, matrix, CONTRACT)


@pytest.mark.parametrize("matrix", [torch.ones(30, 50), torch.ones(1, 50), torch.ones(50, 1), torch.full((1, 1), -3.0)])
def test_rank_one_by_hand(matrix: torch.Tensor) -> None:
    """Constant matrices, single rows and columns have one value, the root of the sum of squares."""
    found = singular_values(matrix).values
    assert found[0] == pytest.approx(math.sqrt(matrix.square().sum().item()), rel=FLOAT64_VALUES)
    assert np.count_nonzero(found) == 1


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_zeros_are_zeros_without_a_redo(dtype: torch.dtype) -> None:
    """A zero matrix has zero values and takes no slow path."""
    found = singular_values(torch.zeros(20, 30, dtype=dtype))
    assert (found.path, found.error) == ("gram", 0.0)
    assert np.array_equal(found.values, np.zeros(20))


def test_zero_rows_and_late_entries() -> None:
    """Zeros in the first or last slices, as in padded embeddings, change nothing."""
    matrix = torch.zeros(9000, 8, dtype=torch.float64)
    matrix[8500:8504, :4] = gaussian((4, 4))
    assert np.abs(singular_values(matrix).values - reference_values(matrix)).max() <= FLOAT64_VALUES * 10


def test_all_values_equal() -> None:
    """An orthogonal matrix has no spread that any arithmetic could measure: its values are equal to rounding."""
    found = singular_values(3 * orthonormal(64, 64, 0))
    assert found.path == "svd-float64"
    assert np.abs(found.values - 3).max() <= 3 * FLOAT64_VALUES


@pytest.mark.parametrize("power", [-66, -3, 1, 66])
@pytest.mark.parametrize("matrix", [gaussian((60, 80)).float(), spiked((60, 80), 1e3).float()], ids=["fast", "redone"])
def test_powers_of_two_scale_exactly(power: int, matrix: torch.Tensor) -> None:
    """2**k times a matrix has exactly 2**k times its values: squares of 1e-20 and 1e20 neither vanish nor overflow."""
    expected = singular_values(matrix)
    found = singular_values(matrix * 2.0**power)
    assert found.path == expected.path
    assert np.array_equal(found.values, expected.values * 2.0**power)


@pytest.mark.parametrize(
    ("dtype", "size"),
    [
        (torch.float32, 1e-20),
        (torch.float32, 1e20),
        (torch.float32, 1e-38),
        (torch.float32, 1e38),
        (torch.bfloat16, 1e-38),
        (torch.float16, 2e4),
        (torch.float16, 2e-6),
        (torch.float64, 1e-290),
        (torch.float64, 1e290),
    ],
)
def test_extreme_sizes(dtype: torch.dtype, size: float) -> None:
    """Entries near the ends of each dtype, subnormals included, keep the contract."""
    matrix = (gaussian((50, 120)).clamp(-3, 3) * size).to(dtype)
    assert_score(singular_values(matrix).values, matrix, CONTRACT)


def test_float16_from_largest_to_subnormal() -> None:
    """65504 beside the smallest float16 numbers: small entries are not rounded away by the scaling."""
    matrix = (gaussian((60, 90)) * 1e-6).to(torch.float16)
    matrix[0, 0] = 65504
    assert_score(singular_values(matrix).values, matrix, CONTRACT)


def test_later_slices_may_be_larger() -> None:
    """A slice that outgrows the scale of the ones before rescales them: order of rows does not change the score."""
    sizes = torch.logspace(-25, 0, 6000, dtype=torch.float64)[:, None]
    rising = gaussian((6000, 16)) * sizes
    deficient = rising[:, :8] @ gaussian((8, 16), 1)  # takes the triangle's way
    for matrix in (rising, rising.flip(0), (rising * 1e30).float(), deficient):
        assert_score(singular_values(matrix).values, matrix, CONTRACT)


def test_rows_are_read_in_order_and_never_whole() -> None:
    """A tall matrix is read in bounded slices, and from the start again when it is redone."""
    matrix = spiked((9000, 24), 1e4).float()
    calls: list[tuple[int, int]] = []

    def read(start: int, stop: int) -> torch.Tensor:
        calls.append((start, stop))
        return matrix[start:stop]

    found = singular_values_of_rows(read, (9000, 24))
    assert found.path == "gram-float64"
    assert np.array_equal(found.values, singular_values(matrix).values)
    assert max(stop - start for start, stop in calls) <= gram.LONGEST_SLICE
    assert calls == 2 * calls[: len(calls) // 2]
    assert calls[len(calls) // 2 - 1][1] == 9000


def test_wide_rows_are_read_at_once() -> None:
    """A wide matrix given by rows scores like the matrix itself."""
    matrix = gaussian((24, 90)).float()
    found = singular_values_of_rows(lambda start, stop: matrix[start:stop], (24, 90))
    assert np.array_equal(found.values, singular_values(matrix).values)


def test_tiles_of_the_lower_triangle(monkeypatch: pytest.MonkeyPatch) -> None:
    """Products tile by tile, slice by slice, with ragged ends, give the spectrum of the whole product."""
    matrix = gaussian((333, 100)).float()
    expected = singular_values(matrix).values
    monkeypatch.setattr(gram, "BLOCK", 32)
    monkeypatch.setattr(gram, "LONGEST_SLICE", 70)
    for precision in ("float32", "float64"):
        found = singular_values(matrix, precision=precision).values  # type: ignore[arg-type]
        assert np.abs(found - expected).max() <= FLOAT32_VALUES * expected[0]
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: False)  # then oneDNN is not used
    assert np.abs(singular_values(matrix).values - expected).max() <= FLOAT32_VALUES * expected[0]


@pytest.mark.parametrize("q", [200, 4000])
def test_bfloat16_ties_do_not_bias_the_sums(q: int) -> None:
    """A steep spectrum in bfloat16 was 2e-4 off while the diagonal was summed in float32."""
    matrix = planted(np.exp(-6 * np.arange(1, 151) / 150), q).to(torch.bfloat16)
    found = singular_values(matrix, precision="float32")
    assert_score(found.values, matrix, ORDINARY)


def test_precision_is_obeyed() -> None:
    """float32 never redoes, float64 never starts with the fast path."""
    matrix = spiked((64, 64), 1e4).float()
    assert singular_values(matrix, precision="float32").path == "gram"
    assert singular_values(matrix, precision="float32").error > CONTRACT
    ordinary = singular_values(gaussian((64, 200)), precision="float64")
    assert ordinary.path == "gram-float64"
    assert np.abs(ordinary.values - reference_values(gaussian((64, 200)))).max() <= FLOAT64_VALUES * ordinary.values[0]


def test_batches_have_the_bytes_of_one_thread() -> None:
    """On the CPU a batch is its matrices one by one under one thread, whatever their paths; settings are restored."""
    matrices = [gaussian((40, 60), seed).float() for seed in range(3)] + [spiked((40, 60), 1e4).float()]
    alone = [singular_values(matrix) for matrix in matrices]
    torch.set_num_threads(2)
    before = torch.backends.cuda.matmul.fp32_precision
    found = batch_singular_values(matrices)
    assert (torch.get_num_threads(), torch.backends.cuda.matmul.fp32_precision) == (2, before)
    assert [spectrum.path for spectrum in found] == ["gram", "gram", "gram", "gram-float64"]
    assert all(np.array_equal(ours.values, single.values) for ours, single in zip(found, alone, strict=True))
    assert batch_singular_values([]) == []


def test_one_bad_matrix_fails_its_batch() -> None:
    """An entry that is not finite is an error of the whole batch, and the number of threads is still restored."""
    torch.set_num_threads(2)
    with pytest.raises(ValueError, match="not finite"):
        batch_singular_values([torch.ones(4, 5), torch.full((4, 5), math.nan)])
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize("shape", [(40, 60), (60, 40)])
def test_stacked_arithmetic_of_gpus(shape: tuple[int, int]) -> None:
    """The batched product and solver, run here on the CPU: scales, zeros and redone matrices each keep their own."""
    sizes = (1.0, 1e-20, 1e20, 0.0)
    matrices = [(gaussian(shape, seed) * size).float() for seed, size in enumerate(sizes)]
    matrices.append(spiked(shape, 1e4).float())
    found = solver._stacked(matrices, "auto", "cpu")
    assert [spectrum.path for spectrum in found] == ["gram"] * 4 + ["gram-float64"]
    for spectrum, matrix in zip(found[:3] + found[4:], matrices[:3] + matrices[4:], strict=True):
        assert_score(spectrum.values, matrix, CONTRACT)
    assert not found[3].values.any()


def test_stacks_are_halved_when_memory_runs_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Too large a stack is halved down to single matrices; one that still does not fit goes to the CPU."""
    sizes: list[int] = []

    def refuse(talls: list[torch.Tensor], _device: str) -> None:
        sizes.append(len(talls))
        raise torch.OutOfMemoryError("no memory")

    matrices = [gaussian((20, 30), seed) for seed in range(3)]
    expected = [singular_values(matrix) for matrix in matrices]
    monkeypatch.setattr(solver, "gram_matrices", refuse)
    found = solver._halved_until_it_fits(matrices, "auto", "cuda")
    assert sizes == [3, 1, 2, 1, 1]
    assert all(np.array_equal(a.values, b.values) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", [0, 5999])
def test_entries_that_are_not_finite_are_refused(bad: float, place: int) -> None:
    """NaN and infinity are found in the first and in the last slice."""
    matrix = gaussian((6000, 8)).to(torch.bfloat16)
    matrix[place, 3] = bad
    with pytest.raises(ValueError, match="not finite"):
        singular_values(matrix)
    with pytest.raises(ValueError, match="not finite"):
        solver._stacked([matrix[:100], matrix[-100:]], "auto", "cpu")


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (torch.zeros(3), "Expected a matrix, got a tensor of 1 dimensions."),
        (torch.zeros(3, 0), "A matrix of shape (3, 0) holds no singular values."),
        (torch.zeros(3, 4, dtype=torch.int8), "Cannot decompose a matrix of torch.int8."),
    ],
)
def test_what_is_no_matrix_is_refused(matrix: torch.Tensor, message: str) -> None:
    """A vector, an empty matrix and integers are refused in a whole sentence."""
    with pytest.raises(ValueError, match="matrix") as caught:
        singular_values(matrix)
    assert str(caught.value) == message


def test_parameters_that_train_are_left_alone() -> None:
    """A parameter that requires gradients is read without a graph."""
    parameter = torch.nn.Parameter(gaussian((20, 30)).float())
    assert np.array_equal(singular_values(parameter).values, singular_values(parameter.detach()).values)


def test_products_are_exact_whatever_the_program_allows() -> None:
    """TF32 or bfloat16 shortcuts allowed elsewhere are suspended, and restored afterwards, also after an error."""
    previous = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        with pytest.raises(RuntimeError, match="inside"), gram.exact_products():  # noqa: PT012
            assert torch.backends.cuda.matmul.fp32_precision == "ieee"
            raise RuntimeError("inside")
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(previous)


def test_same_input_same_bytes() -> None:
    """Two runs agree to the last bit."""
    matrix = gaussian((700, 1100)).to(torch.bfloat16)
    assert singular_values(matrix).values.tobytes() == singular_values(matrix.clone()).values.tobytes()


def test_a_value_at_the_threshold_is_redone() -> None:
    """Moved within its error of the threshold, a value makes the estimate count it whole; just outside, it does not."""
    values = np.sqrt(np.linspace(9.0, 0.01, 400))
    shape = (400, 800)
    clear = score_error(values**2, shape[1], FLOAT32)
    threshold, _ = threshold_and_snr(values, shape)
    nearest = int(np.abs(values - threshold).argmin())
    moved = values.copy()
    moved[nearest] = threshold
    near = score_error(np.sort(moved**2)[::-1], shape[1], FLOAT32)
    assert clear <= CONTRACT < near


def with_a_value_at_the_threshold(distance: float) -> torch.Tensor:
    """A matrix of evenly spaced values but for one, `distance` above the threshold relative to it."""
    values = np.linspace(3.0, 0.01, 200)
    threshold, _ = threshold_and_snr(values, (200, 300))
    values[np.abs(values - threshold).argmin()] = threshold * (1 + distance)
    return planted(values, 300)


@pytest.mark.parametrize("side", [1, -1])
@pytest.mark.parametrize(
    ("distance", "path"), [(1e-4, "gram"), (1e-6, "gram-float64-eigenvalues"), (1e-8, "gram-float64")]
)
def test_a_value_near_the_threshold_gets_a_closer_look(side: int, distance: float, path: str) -> None:
    """Float64 eigenvalues of the same Gram matrix; nearer still, a float64 Gram matrix; in batches too."""
    matrix = with_a_value_at_the_threshold(side * distance)
    found = singular_values(matrix)
    assert found.path == path
    assert_score(found.values, matrix, ORDINARY)
    assert singular_values(matrix, precision="float32").path == "gram"
    for batched in (batch_singular_values([matrix, matrix])[1], solver._stacked([matrix, matrix], "auto", "cpu")[1]):
        assert batched.path == path
        assert_score(batched.values, matrix, ORDINARY)


def test_no_second_look_where_the_gram_matrix_is_at_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    """A value 300 times the bulk drowns it in the rounding of the Gram matrix: its eigenvalues are not taken again."""
    dtypes: list[torch.dtype] = []
    solve = torch.linalg.eigvalsh

    def record(gram: torch.Tensor) -> torch.Tensor:
        dtypes.append(gram.dtype)
        return solve(gram)

    monkeypatch.setattr(torch.linalg, "eigvalsh", record)
    assert singular_values(spiked((64, 64), 300.0).float()).path == "gram-float64"
    assert dtypes == [torch.float32, torch.float64]


def test_doubt_is_wider_at_the_edges_of_a_spectrum() -> None:
    """A smallest value as far from the threshold as is enough for one in the middle is not decided by float32."""
    middle = np.linspace(3.0, 0.01, 400)
    middle_threshold, _ = threshold_and_snr(middle, (400, 400))
    middle[np.abs(middle - middle_threshold).argmin()] = middle_threshold * (1 + 1e-5)
    edge = np.linspace(2.0, 1.0, 400)  # twice as long as wide would be signal altogether
    edge_threshold, _ = threshold_and_snr(edge, (400, 400))
    edge += edge_threshold * (1 + 1e-5) - edge[-1]  # the threshold does not move
    assert score_error(middle**2, 400, FLOAT32) <= CONTRACT
    assert score_error(edge**2, 400, FLOAT32) == math.inf


def fail_to_converge(*_: object) -> torch.Tensor:
    raise torch.linalg.LinAlgError("linalg.eigh: The algorithm failed to converge\n(error code: 3).")


@pytest.mark.parametrize("precision", ["auto", "float32", "float64"])
def test_a_solver_that_does_not_converge_gives_way_to_the_svd(
    monkeypatch: pytest.MonkeyPatch, precision: solver.Precision
) -> None:
    """Whatever the precision asked for; alone, side by side and stacked."""
    matrix = gaussian((40, 60)).float()
    monkeypatch.setattr(torch.linalg, "eigvalsh", fail_to_converge)
    found = [singular_values(matrix, precision=precision), *batch_singular_values([matrix], precision=precision)]
    found += solver._halved_until_it_fits([matrix, matrix], precision, "cpu")
    assert [spectrum.path for spectrum in found] == ["svd-float64"] * 4
    for spectrum in found:
        assert_score(spectrum.values, matrix, ORDINARY)


def spoil(solve: Callable[[torch.Tensor], torch.Tensor], dtype: torch.dtype) -> Callable[[torch.Tensor], torch.Tensor]:
    """The solver, but the last value of each first matrix of `dtype` is NaN, as MKL returns for some sparse ones."""

    def spoiled(matrix: torch.Tensor) -> torch.Tensor:
        values = solve(matrix)
        if matrix.dtype == dtype:
            values.view(-1, values.shape[-1])[0, -1] = math.nan
        return values

    return spoiled


@pytest.mark.parametrize(
    ("precision", "paths"),
    [("auto", ["gram-float64"] * 4 + ["gram"]), ("float32", ["svd-float64"] * 4 + ["gram"])],
)
def test_nan_from_the_solver_is_not_a_result(
    monkeypatch: pytest.MonkeyPatch, precision: solver.Precision, paths: list[str]
) -> None:
    """The next path is taken alone, by rows, side by side and in a stack, where the other matrices are kept."""
    matrix = gaussian((60, 40)).float()
    monkeypatch.setattr(torch.linalg, "eigvalsh", spoil(torch.linalg.eigvalsh, torch.float32))
    found = [
        singular_values(matrix, precision=precision),
        singular_values_of_rows(lambda start, stop: matrix[start:stop], (60, 40), precision=precision),
        *batch_singular_values([matrix], precision=precision),
        *solver._halved_until_it_fits([matrix, matrix], precision, "cpu"),
    ]
    assert [spectrum.path for spectrum in found] == paths
    for spectrum in found:
        assert_score(spectrum.values, matrix, ORDINARY)


def test_nan_in_float64_ends_in_the_svd(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also in the second look, and if float64 was asked for."""
    monkeypatch.setattr(torch.linalg, "eigvalsh", spoil(torch.linalg.eigvalsh, torch.float64))
    for matrix, precision in ((with_a_value_at_the_threshold(1e-6), "auto"), (gaussian((40, 60)), "float64")):
        found = singular_values(matrix, precision=precision)
        assert found.path == "svd-float64"
        assert_score(found.values, matrix, ORDINARY)


def test_nan_from_every_solver_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Never a spectrum, since NaN compares false with everything and would score 0."""
    monkeypatch.setattr(torch.linalg, "eigvalsh", lambda matrix: torch.full(matrix.shape[:-1], math.nan))
    monkeypatch.setattr(torch.linalg, "svdvals", lambda matrix: torch.full(matrix.shape[:1], math.inf))
    with pytest.raises(
        DecompositionError, match=r"No solver converged .*: The solver returned values that are not fin"
    ):
        singular_values(gaussian((40, 60)))


@pytest.mark.parametrize("family", ["few rows", "pruned rows", "pruned columns", "sparse +-1", "one-hot", "zeros"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("shape", [(32, 32), (64, 256), (128, 256)])
def test_mostly_zero_matrices(family: str, dtype: torch.dtype, shape: tuple[int, int]) -> None:
    """MKL's float32 eigenvalues are NaN for up to a tenth of these. Alone and stacked."""
    matrices = [make(family, shape, dtype, index) for index in range(5)]
    for alone in matrices:
        assert_score(singular_values(alone).values, alone, ORDINARY)
    for stacked, matrix in zip(solver._halved_until_it_fits(matrices, "auto", "cpu"), matrices, strict=True):
        assert_score(stacked.values, matrix, ORDINARY)


def test_only_the_second_look_fails_to_converge(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then the matrix is redone; what float32 found is not passed off as accurate."""
    matrix = with_a_value_at_the_threshold(1e-6)
    solve = torch.linalg.eigvalsh
    in_turn = iter([solve, fail_to_converge, solve])

    def solve_in_turn(gram: torch.Tensor) -> torch.Tensor:
        return next(in_turn)(gram)

    monkeypatch.setattr(torch.linalg, "eigvalsh", solve_in_turn)
    found = singular_values(matrix)
    assert found.path == "gram-float64"
    assert_score(found.values, matrix, ORDINARY)


def test_no_solver_converges(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of one line that says which matrix."""
    monkeypatch.setattr(torch.linalg, "eigvalsh", fail_to_converge)
    monkeypatch.setattr(torch.linalg, "svdvals", fail_to_converge)
    with pytest.raises(DecompositionError) as caught:
        singular_values(gaussian((40, 60)))
    assert str(caught.value) == (
        "No solver converged for a matrix with sides 60 and 40: "
        "linalg.eigh: The algorithm failed to converge (error code: 3)."
    )


def test_too_little_memory_is_a_clear_error() -> None:
    """Torch's own complaint, of no type of its own, becomes one; other errors stay what they are."""
    with pytest.raises(DecompositionError, match="not enough free memory for a matrix with sides 90 and 24: .*alloc"):
        singular_values_of_rows(lambda _start, _stop: torch.empty(2**48), (90, 24))
    with pytest.raises(RuntimeError, match="shape"):
        singular_values_of_rows(lambda _start, _stop: torch.zeros(6).reshape(4, 4), (90, 24))
