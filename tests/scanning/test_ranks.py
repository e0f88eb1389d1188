"""Several ranks: how work is split, and real torchrun jobs with gloo on this machine."""

import os
import signal
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


def _torchrun(ranks, *words):
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [*TORCHRUN, f"--nproc-per-node={ranks}", "-m", "spectrum", "scan", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=120)


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
def test_ranks_agree_with_a_single_process(llama, run, ranks):
    """The same selection, numbers within 1e-6, the same bytes twice for one number of ranks; rank 0 alone prints."""
    run("scan", "--model", llama, "--out", "one")
    for out in ("many", "again") if ranks == 2 else ("many",):
        done = _torchrun(ranks, "--model", llama, "--out", out)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("trainable:") == 1
        assert done.stderr.count(f"on {ranks} ranks.") == 1
    if ranks == 2:
        assert Path("many/tiny-llama.json").read_bytes() == Path("again/tiny-llama.json").read_bytes()
    assert Path("many/tiny-llama.top25.yaml").read_text() == Path("one/tiny-llama.top25.yaml").read_text()
    one, many = read_scan(Path("one/tiny-llama.json")), read_scan(Path("many/tiny-llama.json"))
    assert [item.snr for item in many.parameters] == pytest.approx([item.snr for item in one.parameters], rel=1e-6)
    assert select_top(one, 50).names == select_top(many, 50).names


def test_ranks_reuse_a_stored_scan(llama, run):
    """Rank 0 finds it; nobody decomposes."""
    run("scan", "--model", llama)
    done = _torchrun(2, "--model", llama)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("Using the stored scan") == 1


def test_ranks_with_different_weights_are_refused(llama, tmp_path):
    """Each rank reads a copy of its own; copies that differ must not be mixed into one scan."""
    other = write_checkpoint(tmp_path / "other" / "tiny-llama", {"_": tiny_llama(seed=9)}, config=llama_config(12))
    script = tmp_path / "own_copy.py"
    script.write_text(
        "import os, sys; from spectrum.cli import main\n"
        f"folder = {str(llama)!r} if os.environ['RANK'] == '0' else {str(other)!r}\n"
        "sys.argv = ['spectrum', 'scan', '--model', folder]; main()\n"
    )
    done = subprocess.run(
        [*TORCHRUN, "--nproc-per-node=2", str(script)], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode != 0
    assert "the options of rank 1 differ from those of rank 0" in done.stderr
    assert not Path("snr_results/tiny-llama.json").exists()


def _children(process):
    """Process ids of the ranks that a torchrun started."""
    return [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


def test_a_killed_rank_ends_the_job_and_the_next_run_carries_on(tmp_path, run):
    """kill -9 of one rank: every other says that a rank has ended; the next run resumes and ends in the same scan."""
    folder = write_checkpoint(tmp_path / "large", {"_": tiny_llama(layers=400)}, config=llama_config(400))
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [*TORCHRUN, "--nproc-per-node=2", "-m", "spectrum", "scan", "--model", str(folder)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
    partial = Path("snr_results/large.partial.jsonl")
    deadline = time.monotonic() + 90
    while not partial.exists() or partial.stat().st_size < 5_000:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(max(_children(process)), signal.SIGKILL)
    _, err = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "stops: another rank has ended" in err
    assert "Run the same command again; it carries on where it stopped." in err
    assert 'Traceback (most recent call last):\n  File "' not in err.split("torch/distributed")[0]
    resumed = _torchrun(2, "--model", folder)
    assert resumed.returncode == 0, resumed.stderr
    assert "Carrying on: " in resumed.stderr
    run("scan", "--model", folder, "--out", "one")
    one, many = read_scan(Path("one/large.json")), read_scan(Path("snr_results/large.json"))
    assert [item.snr for item in many.parameters] == pytest.approx([item.snr for item in one.parameters], rel=1e-6)


def test_an_error_on_one_rank_is_told_once(tmp_path):
    """A NaN in one matrix: the rank that meets it names it, and the job fails."""
    tensors = tiny_llama()
    tensors["model.layers.3.mlp.down_proj.weight"][5, 7] = float("nan")
    folder = write_checkpoint(tmp_path / "bad", {"_": tensors}, config=llama_config(12))
    done = _torchrun(2, "--model", folder)
    assert done.returncode != 0
    assert done.stderr.count("Tensor 'model.layers.3.mlp.down_proj.weight' of 'bad' cannot be scored") == 1


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
