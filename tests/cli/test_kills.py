"""kill -9 at any moment: the same command carries on and ends in the bytes of an unbroken scan."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from conftest import llama_config, tiny_llama, write_checkpoint

LAYERS = 30
MATRICES = 7 * LAYERS
KILLS = 20


class Starter:
    """`scan_starter.py`, and the scan it runs now."""

    def __init__(self, folder, environment):
        program = Path(__file__).parents[1] / "scan_starter.py"
        self._process = subprocess.Popen(
            [sys.executable, str(program), str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment | {"OMP_NUM_THREADS": "1"},
        )
        assert self._line() == "ready"

    def start(self, *words):
        self._process.stdin.write(json.dumps([str(word) for word in words]) + "\n")
        self._process.stdin.flush()
        self.child = int(self._line())

    def ended(self):
        """Wait for the scan; its exit code, or minus the signal that ended it."""
        return os.waitstatus_to_exitcode(int(self._line()))

    def kill_when(self, condition):
        """Kill the scan once the condition holds, while it runs."""
        deadline = time.monotonic() + 20
        while not condition():
            assert time.monotonic() < deadline, Path("log").read_text()
            time.sleep(0.0005)
        os.kill(self.child, signal.SIGKILL)
        assert self.ended() == -signal.SIGKILL

    def close(self):
        self._process.communicate(timeout=30)

    def _line(self):
        return self._process.stdout.readline().strip()


def _finished(partial):
    """Keys of the whole lines of a partial file."""
    lines = partial.read_bytes().split(b"\n")[1:-1] if partial.exists() else []
    return [json.loads(line)["key"] for line in lines]


def _kill_and_resume(starter, words, stem):
    whole, broken = Path("whole"), Path("broken")
    starter.start(*words, "--out", whole)
    assert starter.ended() == 0, Path("log").read_text()
    Path("decomposed").unlink()
    partial = broken / f"{stem}.partial.jsonl"
    random_ = random.Random(0)
    done = 0
    for kill in range(KILLS):
        wanted = done + random_.randrange((MATRICES - done) // (KILLS + 1 - kill))
        pause = random_.uniform(0, 0.01)
        starter.start(*words, "--out", broken)

        def _reached(wanted=wanted):
            return partial.exists() and partial.read_bytes().count(b"\n") > wanted

        starter.kill_when(lambda pause=pause, reached=_reached: reached() and time.sleep(pause) is None)
        keys = _finished(partial)
        assert MATRICES > len(keys) == len(set(keys)) >= done
        done = len(keys)
    starter.start(*words, "--out", broken)
    starter.kill_when((broken / f"{stem}.spectra.safetensors").exists)
    assert not (broken / f"{stem}.json").exists()
    starter.start(*words, "--out", broken)
    assert starter.ended() == 0, Path("log").read_text()
    names = sorted(path.name for path in whole.iterdir() if path.suffix != ".lock")
    assert names == [f"{stem}.json", f"{stem}.spectra.safetensors", f"{stem}.top25.yaml"]
    assert names == sorted(path.name for path in broken.iterdir() if path.suffix != ".lock")
    assert all((whole / name).read_bytes() == (broken / name).read_bytes() for name in names)
    times = Counter(Path("decomposed").read_text().splitlines())
    assert len(times) == MATRICES
    again = sum(times.values()) - MATRICES
    assert again <= KILLS  # at most the one in flight at each kill


def test_a_local_scan_killed_at_20_moments(tmp_path):
    """Also while the scan file is being written; no matrix is decomposed twice but the one in flight."""
    folder = write_checkpoint(tmp_path / "tiny", {"_": tiny_llama(layers=LAYERS)}, config=llama_config(LAYERS))
    starter = Starter(folder, dict(os.environ))
    _kill_and_resume(starter, ["scan", "--model", folder], "tiny")
    starter.close()


def test_a_streamed_scan_killed_at_20_moments(hub, tmp_path):
    """The same over the network; nothing is left in the Hub's cache."""
    folder = write_checkpoint(tmp_path / "tiny", {"_": tiny_llama(layers=LAYERS)}, config=llama_config(LAYERS))
    hub.push("acme/tiny", folder)
    starter = Starter(folder, hub.environment(tmp_path / "hf-home"))
    _kill_and_resume(starter, ["scan", "--model", "acme/tiny"], "acme--tiny")
    starter.close()
    assert not list((tmp_path / "hf-home").rglob("*.safetensors"))


def test_a_lost_connection_is_resumed(hub, tmp_path, run, monkeypatch):
    """A Hub that fails for good halfway ends the scan in one line; the next run fetches only what is missing."""
    from spectrum.checkpoint import ranges

    monkeypatch.setattr(ranges, "FIRST_WAIT", 0.0)
    folder = write_checkpoint(tmp_path / "tiny", {"_": tiny_llama(layers=4)}, config=llama_config(4))
    hub.push("acme/tiny", folder)
    monkeypatch.setattr("spectrum.scanning.tasks.BATCH_BYTES", 1)
    hub.fault("*safetensors", server="cdn", after=12, status=503)
    code, out, err = run("scan", "--model", "acme/tiny", "--out", "broken")
    assert (code, out) == (1, "")
    assert err.splitlines()[-1].startswith("spectrum: '")
    assert err.splitlines()[-1].endswith("Run the command again later; a scan carries on where it stopped.")
    hub.heal()
    hub.forget()
    kept = len(_finished(Path("broken/acme--tiny.partial.jsonl")))
    assert 0 < kept < 28
    code, _, err = run("scan", "--model", "acme/tiny", "--out", "broken")
    assert code == 0
    assert f"Carrying on: {kept} matrices were finished before." in err
    assert len({r.range for r in hub.requests if r.server == "cdn" and r.status == 206}) == 28 - kept + 1
    run("scan", "--model", "acme/tiny", "--out", "whole")
    for path in Path("whole").glob("acme*"):
        assert path.read_bytes() == (Path("broken") / path.name).read_bytes()


def test_a_branch_that_moved_sets_the_partial_file_aside(hub, tmp_path, run, monkeypatch):
    """Spectra of an older commit are not taken over, and not thrown away."""
    folder = write_checkpoint(tmp_path / "tiny", {"_": tiny_llama(layers=2)}, config=llama_config(2))
    hub.push("acme/tiny", folder)
    monkeypatch.setattr("spectrum.checkpoint.ranges.FIRST_WAIT", 0.0)
    monkeypatch.setattr("spectrum.scanning.tasks.BATCH_BYTES", 1)
    hub.fault("*safetensors", server="cdn", after=8, status=503)
    assert run("scan", "--model", "acme/tiny")[0] == 1
    hub.heal()
    hub.push("acme/tiny", write_checkpoint(tmp_path / "2", {"_": tiny_llama(layers=2, seed=9)}, config=llama_config(2)))
    code, _, err = run("scan", "--model", "acme/tiny")
    assert code == 0
    assert "is of another scan (weights, files, method); now 'snr_results/acme--tiny.partial.jsonl.old'" in err
    assert Path("snr_results/acme--tiny.partial.jsonl.old").exists()


@pytest.mark.parametrize("ended", ["done", "killed"])
def test_two_scans_at_once(tmp_path, ended):
    """The second says who holds the lock and waits; it then uses the result, or carries on where a kill left it."""
    folder = write_checkpoint(tmp_path / "tiny", {"_": tiny_llama(layers=LAYERS)}, config=llama_config(LAYERS))
    first, second = (Starter(folder, dict(os.environ)) for _ in range(2))
    first.start("scan", "--model", folder, "--out", "out")
    partial = Path("out/tiny.partial.jsonl")
    while not _finished(partial):
        time.sleep(0.001)
    second.start("scan", "--model", folder, "--out", "out")
    while "waiting until it is done" not in Path("log").read_text():
        time.sleep(0.001)
    assert f"(process {first.child} on " in Path("log").read_text()
    if ended == "killed":
        first.kill_when(lambda: len(_finished(partial)) > 50)
    else:
        assert first.ended() == 0
    assert second.ended() == 0
    told = {"done": "Using the stored scan 'out/tiny.json'", "killed": "Carrying on: "}
    assert told[ended] in Path("log").read_text()
    first.close()
    second.close()
