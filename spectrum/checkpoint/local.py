"""An open checkpoint: headers read and checked, tensors read on demand. Here from disk; over HTTP in streamed.py.

Data are read by byte range into memory of our own, not through a memory map: mapped pages of every shard would
count as memory of the process, and rows of one tensor are all that a chunked decomposition wants at a time.
"""

import io
import math
import mmap
import os
import re
from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import TYPE_CHECKING, Any, cast

from spectrum.checkpoint.archive import ShardFile
from spectrum.checkpoint.files import PICKLED, CheckpointFiles
from spectrum.checkpoint.headers import LENGTH_BYTES, header_length, parse_header
from spectrum.checkpoint.state_dict import read_state_dict
from spectrum.checkpoint.strided import read_strided
from spectrum.checkpoint.tensors import FLOAT_SIZES, Tensor
from spectrum.errors import CheckpointError
from spectrum.untrusted import shown

if TYPE_CHECKING:
    import torch


_BLOB = re.compile(r"[0-9a-f]{64}|[0-9a-f]{40}")  # sha256 of a large file, git's sha1 of a small one

# A larger matrix waits until the one before it is used up, or both would be in memory: two down projections of an 8B
# model are 235 MB, and a disk delivers one in a fraction of the time its decomposition takes.
LARGEST_AHEAD_BYTES = 64 * 2**20


OWN_PAGES_BYTES = 2**20


class Checkpoint:
    """A checkpoint whose headers are read and whose shards are open. Close it, or use it in a `with` statement.

    Attributes:
        id: 'owner/name' for a snapshot of the Hub cache, else the name of the folder or file.
        revision: commit hash for a snapshot of the Hub cache, else None.
        folder: where the shards stand; of a streamed checkpoint, 'owner/name'.
        shards: file names, in order.
        remote: whether reading goes over a network.
        concurrent_reads: how many tensors are read at a time to best effect.
        largest_ahead: bytes up to which a matrix is read while another is decomposed; None for any.
        config: the parsed config.json; None where there is none.
        tensors: name -> tensor, over all shards.
        stored_tensors: the same as the headers have them, before quantised weights are folded.

    Raises:
        CheckpointError: on opening, for everything the headers can tell; on reading, for a file that changed.
    """

    remote = False
    concurrent_reads = 1
    largest_ahead: int | None = LARGEST_AHEAD_BYTES

    def __init__(self, files: CheckpointFiles) -> None:
        """Open every shard and read its header."""
        self.id = files.id
        self.revision = files.revision
        self.folder = files.folder
        self.shards = files.shards
        self.config: Mapping[str, Any] | None = files.config
        self._stack = ExitStack()
        self._lock = Lock()
        self._files: dict[str, io.FileIO] = {}
        try:
            self.tensors: Mapping[str, Tensor] = self._read_headers(files)
        except BaseException:
            self.close()
            raise
        self.stored_tensors: Mapping[str, Tensor] = self.tensors

    def read(self, name: str, start: int = 0, stop: int | None = None) -> "torch.Tensor":
        """Entries `start` to `stop` along the first dimension of a tensor, in the dtype of the file, on the CPU.

        Args:
            name: of a floating-point tensor.
            start: first row (or expert, along a stacked tensor).
            stop: row after the last; None reads to the end.

        Returns:
            (stop - start, *shape[1:]), memory of its own.

        Raises:
            CheckpointError: a dtype that is no plain float, or a file that became shorter since it was opened.
        """
        import torch  # noqa: PLC0415  a second of start-up that opening a checkpoint must not cost

        tensor = self.tensors[name]
        if tensor.dtype not in FLOAT_SIZES:
            raise CheckpointError(f"Tensor {shown(name)} in '{self.id}' has dtype {tensor.dtype}, which is not scored.")
        dtype = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}[tensor.dtype]
        shape = _rows(tensor.shape, start, stop)
        if tensor.strides is not None:
            first = tensor.start + start * tensor.strides[0] * FLOAT_SIZES[tensor.dtype]
            return read_strided(partial(self.read_bytes, tensor.shard), first, shape, tensor.strides, dtype)
        rows = _empty(shape, dtype)
        row_bytes = tensor.size_bytes // tensor.shape[0] if tensor.shape and tensor.shape[0] else tensor.size_bytes
        buffer = memoryview(rows.reshape(-1).view(torch.uint8).numpy().data)
        self.read_bytes(tensor.shard, tensor.start + start * row_bytes, buffer)
        return rows

    def read_bytes(self, shard: str, offset: int, buffer: memoryview) -> None:
        """Fill a buffer from a shard; may be called from several threads.

        Raises:
            CheckpointError: the file ended first.
        """
        with self._lock:  # a thread that reads ahead shares the file's position with the one that computes
            done = self._fill(self._files[shard], offset, buffer)
        if done < len(buffer):
            raise CheckpointError(
                f"'{self.folder / shard}' ended at byte {offset + done} although its header describes more: "
                "it was altered since it was opened. Run the command again when nothing writes to it."
            )

    @staticmethod
    def _fill(file: io.FileIO, offset: int, buffer: memoryview) -> int:
        """Read until the buffer is full or the file ends; how many bytes were read."""
        file.seek(offset)
        done = 0
        while done < len(buffer) and (count := file.readinto(buffer[done:])):
            done += count
        return done

    def states(self) -> list[tuple[str, int, int]]:
        """(shard, size in bytes, time of the last change in ns): what tells an edit while or between scans."""
        stats = [(shard, (self.folder / shard).stat()) for shard in self.shards]
        return [(shard, stat.st_size, stat.st_mtime_ns) for shard, stat in stats]

    def blobs(self) -> list[str] | None:
        """Hash of each shard, as the Hub or its cache states it; None where nobody vouches for one."""
        blobs = [_blob(self.folder / shard) for shard in self.shards]
        return None if None in blobs else cast("list[str]", blobs)

    def close(self) -> None:
        """Close the shards; a read under way in another thread is waited for."""
        with self._lock:
            self._stack.close()

    def __enter__(self) -> "Checkpoint":  # noqa: PYI034  typing.Self is not in Python 3.10
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _read_headers(self, files: CheckpointFiles) -> dict[str, Tensor]:
        tensors: dict[str, Tensor] = {}
        for shard in files.shards:
            for name, tensor in self._read_header(shard).items():
                if name in tensors:
                    raise CheckpointError(
                        f"Tensor {shown(name)} stands in two shards of '{self.folder}', '{tensors[name].shard}' and "
                        f"'{shard}'. Download the checkpoint again into an empty folder."
                    )
                tensors[name] = tensor
        if files.weight_map is not None:
            self._check_index(files.weight_map, tensors)
        if not tensors:
            raise CheckpointError(f"'{self.folder}' holds no tensors. Download the checkpoint again.")
        return tensors

    def _read_header(self, shard: str) -> dict[str, Tensor]:
        path = str(self.folder / shard)
        size = self._open(shard)
        if shard.endswith(PICKLED):
            return read_state_dict(ShardFile(partial(self.read_bytes, shard), size), shard=shard, path=path)
        prefix = bytearray(min(size, LENGTH_BYTES))
        self.read_bytes(shard, 0, memoryview(prefix))
        header = bytearray(header_length(bytes(prefix), file_size=size, path=path))
        self.read_bytes(shard, LENGTH_BYTES, memoryview(header))
        return parse_header(bytes(header), file_size=size, shard=shard, path=path)

    def _open(self, shard: str) -> int:
        """Make a shard ready for reading; its size in bytes."""
        path = self.folder / shard
        try:
            file = self._stack.enter_context(io.FileIO(path))
        except OSError as error:
            raise CheckpointError(f"'{path}' cannot be opened: {error.strerror}.") from error
        self._files[shard] = file
        return os.fstat(file.fileno()).st_size

    def _check_index(self, weight_map: Mapping[str, str], tensors: Mapping[str, Tensor]) -> None:
        for name, shard in weight_map.items():
            if name not in tensors or tensors[name].shard != shard:
                raise CheckpointError(
                    f"The index of '{self.folder}' says that tensor {shown(name)} is in '{shard}', but it is not "
                    "there. Download the checkpoint again into an empty folder."
                )


def _blob(path: Path) -> str | None:
    """Name of the blob a snapshot's file links to.

    None for a file that is no such link, or whose blob was written after the link was made: `save_pretrained()` into
    a snapshot writes through the link, and the name then no longer tells what is inside.
    """
    if not path.is_symlink():
        return None
    # The first link only: huggingface_hub 2 may link the blob on, to a store that all models share, under another hash.
    name = path.readlink().name
    if not _BLOB.fullmatch(name) or path.stat().st_mtime_ns > path.lstat().st_mtime_ns:
        return None
    return name


def _empty(shape: tuple[int, ...], dtype: "torch.dtype") -> "torch.Tensor":
    """Memory for numbers to come; large parts in pages of their own, which go back to the system with the tensor.

    From the C library's heap, up to 32 MiB a piece, the buffers of several threads leave holes: a scan of 400 MB
    of 16 MiB matrices grew from 320 to 480 MB.
    """
    import torch  # noqa: PLC0415

    size_bytes = math.prod(shape) * dtype.itemsize
    if size_bytes < OWN_PAGES_BYTES:
        return torch.empty(shape, dtype=dtype)
    return torch.frombuffer(mmap.mmap(-1, size_bytes), dtype=dtype).reshape(shape)


def _rows(shape: tuple[int, ...], start: int, stop: int | None) -> tuple[int, ...]:
    if not shape:
        return shape
    last = shape[0] if stop is None else stop
    if not 0 <= start <= last <= shape[0]:
        raise ValueError(f"rows {start} to {last} of a tensor with {shape[0]}")
    return (last - start, *shape[1:])
