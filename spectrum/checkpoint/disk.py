"""Safetensors files on disk, read by byte range into memory of our own.

A memory map would count the pages of every shard as memory of the process.
"""

import io
import os
import re
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from threading import Lock
from typing import cast

from spectrum.checkpoint.headers import read_header
from spectrum.checkpoint.tensors import Tensor
from spectrum.errors import CheckpointError

# A larger matrix is read only after the one before it is done, or both would be in memory: two down projections of an
# 8B model are 235 MB, and a disk delivers one in a fraction of the time its decomposition takes.
LARGEST_AHEAD_BYTES = 64 * 2**20

_BLOB = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")  # git's SHA-1 of a small file, or the SHA-256 of a large one


class DiskSource:
    """Open safetensors files; see `Source`."""

    remote = False
    concurrent_reads = 1
    largest_ahead: int | None = LARGEST_AHEAD_BYTES

    def __init__(self, folder: Path, shards: Sequence[str]) -> None:
        """Nothing is opened yet."""
        self._folder, self._shards = folder, shards
        self._stack, self._lock = ExitStack(), Lock()
        self._files: dict[str, io.FileIO] = {}

    def tensors(self, shard: str) -> dict[str, Tensor]:
        """Open a shard and read its header."""
        path = self._folder / shard
        try:
            file = self._files[shard] = self._stack.enter_context(io.FileIO(path))
        except OSError as error:
            raise CheckpointError(f"'{path}' cannot be opened: {error.strerror}.") from error
        return read_header(self.read, shard, file_size=os.fstat(file.fileno()).st_size, path=str(path))

    def read(self, shard: str, offset: int, buffer: memoryview) -> None:
        """Fill a buffer from a shard; may be called from several threads."""
        with self._lock:  # the threads share the file's position
            done = _fill(self._files[shard], offset, buffer)
        if done < len(buffer):
            raise shortened(self._folder / shard, offset + done)

    def states(self) -> list[tuple[str, int, int]]:
        """(shard, size in bytes, time of the last change in ns)."""
        return states(self._folder, self._shards)

    def blobs(self) -> list[str] | None:
        """Names of the blobs in the Hub's cache that the shards link to; None if one is not such a link."""
        return blobs(self._folder, self._shards)

    def close(self) -> None:
        """Close the shards; a read in another thread finishes first."""
        with self._lock:
            self._stack.close()


def shortened(path: Path, end: int) -> CheckpointError:
    """The error for a file that became shorter than its header says."""
    return CheckpointError(
        f"'{path}' ended at byte {end} although its header describes more: it was changed after it was opened. "
        "Run the command again when nothing writes to it."
    )


def states(folder: Path, shards: Sequence[str]) -> list[tuple[str, int, int]]:
    """(shard, size in bytes, time of the last change in ns)."""
    stats = [(shard, (folder / shard).stat()) for shard in shards]
    return [(shard, stat.st_size, stat.st_mtime_ns) for shard, stat in stats]


def blobs(folder: Path, shards: Sequence[str]) -> list[str] | None:
    """Names of the blobs in the Hub's cache that the shards link to; None if one is not such a link."""
    found = [_blob(folder / shard) for shard in shards]
    return None if None in found else cast("list[str]", found)


def _blob(path: Path) -> str | None:
    """Name of the blob that a snapshot's file links to.

    None if it is not such a link, or if the blob was written after the link was made: `save_pretrained()` into a
    snapshot writes through the link, and the name no longer describes the content.
    """
    if not path.is_symlink():
        return None
    # The first link only: huggingface_hub 2 may link the blob on, to a store that all models share, under another hash.
    name = path.readlink().name
    if not _BLOB.fullmatch(name) or path.stat().st_mtime_ns > path.lstat().st_mtime_ns:
        return None
    return name


def _fill(file: io.FileIO, offset: int, buffer: memoryview) -> int:
    """Read until the buffer is full or the file ends; number of bytes read."""
    file.seek(offset)
    done = 0
    while done < len(buffer) and (count := file.readinto(buffer[done:])):
        done += count
    return done
