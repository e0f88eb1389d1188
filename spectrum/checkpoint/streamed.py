"""Safetensors files on the Hub, read by byte range into memory: nothing is written to disk."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from spectrum.checkpoint.files import (
    MAX_INDEX_BYTES,
    PREFERENCE,
    CheckpointFiles,
    check_named,
    parse_json_object,
    read_weight_map,
    why_nothing,
)
from spectrum.checkpoint.headers import read_header
from spectrum.checkpoint.ranges import CONNECTIONS, Ranges
from spectrum.checkpoint.tensors import Tensor
from spectrum.errors import CheckpointError
from spectrum.untrusted import MAX_CONFIG_BYTES

# Of every shard at once, before its header's length is known. 97 of 100 headers on the Hub are shorter, according to
# the documentation of huggingface_hub's get_safetensors_metadata, which reads as much.
HEAD_BYTES = 100_000


class StreamedSource:
    """Safetensors files of the Hub at one commit; see `Source`."""

    remote = True
    concurrent_reads = CONNECTIONS
    largest_ahead: int | None = None

    def __init__(self, folder: Path, shards: Sequence[str], ranges: Ranges) -> None:
        """Fetch the beginning of every shard; `ranges` is closed with the source."""
        self._folder, self._shards, self._ranges = folder, shards, ranges
        with ThreadPoolExecutor(CONNECTIONS) as pool:
            heads = pool.map(self._head, shards)
            try:
                self._heads = dict(zip(shards, heads, strict=True))
            except BaseException:
                ranges.close()  # or leaving the pool would wait for a server that hangs
                raise

    def tensors(self, shard: str) -> dict[str, Tensor]:
        """Parse the header of a shard."""
        size = self._ranges.files[shard].size
        described = read_header(self.read, shard, file_size=size, path=str(self._folder / shard))
        self._heads.pop(shard)
        return described

    def read(self, shard: str, offset: int, buffer: memoryview) -> None:
        """Fill a buffer from a shard; may be called from several threads."""
        head = self._heads.get(shard, b"")
        if offset + len(buffer) <= len(head):
            buffer[:] = head[offset : offset + len(buffer)]
        else:
            self._ranges.read(shard, offset, buffer)

    def states(self) -> list[tuple[str, int, int]]:
        """(shard, size in bytes, 0): a commit does not change."""
        return [(shard, self._ranges.files[shard].size, 0) for shard in self._shards]

    def blobs(self) -> list[str] | None:
        """Hash of each shard, as the Hub states it."""
        blobs = [self._ranges.files[shard].blob for shard in self._shards]
        return [blob for blob in blobs if blob] if all(blobs) else None

    def close(self) -> None:
        """Abort transfers."""
        self._ranges.close()

    def _head(self, shard: str) -> bytes:
        head = bytearray(min(HEAD_BYTES, self._ranges.files[shard].size))
        self._ranges.read(shard, 0, memoryview(head))
        return bytes(head)


def find_remote_files(identity: str, revision: str, ranges: Ranges) -> CheckpointFiles:
    """Files of the checkpoint among those of a repository.

    Raises:
        CheckpointError: there is none, or the index contradicts the list of files.
    """
    folder, names = Path(identity), ranges.files
    config = _json(ranges, folder, "config.json", MAX_CONFIG_BYTES) if "config.json" in names else None
    for single, listed in PREFERENCE:
        if single in names:
            check_named(config, single, folder)
            return CheckpointFiles(identity, revision, folder, (single,), None, config)
        if listed in names:
            check_named(config, listed, folder)
            index = _json(ranges, folder, listed, MAX_INDEX_BYTES)
            weight_map = read_weight_map(index, folder / listed, exists=lambda shard: shard in names)
            shards = tuple(sorted(set(weight_map.values())))
            return CheckpointFiles(identity, revision, folder, shards, weight_map, config)
    raise CheckpointError(why_nothing(folder, sorted(names)))


def _json(ranges: Ranges, folder: Path, name: str, most: int) -> Mapping[str, Any]:
    return parse_json_object(ranges.read_small(name, most=most), folder / name)
