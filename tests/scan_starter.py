"""Runs scans as processes of their own, forked from one that has imported everything already.

A program for the tests that kill: it reads one command line a line from standard input, as JSON, forks, prints the
child's process id, waits for the child and prints how it ended. Each matrix of a child is decomposed on its own; its
key is then appended to the file `decomposed`, and a pause follows in which the child can be killed.
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
from spectrum.scanning import decompose, tasks
from spectrum.scanning.plan import plan_scan

PAUSE = 0.01  # seconds for each matrix, and ten times as long before the scan file is written


def _slowed(loop):
    """A loop that logs each matrix and pauses, between its decomposition and its line in the partial file."""

    def _decompose(*args, **options):
        for entry in loop(*args, **options):
            with Path("decomposed").open("a") as log:
                log.write(f"{entry.task.key}\n")
            time.sleep(PAUSE)
            yield entry

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
    tasks.BATCH_BYTES = 1
    decompose.decompose = _slowed(decompose.decompose)
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
