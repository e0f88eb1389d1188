"""Real processes of the program, each forked from one that has imported everything.

A new interpreter needs five seconds for torch and transformers, a fork some milliseconds. Run as a program, this file
is the process that is forked: it reads one request a line from standard input, as JSON, and answers with a number.
"""

import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest


@dataclass(frozen=True)
class Ended:
    """A process that is over, as subprocess.CompletedProcess has it."""

    returncode: int
    stdout: str
    stderr: str


@dataclass(frozen=True)
class Running:
    """A command line in a process of its own, from `Forks.start`; `out` and `err` are the files that it prints to."""

    forks: "Forks"
    pid: int
    out: Path
    err: Path

    def wait(self) -> Ended:
        """Wait for its end."""
        status = self.forks.ask({"wait": self.pid})
        return Ended(os.waitstatus_to_exitcode(status), self.out.read_text(), self.err.read_text())


class Forks:
    """The process that is forked, seen from the tests."""

    def __init__(self, model: Path) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self._process = subprocess.Popen(
            [sys.executable, __file__, str(model)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=self._folder.name,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        self._started = 0
        assert self._answer() == 0

    def start(
        self,
        *words: object,
        env: Mapping[str, str] | None = None,
        file_bytes: int | None = None,
        terminal: str | None = None,
        hub: tuple[str, Path] | None = None,
        slowed: bool = False,
    ) -> Running:
        """Start `spectrum` with these words in the current folder.

        Args:
            words: of the command line.
            env: variables beside those of the test.
            file_bytes: no file may grow beyond this, nor what is printed.
            terminal: path of a terminal to print to, instead of files.
            hub: endpoint of a Hub, and folder of its client's cache.
            slowed: decompose each matrix on its own, note its key in the file `decomposed` of the current folder, and
                pause; pause before the scan file is written, too.
        """
        self._started += 1
        out, err = (Path(self._folder.name, f"{self._started}.{name}") for name in ("out", "err"))
        out.touch()
        err.touch()
        pid = self.ask({
            "words": [str(word) for word in words],
            "cwd": str(Path.cwd()),
            "env": os.environ | (env or {}),
            "file_bytes": file_bytes,
            "hub": hub and [hub[0], str(hub[1])],
            "slowed": slowed,
            "out": terminal or str(out),
            "err": terminal or str(err),
        })  # fmt: skip
        return Running(self, pid, out, err)

    def run(self, *words: object, **options: Any) -> Ended:
        """Start `spectrum` and wait for its end."""
        return self.start(*words, **options).wait()

    def ask(self, request: Mapping[str, object]) -> int:
        """Send a request; the answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        """End the process."""
        self._process.communicate(timeout=30)
        self._folder.cleanup()

    def _answer(self) -> int:
        assert self._process.stdout is not None
        return int(self._process.stdout.readline())


@pytest.fixture(scope="session")
def forks(tmp_path_factory) -> Iterator[Forks]:
    """Processes of the program within milliseconds."""
    from conftest import llama_config, tiny_llama, write_checkpoint

    folder = tmp_path_factory.mktemp("forks") / "tiny"
    forked = Forks(write_checkpoint(folder, {"_": tiny_llama(layers=1)}, config=llama_config(1)))
    yield forked
    forked.close()


# --- the process that is forked ---


def _child(request, streams):
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    for number, stream in zip((1, 2), streams, strict=True):
        os.dup2(stream, number)
    sys.stdin, sys.stdout, sys.stderr = open(os.devnull), os.fdopen(1, "w"), os.fdopen(2, "w", 1)  # noqa: PTH123, SIM115
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background may have been told to ignore it
    if request["file_bytes"] is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (request["file_bytes"],) * 2)
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # as Python has it: the write fails instead
    if request["hub"]:
        from hub_client import lead_client

        lead_client(pytest.MonkeyPatch(), request["hub"][0], Path(request["hub"][1]))
    if request["slowed"]:
        _slow_down()
    sys.argv = ["spectrum", *request["words"]]
    code = _code_of(sys.argv[1:])
    with contextlib.suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


PAUSE = 0.01  # seconds after each matrix, and ten times as long before the scan file is written


def _slow_down():
    import spectrum.results.writer
    from spectrum.scanning import decompose, tasks

    solve, replace_file = decompose.decompose, spectrum.results.writer.replace_file

    def _slowly(*args, **options):
        for entry in solve(*args, **options):
            with Path("decomposed").open("a") as log:
                log.write(f"{entry.task.key}\n")
            time.sleep(PAUSE)
            yield entry

    def _late(path, *rest):
        if path.suffix == ".json":
            time.sleep(10 * PAUSE)
        return replace_file(path, *rest)

    tasks.BATCH_BYTES = 1
    decompose.decompose = _slowly
    spectrum.results.writer.replace_file = _late


def _code_of(words):
    from spectrum.cli.commands import app

    try:
        app(words, prog_name="spectrum")
    except SystemExit as left:
        return left.code or 0
    except BaseException:  # noqa: BLE001  as the interpreter ends
        traceback.print_exc()
        return 1
    return 0


def main():
    """Scan once, so that all is imported; then fork for each request."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # nothing but answers goes to the tests
    assert _code_of(["scan", "--model", sys.argv[1], "--quiet", "--out", "warm"]) == 0
    print(0, file=answers, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        if "wait" in request:
            answer = os.waitpid(request["wait"], 0)[1]
        else:
            streams = [os.open(request[name], os.O_WRONLY | os.O_NOCTTY) for name in ("out", "err")]
            answer = os.fork()
            if answer == 0:
                _child(request, streams)
            for stream in streams:
                os.close(stream)
        print(answer, file=answers, flush=True)


if __name__ == "__main__":
    main()
