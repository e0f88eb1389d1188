"""One scan of a model at a time in a folder."""

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout


@contextmanager
def locked(path: Path, *, on_wait: Callable[[str], None]) -> Iterator[None]:
    """Hold a lock file; wait while another process holds it.

    The operating system frees the lock of a process that has ended, however it ended, so a stale file locks nothing.
    It is left there, empty: one that was removed while others wait for it locks nothing either. Seen with four
    processes in turn under filelock 3.13 to 3.20, which do not notice: two of them held it at once.

    Args:
        path: of the lock file; its folder exists.
        on_wait: called with the holder before waiting.
    """
    lock = FileLock(path)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        on_wait(_holder(path))
        lock.acquire()
    try:
        path.write_text(f"process {os.getpid()} on {socket.gethostname()}", encoding="utf-8")
        yield
    finally:
        with suppress(OSError):
            os.truncate(path, 0)
        lock.release()


def _holder(path: Path) -> str:
    """Who wrote the file last, as it is only written while it is held."""
    try:
        text = path.read_bytes()[:200].decode(errors="replace")
    except OSError:  # removed since, or not ours to read
        text = ""
    return text if text.isprintable() and text else "another process"
