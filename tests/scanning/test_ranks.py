"""Several ranks: how work is split, and jobs of several processes with gloo on this machine, one under torchrun."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import llama_config, tiny_llama, write_checkpoint

from spectrum.results import read_scan
from spectrum.scanning.ranks import ALONE, rounds
from spectrum.selection import select_top

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone"]


@pytest.fixture
def job(forks):
    """Run scans as the ranks of one job, each with its words, as torchrun would start them: how each ended."""

    def _job(*lines):
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        size = {"WORLD_SIZE": str(len(lines)), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        ranks = [
            forks.start("scan", *words, env=size | {"RANK": str(rank), "LOCAL_RANK": str(rank)})
            for rank, words in enumerate(lines)
        ]
        return [rank.wait() for rank in ranks]

    return _job


@pytest.mark.parametrize("size", [1, 2, 3, 8])
def test_rounds_share_everything_once(size):
    """Each piece once, in order within a rank; no rank waits in a round for more than the dearest piece of it."""
    costs = sorted([100.0] * 7 + [30.0] * 10 + [1.0] * 200, reverse=True)
    schedule = rounds(costs, size, smallest=50)
    assert sorted(index for each in schedule for share in each for index in share) == list(range(len(costs)))
    for each in schedule[:-1]:
        loads = [sum(costs[index] for index in share) for share in each]
        assert max(loads) - min(loads) <= max(costs[index] for share in each for index in share)
        assert sum(loads) >= size * 50
    flat = [index for each in schedule for index in each[0]]
    assert flat == sorted(flat)


def test_one_rank_meets_nobody():
    """Every piece is a round of its own, so that each is stored before the next begins."""
    assert rounds([3.0, 2.0, 1.0], 1, smallest=0) == [[[0]], [[1]], [[2]]]
    assert ALONE.gather("x") == ["x"]
    assert rounds([], 4, smallest=1) == []
    assert [sum(map(len, each)) for each in rounds([1.0] * 10, 2, smallest=99, most=2)] == [4, 4, 2]


@pytest.mark.parametrize("ranks", [2, 3])
def test_ranks_agree_with_a_single_process(llama, run, job, ranks):
    """The same selection, numbers within 1e-6, the same bytes twice for one number of ranks; rank 0 alone prints."""
    run("scan", "--model", llama, "--out", "one")
    for out in ("many", "again"):
        first, *others = job(*[["--model", llama, "--out", out]] * ranks)
        assert [first.returncode, *(other.returncode for other in others)] == [0] * ranks, first.stderr
        assert "trainable" in first.stdout
        assert f"on {ranks} ranks." in first.stderr
        assert {(other.stdout, other.stderr) for other in others} == {("", "")}
    assert Path("many/tiny-llama.json").read_bytes() == Path("again/tiny-llama.json").read_bytes()
    assert Path("many/tiny-llama.top25.yaml").read_text() == Path("one/tiny-llama.top25.yaml").read_text()
    one, many = read_scan(Path("one/tiny-llama.json")), read_scan(Path("many/tiny-llama.json"))
    assert [item.snr for item in many.parameters] == pytest.approx([item.snr for item in one.parameters], rel=1e-6)
    assert select_top(one, 50).names == select_top(many, 50).names


def test_ranks_reuse_a_stored_scan(llama, run, job):
    """Rank 0 finds it; nobody decomposes."""
    run("scan", "--model", llama)
    first, second = job(*[["--model", llama]] * 2)
    assert (first.returncode, second.returncode) == (0, 0), first.stderr
    assert first.stderr.count("Using the stored scan") == 1
    assert second.stderr == ""


def test_ranks_with_different_weights_are_refused(llama, tmp_path, job):
    """Each rank reads a copy of its own; copies that differ must not be mixed into one scan."""
    other = write_checkpoint(tmp_path / "other" / "tiny-llama", {"_": tiny_llama(seed=9)}, config=llama_config(12))
    ended = job(["--model", llama], ["--model", other])
    assert 0 not in [rank.returncode for rank in ended]
    assert "the options of rank 1 differ from those of rank 0" in ended[0].stderr
    assert not Path("snr_results/tiny-llama.json").exists()


def _children(process):
    """Process ids of the ranks that a torchrun started."""
    return [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


def test_a_killed_rank_ends_the_job_and_the_next_run_carries_on(tmp_path, run, job):
    """Under torchrun, kill -9 of one rank: the others say that it has ended; the next run resumes to the same scan."""
    folder = write_checkpoint(tmp_path / "large", {"_": tiny_llama(layers=100)})
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [*TORCHRUN, "--nproc-per-node=2", "-m", "spectrum", "scan", "--model", str(folder)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
    partial = Path("snr_results/large.partial.jsonl")
    deadline = time.monotonic() + 90
    while not partial.exists() or partial.stat().st_size < 5_000:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.002)
    os.kill(max(_children(process)), signal.SIGKILL)
    _, err = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "stops: another rank has ended" in err
    assert "Run the same command again; it carries on where it stopped." in err
    assert 'Traceback (most recent call last):\n  File "' not in err.split("torch/distributed")[0]
    resumed, _ = job(*[["--model", folder]] * 2)
    assert resumed.returncode == 0, resumed.stderr
    assert "Carrying on: " in resumed.stderr
    run("scan", "--model", folder, "--out", "one")
    one, many = read_scan(Path("one/large.json")), read_scan(Path("snr_results/large.json"))
    assert [item.snr for item in many.parameters] == pytest.approx([item.snr for item in one.parameters], rel=1e-6)


def test_an_error_on_one_rank_is_told_once(tmp_path, job):
    """A NaN in one matrix: the rank that meets it names it, and the others end as well."""
    tensors = tiny_llama()
    tensors["model.layers.3.mlp.down_proj.weight"][5, 7] = float("nan")
    folder = write_checkpoint(tmp_path / "bad", {"_": tensors}, config=llama_config(12))
    ended = job(*[["--model", folder]] * 2)
    assert 0 not in [rank.returncode for rank in ended]
    errors = "".join(rank.stderr for rank in ended)
    assert errors.count("Tensor 'model.layers.3.mlp.down_proj.weight' of 'bad' cannot be scored") == 1
    assert errors.count("stops: another rank has ended") == 1


def test_a_rank_that_is_alone_says_so(tmp_path):
    """A rank that cannot reach the first one ends with one clear line once the time for joining is over."""
    code = (
        "import datetime, sys, spectrum.scanning.ranks as d\n"
        "d.JOINING = datetime.timedelta(seconds=1)\n"
        "from spectrum.cli import main\n"
        f"sys.argv = ['spectrum', 'scan', '--demo', '--out', {str(tmp_path)!r}]\n"
        "main()\n"
    )
    lost = {"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "9"}
    ended = subprocess.run(
        [sys.executable, "-c", code], check=False, env=os.environ | lost, capture_output=True, text=True, timeout=120
    )
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1].startswith("spectrum: The ranks of this job cannot be joined (")
    assert "Traceback" not in ended.stderr
