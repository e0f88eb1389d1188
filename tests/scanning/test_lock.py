"""The lock: one process at a time, whoever comes when."""

import os
import subprocess
import sys
from pathlib import Path

from spectrum.scanning.lock import locked

_IN_TURN = """
import os, sys, time
from pathlib import Path
from spectrum.scanning.lock import locked

end = time.monotonic() + 2
while time.monotonic() < end:
    with locked(Path("m.lock"), on_wait=lambda holder: None):
        os.close(os.open("inside", os.O_CREAT | os.O_EXCL))
        time.sleep(0.0005)
        os.unlink("inside")
"""


def test_never_two_at_once():
    """Four processes take and leave it as fast as they can; a second inside would fail to make the file."""
    processes = [subprocess.Popen([sys.executable, "-c", _IN_TURN]) for _ in range(4)]
    assert [process.wait(60) for process in processes] == [0, 0, 0, 0]


def test_the_holder_is_named_while_it_holds():
    """The process and its machine; nothing afterwards."""
    path = Path("m.lock")
    with locked(path, on_wait=lambda _holder: None):
        assert path.read_text().startswith(f"process {os.getpid()} on ")
    assert not path.exists() or path.read_text() == ""
