"""The tensors of a checkpoint as its headers describe them, and where their bytes come from."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

# Bytes per element of every dtype that a weight can have, as safetensors spells them.
FLOAT_SIZES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}

# safetensors' name of a dtype -> torch's.
TORCH_NAMES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64", "I32": "int32",
    "I16": "int16", "I8": "int8", "U64": "uint64", "U32": "uint32", "U16": "uint16", "U8": "uint8", "BOOL": "bool",
    "C64": "complex64", "C128": "complex128", "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2",
    "F8_E8M0": "float8_e8m0fnu", "F8_E4M3FNUZ": "float8_e4m3fnuz", "F8_E5M2FNUZ": "float8_e5m2fnuz",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Tensor:
    """One entry of a checkpoint, named as the file names it.

    Attributes:
        name: as in the file.
        dtype: as safetensors spells it, for example 'BF16'.
        shape: in elements.
        shard: file name within the checkpoint's folder.
        start: first byte of the data, counted from the beginning of the shard.
        stop: byte after the last one.
        stored_as: the quantised format, 'F8_E4M3' or 'MXFP4', if `dtype` is what it is dequantised to; else None.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    shard: str
    start: int
    stop: int
    stored_as: str | None = None

    @property
    def numel(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def size_bytes(self) -> int:
        """Bytes in the shard."""
        return self.stop - self.start


class Source(Protocol):
    """Where the bytes of a checkpoint's shards come from: safetensors or .bin files on disk, or the Hub.

    Attributes:
        remote: whether reading goes over a network.
        concurrent_reads: number of tensors to read at once for the best throughput.
        largest_ahead: size in bytes up to which a matrix is read while another is decomposed; None for any size.
    """

    remote: bool
    concurrent_reads: int
    largest_ahead: int | None

    def tensors(self, shard: str) -> Mapping[str, Tensor]:
        """Open a shard and describe its tensors, without reading their bytes."""
        ...

    def read(self, shard: str, offset: int, buffer: memoryview) -> None:
        """Fill a buffer from a shard; may be called from several threads."""
        ...

    def states(self) -> list[tuple[str, int, int]]:
        """(shard, size in bytes, time of the last change in ns): reveals an edit during or between scans."""
        ...

    def blobs(self) -> list[str] | None:
        """Hash of each shard as the Hub or its cache states it; None if one is unknown."""
        ...

    def close(self) -> None:
        """Release the shards; reads in progress fail or finish first."""
        ...
