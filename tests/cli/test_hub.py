"""`spectrum scan` of models on the Hub, as its user runs it."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import llama_config, tiny_llama, write_checkpoint

REPO = "acme/tiny"


@pytest.fixture
def model(tmp_path):
    return write_checkpoint(tmp_path / "source", {"_": tiny_llama(layers=4)}, config=llama_config(4))


@pytest.fixture
def commit(hub, model) -> str:
    return hub.push(REPO, model)


def test_a_streamed_scan_is_that_of_the_downloaded_model(hub, commit, run, tmp_path):
    """The same bytes of scan, spectra and selection; the commit stands in all of them."""
    results = []
    for fetch in ("stream", "download"):
        code, _, err = run("scan", "--model", REPO, "--fetch", fetch, "--out", fetch)
        assert code == 0, err
        results.append(
            {path.name: path.read_bytes() for path in (tmp_path / fetch).iterdir() if path.suffix != ".lock"}
        )
    assert results[0] == results[1]
    assert sorted(results[0]) == [
        "acme--tiny.json",
        "acme--tiny.spectra.safetensors",
        "acme--tiny.top25.yaml",
    ]
    assert json.loads(results[0]["acme--tiny.json"])["model"]["revision"] == commit
    assert f"# model: acme/tiny @ {commit}" in results[0]["acme--tiny.top25.yaml"].decode()
    code, _, err = run("scan", "--model", REPO, "--fetch", "stream", "--out", "download")
    assert err.startswith("Using the stored scan 'download/acme--tiny.json'")


def test_what_is_not_scored_is_not_fetched(hub, commit, run):
    """No byte of the embeddings, the head, the norms or of modules left out, beyond the first bytes of a file."""
    from spectrum.checkpoint import open_model

    with open_model(REPO) as checkpoint:
        tensors = checkpoint.tensors
    hub.forget()
    assert run("scan", "--model", REPO, "--modules", "mlp.*")[0] == 0
    asked = [request.range for request in hub.requests if request.server == "cdn" and "=0-" not in request.range]
    wanted = [tensor for name, tensor in tensors.items() if ".mlp." in name]
    assert sorted(asked) == sorted(f"bytes={tensor.start}-{tensor.stop - 1}" for tensor in wanted)


def test_the_plan_is_printed_and_dry_run_stops_there(hub, commit, run, tmp_path):
    """Bytes and matrices on stdout, nothing fetched but headers, no file written."""
    code, out, err = run("scan", "--model", REPO, "--dry-run")
    lines = out.splitlines()
    assert (code, err) == (0, "")
    assert lines[0] == f"'acme/tiny' @ {commit}: 28 matrices of 28 parameters"
    assert lines[1] == "to fetch, straight into memory: 245.8 kB of 267.4 kB"
    assert lines[2].startswith("computing: about ")
    assert lines[2].endswith(" s on cpu, beside the reading")
    assert not (tmp_path / "snr_results").exists()
    assert sum(request.sent for request in hub.requests) < 110_000
    code, _, err = run("scan", "--model", REPO)
    assert err.splitlines()[1:3] == [lines[1], err.splitlines()[2]]
    code, out, _ = run("scan", "--model", tmp_path / "source", "--dry-run")
    assert (code, out.splitlines()[:2]) == (
        0,
        ["'source': 28 matrices of 28 parameters", "to read: 245.8 kB of 267.4 kB"],
    )


def test_wrong_models_are_one_line(hub, run):
    """A name that is nowhere, options that contradict each other."""
    code, out, err = run("scan", "--model", "acme/none")
    assert (code, out, len(err.splitlines())) == (1, "", 1)
    assert err.startswith("spectrum: 'acme/none' cannot be had: ")
    assert run("scan", "--model", "a b c")[2] == (
        "spectrum: 'a b c' does not exist. Give a folder with a checkpoint, or one .safetensors file.\n"
    )
    code, _, err = run("scan", "--model", REPO, "--demo")
    assert (code, err.split(".")[0]) == (2, "spectrum: Invalid value for --model: give either --model MODEL or --demo")


def test_a_large_streamed_scan_keeps_disk_and_memory_small(hub, tmp_path):
    """Of 600 MB not one file above 1 MB is written, nor does memory grow by 60 MB over that for a sixth of it."""
    block = torch.from_numpy(np.random.default_rng(0).standard_normal((32768, 256))).to(torch.bfloat16)
    peaks = []
    for layers in (6, 36):
        tensors = {f"model.layers.{layer}.mlp.up_proj.weight": block.roll(layer, 0) for layer in range(layers)}
        hub.push("acme/large", write_checkpoint(tmp_path / f"large{layers}", {"_": tensors}), revision="main")
        words = ["-m", "spectrum", "scan", "--model", "acme/large", "--fetch", "stream", "--out", f"out{layers}"]
        code = (
            "import resource, runpy, sys\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20))\n"
            f"sys.argv = {['spectrum', *words[2:]]!r}\n"
            "try:\n    runpy.run_module('spectrum', run_name='__main__')\n"
            # Not ru_maxrss, which begins at what the process that started this one held.
            "finally:\n    print(next(l for l in open('/proc/self/status') if l.startswith('VmHWM')).split()[1])\n"
        )
        environment = hub.environment(tmp_path / "hf-home") | {"OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stderr
        peaks.append(int(done.stdout.split()[-1]) * 1024)
    assert sum(request.sent for request in hub.requests) > 600e6
    assert peaks[1] - peaks[0] < 60e6
