"""The loop: order, batches, reading ahead, devices."""

import threading
import time
from functools import partial

import numpy as np
import pytest
import torch
from conftest import gaussian, write_checkpoint

from spectrum.checkpoint import open_checkpoint
from spectrum.checkpoint.disk import DiskSource
from spectrum.errors import CheckpointError, DecompositionError
from spectrum.naming import Matrix, Parameter, identity_parameters
from spectrum.scanning import decompose as scan
from spectrum.scanning import tasks as work
from spectrum.scanning.devices import choose_device
from spectrum.scanning.matrices import read_matrix
from spectrum.scanning.read_ahead import Read, ReadAhead
from spectrum.spectra import gram, solver


@pytest.fixture
def mixed(tmp_path):
    """Matrices of several shapes and dtypes, a stack, and a tall one."""
    tensors = {f"layers.{n}.a.weight": gaussian(48, 80, seed=n) for n in range(5)}
    tensors |= {f"layers.{n}.b.weight": gaussian(80, 48, seed=10 + n, dtype=torch.bfloat16) for n in range(3)}
    tensors["layers.0.experts.up"] = gaussian(3 * 40, 64, seed=20).reshape(3, 40, 64)
    tensors["layers.0.tall.weight"] = gaussian(9000, 32, seed=21)
    with open_checkpoint(write_checkpoint(tmp_path / "m", {"_": tensors})) as checkpoint:
        yield checkpoint, tensors


def _tasks(checkpoint):
    parameters, _ = identity_parameters(checkpoint.tensors)
    return work.plan_tasks(checkpoint, parameters)


def _reference(tensors, task):
    array = tensors[task.matrix.tensor].double().numpy()
    return np.linalg.svd(array[task.matrix.index] if task.matrix.index else array, compute_uv=False)


def test_bytes_to_read_are_those_that_are_read(mixed, monkeypatch):
    """What the plan announces, experts of a stack and slices included, is what decomposing asks the files for."""
    checkpoint, _ = mixed
    real, read = DiskSource.read, []
    monkeypatch.setattr(
        DiskSource, "read", lambda source, shard, at, part: read.append(len(part)) or real(source, shard, at, part)
    )
    list(scan.decompose(checkpoint, _tasks(checkpoint)))
    assert work.bytes_to_read(checkpoint, _tasks(checkpoint), device="cpu") == sum(read)


def test_every_matrix_once_dearest_first(mixed):
    """All twelve, in order of descending cost, equal shapes side by side, and the spectra of NumPy."""
    checkpoint, tensors = mixed
    tasks = _tasks(checkpoint)
    done = list(scan.decompose(checkpoint, tasks))
    assert [entry.task for entry in done] == tasks
    assert len({(t.parameter.name, t.matrix.label) for t in tasks}) == 12
    assert [t.cost for t in tasks] == sorted((t.cost for t in tasks), reverse=True)
    for entry in done:
        np.testing.assert_allclose(entry.spectrum.values, _reference(tensors, entry.task), rtol=1e-4)


def test_a_tall_matrix_is_read_in_slices(mixed, monkeypatch):
    """With small batches the tall one comes slice by slice: the same bytes, never more rows than a slice."""
    checkpoint, _ = mixed
    tasks = _tasks(checkpoint)
    whole = {e.task.parameter.name: e.spectrum.values for e in scan.decompose(checkpoint, tasks)}
    monkeypatch.setattr(work, "BATCH_BYTES", 100_000)
    reads = []
    real = checkpoint.read
    monkeypatch.setattr(checkpoint, "read", lambda name, *rows: reads.append((name, *rows)) or real(name, *rows))
    sliced = {e.task.parameter.name: e.spectrum.values for e in scan.decompose(checkpoint, tasks)}
    rows = [stop - start for name, start, stop in (r for r in reads if r[0] == "layers.0.tall.weight")]
    assert sum(rows) == 9000
    assert max(rows) == gram.slice_length(32)
    np.testing.assert_allclose(sliced["layers.0.tall.weight"], whole["layers.0.tall.weight"], rtol=1e-6)
    assert all((sliced[name] == whole[name]).all() for name in whole if "tall" not in name)


def test_a_second_pass_reads_for_itself(tmp_path, monkeypatch):
    """A tall matrix that must be redone in float64 is read again, and the matrix after it is not mixed up."""
    spike = gaussian(9000, 32, seed=1)
    spike[0] += 1e6
    tensors = {"layers.0.tall.weight": spike, "layers.1.tall.weight": gaussian(9000, 32, seed=2)}
    monkeypatch.setattr(work, "BATCH_BYTES", 100_000)
    with open_checkpoint(write_checkpoint(tmp_path / "m", {"_": tensors})) as checkpoint:
        first, second = scan.decompose(checkpoint, _tasks(checkpoint))
    assert first.spectrum.path != "gram"
    assert second.spectrum.path == "gram"
    for entry in (first, second):
        np.testing.assert_allclose(entry.spectrum.values, _reference(tensors, entry.task), rtol=1e-4)


def test_batches_do_not_change_a_spectrum(mixed, monkeypatch):
    """Alone or with its like: the same bytes, as resuming in the middle of a batch demands."""
    checkpoint, _ = mixed
    tasks = [task for task in _tasks(checkpoint) if task.matrix.shape == (48, 80)]
    together = [e.spectrum.values for e in scan.decompose(checkpoint, tasks)]
    alone = [e.spectrum.values for task in tasks for e in scan.decompose(checkpoint, [task])]
    assert all((one == other).all() for one, other in zip(together, alone, strict=True))


def test_the_bad_matrix_of_a_batch_is_named(tmp_path):
    """One NaN among equals."""
    tensors = {f"layers.{n}.a.weight": gaussian(48, 80, seed=n) for n in range(5)}
    tensors["layers.3.a.weight"][7, 9] = float("nan")
    folder = write_checkpoint(tmp_path / "m", {"_": tensors})
    message = "Tensor 'layers.3.a.weight' of 'm' cannot be scored"
    with open_checkpoint(folder) as checkpoint, pytest.raises(CheckpointError, match=message):
        list(scan.decompose(checkpoint, _tasks(checkpoint)))


def test_a_batch_that_fails_is_done_one_by_one(tmp_path, monkeypatch):
    """Together too large for the memory, alone not: the same bytes."""
    tensors = {f"layers.{n}.a.weight": gaussian(48, 80, seed=n) for n in range(3)}
    real = scan.batch_singular_values

    def refuse_several(matrices, **options):
        if len(matrices) > 1:
            raise DecompositionError("no memory")
        return real(matrices, **options)

    with open_checkpoint(write_checkpoint(tmp_path / "m", {"_": tensors})) as checkpoint:
        expected = [entry.spectrum.values for entry in scan.decompose(checkpoint, _tasks(checkpoint))]
        monkeypatch.setattr(scan, "batch_singular_values", refuse_several)
        found = [entry.spectrum.values for entry in scan.decompose(checkpoint, _tasks(checkpoint))]
    assert [values.tobytes() for values in found] == [values.tobytes() for values in expected]


@pytest.mark.parametrize("by_rows", [True, False])
def test_the_matrix_that_cannot_be_decomposed_is_named(tmp_path, monkeypatch, by_rows):
    """Among equals, and where a tall one is read slice by slice; one line, with what to do."""
    tensors = {f"layers.{n}.a.weight": gaussian(600, 32, seed=n) for n in range(3)}
    tensors["layers.1.a.weight"][:, 0] = 0.0  # by which the failing solvers tell it
    if by_rows:
        monkeypatch.setattr(work, "BATCH_BYTES", 10_000)
    for name in ("eigvalsh", "svdvals"):
        monkeypatch.setattr(torch.linalg, name, partial(_fail_for_zeros, getattr(torch.linalg, name)))
    folder = write_checkpoint(tmp_path / "m", {"_": tensors})
    with open_checkpoint(folder) as checkpoint, pytest.raises(DecompositionError) as caught:
        list(scan.decompose(checkpoint, _tasks(checkpoint)))
    assert str(caught.value) == (
        "Tensor 'layers.1.a.weight' of 'm' cannot be scored: No solver converged for a matrix with sides 600 and 32: "
        "not today. Close other programs if memory is short, or leave the module out with --exclude; what is finished "
        "is kept."
    )


def _fail_for_zeros(solve, matrix):
    if not matrix[:, 0].any():
        raise torch.linalg.LinAlgError("not today")
    return solve(matrix)


def test_pieces_views_and_indices(tmp_path):
    """A matrix put together of two tensors, a view, every second column of an expert."""
    tensors = {
        "x": gaussian(8, 12, seed=1),
        "y": gaussian(4, 12, seed=2),
        "z": gaussian(6, 20, seed=3).reshape(3, 2, 20),
    }
    x, y, z = (tensors[name] for name in "xyz")
    pieces = (Matrix("", (8, 12), "x"), Matrix("", (4, 12), "y"))
    cases = [
        (Matrix("", (12, 12), "x", pieces=pieces), torch.cat([x, y])),
        (Matrix("", (8, 24), "x", pieces=(pieces[0], pieces[0]), axis=1), torch.cat([x, x], dim=1)),
        (Matrix("", (4, 12), "x", (1,), (2, 4, 12)), x[4:]),
        (Matrix("", (2, 10), "z", (2, slice(None), slice(0, None, 2))), z[2, :, ::2]),
        (Matrix("", (1, 20), "z", (1, slice(1, None))), z[1, 1:]),
        (Matrix("", (3, 12), "x", (slice(2, 5),)), x[2:5]),
    ]
    with open_checkpoint(write_checkpoint(tmp_path / "m", {"_": tensors})) as checkpoint:
        for matrix, expected in cases:
            assert torch.equal(read_matrix(checkpoint, matrix), expected)
            assert matrix.shape == tuple(expected.shape)


def test_an_expert_of_a_flattened_stack_is_read_alone(tmp_path, monkeypatch):
    """dbrx: (experts * rows, cols) in one tensor; of 8 experts one is read, not eight times the whole."""
    flat = gaussian(8 * 40, 64, seed=1)
    with open_checkpoint(write_checkpoint(tmp_path / "m", {"_": {"x": flat}})) as checkpoint:
        real, reads = checkpoint.read, []
        monkeypatch.setattr(checkpoint, "read", lambda name, *rows: reads.append(rows) or real(name, *rows))
        values = read_matrix(checkpoint, Matrix("3", (40, 64), "x", (3,), (8, 40, 64)))
    assert torch.equal(values, flat[120:160])
    assert reads == [(120, 160)]


def test_read_ahead_keeps_order_and_bounds():
    """Results in order; the next is read while one is in use, and no more than that; large ones wait their turn."""
    started = []

    def _read(number):
        started.append(number)
        return number

    sizes = [1, 1, 11, 1, 1]
    reads = [Read(size, lambda number=number: _read(number)) for number, size in enumerate(sizes)]
    with ReadAhead(reads, largest_bytes=10) as ahead:
        for number, read in enumerate(reads):
            assert ahead.get(read) == number
            assert max(started) <= number + 1
            if number == 1:
                assert 2 not in started


def test_read_ahead_deeper():
    """With a depth of 2, two reads are done ahead and no third."""
    started = []
    reads = [Read(1, lambda number=number: started.append(number)) for number in range(5)]
    with ReadAhead(reads, depth=2) as ahead:
        ahead.get(reads[0])
        _until(lambda: started == [0, 1, 2])


def test_reads_again_and_reads_left_out():
    """What was handed out is read once more when asked for again; what is passed over is dropped."""
    calls = []
    reads = [Read(1, lambda number=number: calls.append(number) or number) for number in range(4)]
    with ReadAhead(reads) as ahead:
        assert [ahead.get(reads[number]) for number in (0, 0, 2, 3, 1)] == [0, 0, 2, 3, 1]
    assert calls.count(0) == 2


def test_an_error_is_raised_by_the_read_that_has_it():
    """An error in the thread reaches the caller, after the results before it; leaving early ends the thread."""

    def _fail():
        raise CheckpointError("gone")

    reads = [Read(1, lambda: 1), Read(1, _fail), Read(1, lambda: 3)]
    with ReadAhead(reads) as ahead:
        assert ahead.get(reads[0]) == 1
        with pytest.raises(CheckpointError, match="gone"):
            ahead.get(reads[1])
    _until(lambda: not [thread for thread in threading.enumerate() if thread.name.startswith("spectrum-read")])


def _until(condition):
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_devices(monkeypatch):
    """auto, mps, one GPU for each rank of a machine, and what is not there."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert [choose_device(name) for name in ("auto", "cpu", "mps")] == ["cpu"] * 3
    with pytest.raises(CheckpointError, match="has no device 'cuda' that torch can use \\(0 CUDA devices\\)"):
        choose_device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert [choose_device("auto", local_rank=rank) for rank in (0, 3, 5)] == ["cuda:0", "cuda:3", "cuda:1"]
    assert choose_device("cuda:2", local_rank=3) == "cuda:2"
    with pytest.raises(CheckpointError, match="has no device 'cuda:4'"):
        choose_device("cuda:4")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_gpu_agrees_with_the_cpu(mixed):
    """Numbers within 1e-6 of the CPU's, for batches, stacks and a tall matrix."""
    checkpoint, _ = mixed
    tasks = _tasks(checkpoint)
    here, there = (list(scan.decompose(checkpoint, tasks, device=device)) for device in ("cpu", "cuda"))
    for one, other in zip(here, there, strict=True):
        np.testing.assert_allclose(other.spectrum.values, one.spectrum.values, rtol=1e-5)


def test_threshold_is_the_same_in_the_error_estimate():
    """accuracy.py estimates for the threshold that snr.py computes: doubt begins right there."""
    from spectrum.spectra.accuracy import FLOAT32, score_error
    from spectrum.spectra.snr import threshold

    random = np.random.default_rng(3)
    sigma = np.sort(random.uniform(1, 9, size=101))[::-1]
    eps = threshold(sigma, (101, 300))
    beside = sigma.copy()
    beside[np.argmin(np.abs(beside - eps))] = eps * (1 + 1e-7)
    apart = sigma[np.abs(sigma - eps) > 0.01 * eps]
    assert score_error(np.square(beside), 300, FLOAT32) > 10 * score_error(np.square(sigma), 300, FLOAT32)
    assert apart.size >= 95
    assert solver.TOLERANCE == 1e-4


def test_cost_is_of_the_smaller_side():
    """A transpose costs the same; the longer side enters once, the shorter squared."""
    plain = Parameter("w", (2, 3), "F32", "matrix", ("w",))
    cost = {shape: work.Task(plain, Matrix("", shape, "w"), "F32").cost for shape in ((10, 40), (40, 10), (10, 80))}
    assert cost[10, 40] == cost[40, 10] == 100 * (40 + 8 * 10)
    assert cost[10, 80] == 100 * (80 + 8 * 10)
