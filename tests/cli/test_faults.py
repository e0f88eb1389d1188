"""Faults of the machine and the installation end in one line; bugs keep their traceback."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

import spectrum
from spectrum.cli.faults import NO_MEMORY, fault_line

ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(spectrum.__file__).parents[1]), "OMP_NUM_THREADS": "1"}


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        MemoryError("std::bad_alloc"),
        RuntimeError("can't start new thread"),
        RuntimeError("could not create a primitive"),
        RuntimeError("std::bad_alloc"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:119] DefaultCPUAllocator: can't allocate memory: 1 bytes"),
        SystemError("error return without exception set"),
        ImportError("libtorch_cpu.so: failed to map segment from shared object"),
        ImportError("libgomp.so.1: cannot allocate memory in static TLS block"),
    ],
    ids=str,
)
def test_too_little_memory(error):
    """Whatever Python, the loader, torch or oneDNN call it, also as the cause of another error."""
    assert fault_line(error) == NO_MEMORY
    outer = RuntimeError("Failed to import transformers.models.llama")
    outer.__cause__ = error
    assert fault_line(outer) == NO_MEMORY


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("expected a tensor"),
        ImportError("cannot import name 'x' from 'torch'"),
        ModuleNotFoundError("No y"),
    ],
    ids=str,
)
def test_bugs_are_not_faults(error):
    """They keep their traceback."""
    assert fault_line(error) is None


@pytest.mark.parametrize("megabytes", [400, 700])
def test_a_process_with_little_address_space(tmp_path, megabytes):
    """`ulimit -v`: torch cannot be loaded, or its threads cannot be started."""
    done = subprocess.run(
        [sys.executable, "-m", "spectrum", "scan", "--demo", "--out", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        env=ENVIRONMENT | {"PYTHONDONTWRITEBYTECODE": "1"},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (megabytes * 10**6,) * 2),
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == f"spectrum: {NO_MEMORY}"
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("words", [["scan", "--demo"], ["bench"], ["scan", "--model", "acme/none"]], ids=" ".join)
def test_without_torch(tmp_path, words):
    """As in the environment of a workflow that installs only what `check` needs."""
    blocked = "import sys; sys.modules.update(torch=None, huggingface_hub=None); from spectrum.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", blocked, *words],
        capture_output=True,
        text=True,
        check=False,
        env=ENVIRONMENT,
        cwd=tmp_path,
    )
    name = "huggingface_hub>=1.0" if "acme/none" in words else "torch>=2.10"
    assert (done.returncode, done.stdout) == (1, "")
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1] == f"spectrum: This needs {name.partition('>')[0]}: pip install '{name}'."


def test_a_loop_of_links_as_output(tmp_path, run):
    """Named in one line."""
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for words in (["scan", "--demo", "--out", tmp_path / "loop"], ["scan", "--demo", "--out", tmp_path / "loop" / "x"]):
        code, _, err = run(*words)
        assert (code, "Traceback" in err) == (1, False)
        assert "loop" in err.splitlines()[-1]
