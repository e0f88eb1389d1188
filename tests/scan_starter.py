"""Runs scans as processes of their own, forked from one that has imported everything already.

A program for the tests that kill: it reads one command line a line from standard input, as JSON, forks, prints the
child's process id, waits for the child and prints how it ended. Each matrix of a child is decomposed on its own, after
a pause in which it can be killed, and its key is appended to the file `decomposed` before that.
"""

import json
import os
import sys
import time
from pathlib import Path

import spectrum.results.writer
from spectrum.checkpoint import open_checkpoint
from spectrum.cli.commands import app
from spectrum.results import Settings
from spectrum.scanning import decompose
from spectrum.scanning.run import plan_scan

PAUSE = 0.01  # seconds for each matrix, and ten times as long before the scan file is written


def _slowed(solve):
    def _decompose(checkpoint, work, *rest):
        (task,) = work if isinstance(work, list) else [work]
        with Path("decomposed").open("a") as log:
            log.write(f"{task.parameter.name}\n")
        time.sleep(PAUSE)
        return solve(checkpoint, work, *rest)

    return _decompose


def _late(write):
    def _write(path, *rest):
        if path.suffix == ".json":
            time.sleep(10 * PAUSE)
        return write(path, *rest)

    return _write


def _child(words):
    quiet = os.open("log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)
    decompose.BATCH_BYTES = 1
    decompose._decompose_whole = _slowed(decompose._decompose_whole)
    decompose._decompose_rows = _slowed(decompose._decompose_rows)
    spectrum.results.writer.replace_file = _late(spectrum.results.writer.replace_file)
    app(words, prog_name="spectrum")


def main():
    with open_checkpoint(sys.argv[1]) as checkpoint:  # imports what planning needs
        plan_scan(checkpoint, Settings())
    print("ready", flush=True)
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            _child(json.loads(line))
        print(child, flush=True)
        print(os.waitpid(child, 0)[1], flush=True)


if __name__ == "__main__":
    main()
