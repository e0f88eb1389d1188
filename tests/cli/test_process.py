"""The program as a process: what it imports, its exit codes, pipes, interruption, a terminal."""

import json
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from conftest import tiny_llama, write_checkpoint

SPECTRUM = [sys.executable, "-m", "spectrum"]


# Runs command lines one after another, and prints the first that has imported torch or transformers.
_IMPORTS = """
import json, sys
from spectrum.cli.commands import app
for words in json.loads(sys.argv[1]):
    try: app(words, prog_name="spectrum")
    except SystemExit as left: assert not left.code, words
    if {"torch", "transformers"} & set(sys.modules):
        print(json.dumps(words), file=sys.stderr)
        break
"""


def _first_to_import_torch(*lines):
    command = [sys.executable, "-c", _IMPORTS, json.dumps(lines)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stderr.splitlines()[-1]


def test_torch_is_imported_only_to_scan(scanned, tmp_path):
    """--help and what reads files alone start without torch and transformers; only a scan needs them."""
    scan = "snr_results/tiny-llama.json"
    scanning = ["scan", "--model", str(write_checkpoint(tmp_path / "plain", {"_": tiny_llama(layers=1)}))]
    lines = [
        ["--help"], ["scan", "--help"], ["select", scan], ["select", scan, "--noise-model", "mp"],
        ["select", scan, "--score", "condition", "--trainable", "50"], ["diff", scan, scan],
        ["show", scan], ["show", scan, "--heatmap"], ["budget", scan],
        ["check", scan, "--config", "snr_results/tiny-llama.top25.yaml"], scanning,
    ]  # fmt: skip
    assert json.loads(_first_to_import_torch(*lines)) == scanning


def test_console_script():
    """The installed command."""
    script = Path(sys.executable).with_name("spectrum")
    done = subprocess.run([script, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == "0.1.0\n"


def test_broken_pipe(scanned):
    """`spectrum show | head -1` ends without a traceback."""
    command = f"{sys.executable} -m spectrum show --json snr_results/tiny-llama.json | head -1"
    done = subprocess.run(["/bin/sh", "-c", command], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("{\n", "")


def _until(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_interrupted(tmp_path, run, forks):
    """Ctrl-C during a scan: one line, exit 130, and the same command carries on where it stopped."""
    folder = write_checkpoint(tmp_path / "large", {"_": tiny_llama(layers=200)})
    process = forks.start("scan", "--model", folder)
    partial = Path("snr_results/large.partial.jsonl")
    _until(lambda: partial.exists() and partial.stat().st_size > 50_000)
    assert "Scanning 1400 matrices" in process.err.read_text()
    os.kill(process.pid, signal.SIGINT)
    ended = process.wait()
    assert (ended.returncode, ended.stdout) == (130, "")
    again = "A scan carries on where it stopped when the same command is run again."
    assert ended.stderr.splitlines()[-1] == f"spectrum: interrupted. {again}"
    left = [path for path in Path("snr_results").iterdir() if path.suffix != ".lock"]
    assert [path.name for path in left] == ["large.partial.jsonl"]
    finished = len(Path("snr_results/large.partial.jsonl").read_bytes().splitlines()) - 1
    code, _, err = run("scan", "--model", folder)
    assert (code, f"Carrying on: {finished} matrices were finished before." in err) == (0, True)
    assert not Path("snr_results/large.partial.jsonl").exists()


def test_a_locale_without_unicode(tmp_path):
    """Names that the locale cannot show are escaped."""
    folder = write_checkpoint(tmp_path / "mödel", {"_": {"model.layers.0.wörk.weight": torch.randn(48, 64)}})
    environment = os.environ | {
        "LC_ALL": "C",
        "PYTHONUTF8": "0",
        "PYTHONIOENCODING": "ascii",
        "PYTHONCOERCECLOCALE": "0",
    }
    command = [*SPECTRUM, "scan", "--model", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert (done.returncode, "Traceback" in done.stderr) == (0, False)


def test_output_that_cannot_be_written(scanned):
    """A full disk behind standard output is one line; a closed standard output takes everything."""
    command = f"{sys.executable} -m spectrum show snr_results/tiny-llama.json"
    full = subprocess.run(["/bin/sh", "-c", f"{command} > /dev/full"], capture_output=True, text=True, check=False)
    assert "Traceback" not in full.stderr
    assert full.returncode != 0
    closed = subprocess.run(["/bin/sh", "-c", f"{command} >&-"], capture_output=True, text=True, check=False)
    assert (closed.returncode, closed.stderr) == (0, "")


def test_debug_shows_the_traceback():
    """Anywhere on the command line."""
    for words in (["--debug", "scan", "--model", "nowhere"], ["scan", "--model", "nowhere", "--debug"]):
        done = subprocess.run([*SPECTRUM, *words], capture_output=True, text=True, check=False)
        assert done.returncode == 1
        assert "Traceback" in done.stderr
        assert "CheckpointError" in done.stderr


def _in_a_terminal(forks, *words):
    """What a command prints to a terminal of 100 columns."""
    leader, follower = pty.openpty()
    terminal = {"TERM": "xterm-256color", "COLUMNS": "100", "NO_COLOR": ""}
    process = forks.start(*words, env=terminal, terminal=os.ttyname(follower))
    os.close(follower)
    chunks = []
    while True:
        try:
            chunk = os.read(leader, 65536)
        except OSError:  # Linux: the other end is closed
            break
        if not chunk:
            break
        chunks.append(chunk)
    os.close(leader)
    printed = b"".join(chunks).decode()
    assert process.wait().returncode == 0, printed
    return printed


def test_heatmap_is_coloured_in_a_terminal(scanned, forks):
    """Background colours of the ramp; highest and lowest of a column differ."""
    text = _in_a_terminal(forks, "show", "snr_results/tiny-llama.json", "--heatmap")
    assert "48;5;220m" in text
    assert "48;5;17m" in text


def test_progress_bar_in_a_terminal(llama, forks):
    """The bar counts matrices while the scan runs."""
    assert "84 of 84 matrices" in _in_a_terminal(forks, "scan", "--model", llama, "--rescan")


@pytest.mark.parametrize("command", ["bench", "budget", "check", "diff", "scan", "select", "show", "import"])
def test_help_has_an_example(run, command):
    """Each command's --help ends in an example."""
    code, out, _ = run(command, "--help")
    assert (code, f"\nExample:\n  spectrum {command} " in out) == (0, True)
