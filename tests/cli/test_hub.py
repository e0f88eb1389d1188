"""`spectrum scan` of models on the Hub, as its user runs it."""

import json
import signal
import subprocess
import sys
import time

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
    assert err.startswith("spectrum: There is no folder 'acme/none', and on the Hub 'acme/none' cannot be had: ")
    for words in (["acme--x/y"], ["acme/y..z", "--fetch", "stream"], ["\u00fc/y", "--fetch", "download"]):
        code, _, err = run("scan", "--model", *words)
        assert (code, len(err.splitlines())) == (1, 1)
        assert f"There is no folder '{words[0]}', and it is not a model's name on the Hub: " in err
    for revision in ("", "a\nb"):
        err = run("scan", "--model", REPO, "--revision", revision)[2]
        assert err == f"spectrum: {revision!r} is not a revision. Give a branch, a tag or a commit.\n"
    assert run("scan", "--model", "a b c")[2] == (
        "spectrum: There is no folder 'a b c', nor a file of that name. Give a folder with a checkpoint, one "
        ".safetensors or .bin file, or 'owner/name' of a model on the Hub.\n"
    )
    assert run("scan", "--demo", "--fetch", "stream")[0] == 2
    code, _, err = run("scan", "--model", REPO, "--demo")
    assert (code, err.split(".")[0]) == (2, "spectrum: Invalid value for MODEL: give one MODEL, or --demo")


@pytest.mark.parametrize(
    ("path", "effects"),
    [
        ("*config.json", {"hang": True}),
        ("*safetensors", {"hang": True, "server": "cdn"}),
        ("*safetensors", {"status": 429, "retry_after": 600, "server": "cdn"}),
    ],
)
def test_ctrl_c_ends_a_scan_whatever_the_hub_does(hub, commit, tmp_path, path, effects):
    """While config or headers do not come, and in a wait: exit code 130 and the line, long before a timeout."""
    hub.fault(path, **effects)
    process = subprocess.Popen(
        [sys.executable, "-m", "spectrum", "scan", "--model", REPO],
        env=hub.environment(tmp_path / "hf-home"),
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509
    )
    wanted = path.strip("*")
    while not any(wanted in request.path for request in hub.requests if "api" not in request.path):
        time.sleep(0.01)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    start = time.monotonic()
    _, err = process.communicate(timeout=60)
    assert time.monotonic() - start < 10
    assert process.returncode == 130
    assert [line for line in err.splitlines() if not line.startswith("note: ")] == [
        "spectrum: interrupted. A scan carries on where it stopped when the same command is run again."
    ]


@pytest.mark.parametrize("token", ["", "hf_secret\n", "hf_se cret", "hf_secret\u00fc"])
def test_a_token_that_no_header_can_hold_is_not_printed(hub, commit, run, token):
    """The HTTP client would quote the header; it is refused before, in one line."""
    code, out, err = run("scan", "--model", REPO, "--token", token)
    assert (code, out, len(err.splitlines())) == (1, "", 1)
    assert err.startswith("spectrum: The token is empty, or contains blanks or other characters")
    assert "hf_se" not in err
    assert hub.requests == []


@pytest.mark.parametrize("path", ["/api/models/acme/tiny", "*/tree/*"])
def test_who_answers_in_place_of_the_hub_is_named(hub, commit, run, path):
    """A network that wants a login answers everything with a page of its own."""
    hub.fault(path, status=200)
    code, out, err = run("scan", "--model", REPO)
    assert (code, out, len(err.splitlines())) == (1, "", 1)
    assert err.startswith(f"spectrum: '{hub.endpoint}' does not answer as the Hub does when asked for 'acme/tiny'.")


def test_a_large_streamed_scan_keeps_disk_and_memory_small(hub, tmp_path):
    """Of 100 MB not one file above 1 MB is written, nor does memory grow by 40 MB over that for a third of it."""
    block = torch.from_numpy(np.random.default_rng(0).standard_normal((32768, 256))).to(torch.bfloat16)
    peaks = []
    for layers in (2, 6):
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
    assert sum(request.sent for request in hub.requests) > 130e6
    assert peaks[1] - peaks[0] < 40e6
