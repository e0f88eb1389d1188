"""An open checkpoint: headers read and checked, quantised weights folded, tensors read on demand."""

import math
import mmap
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from spectrum.checkpoint.dequantize import dequantize_rows
from spectrum.checkpoint.disk import DiskSource
from spectrum.checkpoint.files import PICKLED, CheckpointFiles, find_files
from spectrum.checkpoint.headers import MAX_TENSORS
from spectrum.checkpoint.pickled import PickledSource
from spectrum.checkpoint.quantized import find_quantized, unquantized_tensors
from spectrum.checkpoint.tensors import FLOAT_SIZES, TORCH_NAMES, Source, Tensor
from spectrum.errors import CheckpointError
from spectrum.untrusted import shown

if TYPE_CHECKING:
    import torch

OWN_PAGES_BYTES = 2**20


def open_checkpoint(path: str | Path) -> "Checkpoint":
    """Open a folder, a Hub cache snapshot or one .safetensors or .bin file; headers are read and checked at once.

    FP8 and MXFP4 weights appear under the names and shapes they had before they were quantised.

    Raises:
        CheckpointError: anything that the files' names and headers can show; an unsupported quantisation.
    """
    files = find_files(Path(path))
    pickled = all(shard.endswith(PICKLED) for shard in files.shards)
    return Checkpoint(files, (PickledSource if pickled else DiskSource)(files.folder, files.shards))


class Checkpoint:
    """A checkpoint whose headers are read and whose shards are open. Close it, or use it in a `with` statement.

    Attributes:
        id: 'owner/name' for a model of the Hub or its cache, else the name of the folder or file.
        revision: commit hash for a model of the Hub or its cache, else None.
        folder: of the shards; for a streamed checkpoint, 'owner/name'.
        shards: file names, in order.
        remote: whether reading goes over a network.
        concurrent_reads: number of tensors to read at once for the best throughput.
        largest_ahead: size in bytes up to which a matrix is read while another is decomposed; None for any size.
        config: the parsed config.json; None if there is none.
        tensors: name -> tensor, over all shards. A quantised weight appears as F32, with its format in `stored_as`
            and without its scales.
        stored_tensors: the same as the headers have them.

    Raises:
        CheckpointError: on opening, for everything the headers can show; on reading, for a file that changed.
    """

    def __init__(self, files: CheckpointFiles, source: Source) -> None:
        """Read the header of every shard; the source is closed if one is unsound."""
        self.id, self.revision, self.folder, self.shards = files.id, files.revision, files.folder, files.shards
        self.config: Mapping[str, Any] | None = files.config
        self.remote, self.concurrent_reads = source.remote, source.concurrent_reads
        self.largest_ahead = source.largest_ahead
        self._source = source
        try:
            self.stored_tensors: Mapping[str, Tensor] = self._read_headers(files)
            quantized = find_quantized(self.id, self.config, self.stored_tensors)
        except BaseException:
            self.close()
            raise
        self._quantized = {weight.name: weight for weight in quantized}
        self.tensors: Mapping[str, Tensor] = (
            unquantized_tensors(self.stored_tensors, quantized) if quantized else self.stored_tensors
        )

    def read(self, name: str, start: int = 0, stop: int | None = None) -> "torch.Tensor":
        """Entries `start` to `stop` along the first dimension of a tensor, on the CPU.

        Only the bytes of those rows are read; for a quantised weight, their codes and the scales that cover them.

        Args:
            name: of a floating-point tensor.
            start: first row (or expert, along a stacked tensor).
            stop: row after the last; None reads to the end.

        Returns:
            (stop - start, *shape[1:]), memory of its own, in the dtype of the file; float32 if it was quantised.

        Raises:
            CheckpointError: the dtype is not a plain float, or a file became shorter since it was opened.
        """
        import torch  # noqa: PLC0415  a second of start-up that opening a checkpoint must not cost

        tensor, weight = self.tensors[name], self._quantized.get(name)
        rows = tensor.shape[0] if weight is None and tensor.shape else 1 if weight is None else weight.shape[0]
        last = rows if stop is None else stop
        if not 0 <= start <= last <= rows:
            raise ValueError(f"rows {start} to {last} of a tensor with {rows}")
        if weight is not None:
            return dequantize_rows(self._source, weight, start, last)
        if tensor.dtype not in FLOAT_SIZES:
            raise CheckpointError(f"Tensor {shown(name)} in '{self.id}' has dtype {tensor.dtype}, which is not scored.")
        dtype = getattr(torch, TORCH_NAMES[tensor.dtype])
        values = _empty((last - start, *tensor.shape[1:]) if tensor.shape else (), dtype)
        row_bytes = tensor.size_bytes // max(rows, 1)
        buffer = memoryview(values.reshape(-1).view(torch.uint8).numpy().data)
        self._source.read(tensor.shard, tensor.start + start * row_bytes, buffer)
        return values

    def read_bytes(self, shard: str, offset: int, buffer: memoryview) -> None:
        """Fill a buffer from a shard, as it is stored; may be called from several threads.

        Raises:
            CheckpointError: the file ended first, or the Hub did not send these bytes.
        """
        self._source.read(shard, offset, buffer)

    def states(self) -> list[tuple[str, int, int]]:
        """(shard, size in bytes, time of the last change in ns): reveals an edit during or between scans."""
        return self._source.states()

    def blobs(self) -> list[str] | None:
        """Hash of each shard as the Hub or its cache states it; None if one is unknown."""
        return self._source.blobs()

    def close(self) -> None:
        """Close the shards."""
        self._source.close()

    def __enter__(self) -> "Checkpoint":  # noqa: PYI034  typing.Self is not in Python 3.10
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _read_headers(self, files: CheckpointFiles) -> dict[str, Tensor]:
        tensors: dict[str, Tensor] = {}
        for shard in files.shards:
            found = self._source.tensors(shard)
            for name in tensors.keys() & found.keys():
                raise CheckpointError(
                    f"Tensor {shown(name)} is in two shards of '{self.folder}', '{tensors[name].shard}' and "
                    f"'{shard}'. Download the checkpoint again into an empty folder."
                )
            tensors |= found
            if len(tensors) > MAX_TENSORS:
                raise CheckpointError(f"'{self.folder}' holds more than {MAX_TENSORS} tensors, which no model has.")
        for name, shard in (files.weight_map or {}).items():
            if name not in tensors or tensors[name].shard != shard:
                raise CheckpointError(
                    f"The index of '{self.folder}' says that tensor {shown(name)} is in {shown(shard)}, but it is not "
                    "there. Download the checkpoint again into an empty folder."
                )
        if not tensors:
            raise CheckpointError(f"'{self.folder}' holds no tensors. Download the checkpoint again.")
        return tensors


def _empty(shape: tuple[int, ...], dtype: "torch.dtype") -> "torch.Tensor":
    """Uninitialised memory; large tensors get pages of their own, which return to the system with the tensor.

    Buffers of several threads in the C library's heap leave holes: the memory of a scan of 16 MiB matrices grew from
    320 to 480 MB.
    """
    import torch  # noqa: PLC0415

    size_bytes = math.prod(shape) * dtype.itemsize
    if size_bytes < OWN_PAGES_BYTES:
        return torch.empty(shape, dtype=dtype)
    return torch.frombuffer(mmap.mmap(-1, size_bytes), dtype=dtype).reshape(shape)
