"""kill -9 at any moment: the same command carries on and ends in the bytes of an unbroken scan."""

import json
import os
import random
import signal
import time
from collections import Counter
from pathlib import Path

import pytest
from conftest import llama_config, tiny_llama, write_checkpoint

LAYERS = 12
MATRICES = 7 * LAYERS


def _kill_when(process, condition):
    """Kill a scan once the condition holds, while it runs."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, process.err.read_text()
        time.sleep(0.0005)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait().returncode == -signal.SIGKILL


def _finished(partial):
    """Keys of the whole lines of a partial file."""
    lines = partial.read_bytes().split(b"\n")[1:-1] if partial.exists() else []
    return [json.loads(line)["key"] for line in lines]


def _kill_and_resume(start, stem, kills):
    whole, broken = Path("whole"), Path("broken")
    assert start("--out", whole).wait().returncode == 0
    Path("decomposed").unlink()
    partial = broken / f"{stem}.partial.jsonl"
    random_ = random.Random(0)
    done = 0
    for kill in range(kills):
        wanted = done + random_.randrange((MATRICES - done) // (kills + 1 - kill))
        pause = random_.uniform(0, 0.01)

        def _reached(wanted=wanted, pause=pause):
            return partial.exists() and partial.read_bytes().count(b"\n") > wanted and time.sleep(pause) is None

        _kill_when(start("--out", broken), _reached)
        keys = _finished(partial)
        assert MATRICES > len(keys) == len(set(keys)) >= done
        done = len(keys)
    _kill_when(start("--out", broken), (broken / f"{stem}.spectra.safetensors").exists)
    assert not (broken / f"{stem}.json").exists()
    ended = start("--out", broken).wait()
    assert ended.returncode == 0, ended.stderr
    names = sorted(path.name for path in whole.iterdir() if path.suffix != ".lock")
    assert names == [f"{stem}.json", f"{stem}.spectra.safetensors", f"{stem}.top25.yaml"]
    assert names == sorted(path.name for path in broken.iterdir() if path.suffix != ".lock")
    assert all((whole / name).read_bytes() == (broken / name).read_bytes() for name in names)
    times = Counter(Path("decomposed").read_text().splitlines())
    assert len(times) == MATRICES
    again = sum(times.values()) - MATRICES
    assert again <= kills  # at most the one in flight at each kill


@pytest.fixture
def tiny(tmp_path):
    """A Llama on disk."""
    return write_checkpoint(tmp_path / "tiny", {"_": tiny_llama(layers=LAYERS)}, config=llama_config(LAYERS))


def test_a_local_scan_killed_at_any_moment(tiny, forks):
    """Also while the scan file is being written; no matrix is decomposed twice except the one in flight."""
    _kill_and_resume(lambda *words: forks.start("scan", "--model", tiny, *words, slowed=True), "tiny", kills=8)


def test_a_streamed_scan_killed_at_any_moment(hub, tiny, forks, tmp_path):
    """The same over the network; nothing is left in the Hub's cache."""
    hub.push("acme/tiny", tiny)
    client = (hub.endpoint, tmp_path / "other-home")

    def _start(*words):
        return forks.start("scan", "--model", "acme/tiny", *words, hub=client, slowed=True)

    _kill_and_resume(_start, "acme--tiny", kills=4)
    assert not list((tmp_path / "other-home").rglob("*.safetensors"))


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
def test_two_scans_at_once(tiny, forks, ended):
    """The second says who holds the lock and waits; it then uses the result, or carries on where a kill left it."""
    words = ("scan", "--model", tiny, "--out", "out")
    first = forks.start(*words, slowed=True)
    partial = Path("out/tiny.partial.jsonl")
    while not _finished(partial):
        time.sleep(0.001)
    second = forks.start(*words, slowed=True)
    while "waiting until it is done" not in second.err.read_text():
        time.sleep(0.001)
    assert f"(process {first.pid} on " in second.err.read_text()
    if ended == "killed":
        _kill_when(first, lambda: len(_finished(partial)) > 20)
    else:
        assert first.wait().returncode == 0
    waited = second.wait()
    assert waited.returncode == 0
    said = {"done": "Using the stored scan 'out/tiny.json'", "killed": "Carrying on: "}
    assert said[ended] in waited.stderr
