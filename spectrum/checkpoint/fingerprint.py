"""The fingerprint of a checkpoint: does a stored scan still speak of these weights?"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from time import time_ns

from spectrum.checkpoint.checkpoint import Checkpoint
from spectrum.checkpoint.known_fingerprints import remembered
from spectrum.checkpoint.tensors import Tensor

# A tensor up to this size is hashed whole; of a larger one, SAMPLES blocks spread evenly over it. Were one weight in a
# thousand changed at random, all 131072 sampled bfloat16 weights of one tensor would be old ones with probability
# 0.999^131072 = 1e-57. An edit of a few rows can fall between the blocks: `written_since` is for those.
WHOLE_BYTES = 256 * 1024
BLOCK_BYTES = 4 * 1024
SAMPLES = WHOLE_BYTES // BLOCK_BYTES
# If the samples of a checkpoint would be more, fewer blocks of each tensor are hashed, and at last smaller ones.
# An 8B model has 70 MB of samples; without the bound, DeepSeek-V3's 46,000 tensors would have 12 GB.
MOST_BYTES = 128 * 2**20
# Another write within the resolution of the file system's clock would leave size and time as they are.
TOO_FRESH_NS = 2 * 10**9


@dataclass(frozen=True)
class Fingerprint:
    """Distinguishes one state of a checkpoint from another.

    Attributes:
        headers: SHA-256 over names, dtypes and shapes of all tensors, in order of name.
        content: 'hub:<SHA-256>' over commit and file hashes of the Hub cache, or 'samples:<SHA-256>' over samples of
            each tensor's bytes.
    """

    headers: str
    content: str


def fingerprint(checkpoint: Checkpoint, *, cache: Path | None = None) -> Fingerprint:
    """Fingerprint of an open checkpoint, from the strongest evidence available.

    Args:
        checkpoint: open.
        cache: file that remembers the hashes of samples by path, size and time of the shards; by default
            one in the user's cache folder. A file that cannot be read or written is not used.
    """
    tensors = sorted(checkpoint.stored_tensors.values(), key=lambda tensor: tensor.name)
    return Fingerprint(_hash_headers(tensors), _hash_blobs(checkpoint) or _sampled(checkpoint, tensors, cache))


def written_since(checkpoint: Checkpoint, time_ns: int) -> bool:
    """Whether a shard was written after a moment, if samples of its bytes are the only evidence.

    An edit between the samples would go unnoticed otherwise. Files copied or fetched since then count as written.

    Args:
        checkpoint: open.
        time_ns: nanoseconds since the epoch, as file systems count.
    """
    return _hash_blobs(checkpoint) is None and max(time for _, _, time in checkpoint.states()) > time_ns


def _hash_headers(tensors: list[Tensor]) -> str:
    facts = [[tensor.name, tensor.dtype, list(tensor.shape)] for tensor in tensors]
    return hashlib.sha256(json.dumps(facts, separators=(",", ":")).encode()).hexdigest()


def _hash_blobs(checkpoint: Checkpoint) -> str | None:
    """Evidence of the Hub or its cache: the commit and the hash of each shard. None if there is none."""
    blobs = None if checkpoint.revision is None else checkpoint.blobs()
    if blobs is None:
        return None
    facts = [checkpoint.revision, *([shard, blob] for shard, blob in zip(checkpoint.shards, blobs, strict=True))]
    return "hub:" + hashlib.sha256(json.dumps(facts, separators=(",", ":")).encode()).hexdigest()


def _sampled(checkpoint: Checkpoint, tensors: list[Tensor], cache: Path | None) -> str:
    """Hash of samples, from the cache if the shards are still the files that it was made of."""
    written = max(time for _, _, time in checkpoint.states())
    if checkpoint.remote or written > time_ns() - TOO_FRESH_NS:
        return _hash_samples(checkpoint, tensors)
    paths = [(checkpoint.folder / shard).resolve() for shard in checkpoint.shards]
    stats = [path.stat() for path in paths]
    # With the time of any change (ctime): a program can set back the time of writing (mtime), but not this one.
    times = [(stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns) for stat in stats]
    files = [(str(path), *facts) for path, facts in zip(paths, times, strict=True)]
    key = hashlib.sha256(json.dumps([MOST_BYTES, _hash_headers(tensors), files]).encode()).hexdigest()
    return remembered(cache, key, lambda: _hash_samples(checkpoint, tensors))


def _hash_samples(checkpoint: Checkpoint, tensors: list[Tensor]) -> str:
    digest = hashlib.sha256()
    for offset, length, shard in _sampled_ranges(tensors):
        buffer = bytearray(length)
        checkpoint.read_bytes(shard, offset, memoryview(buffer))
        digest.update(buffer)
    return "samples:" + digest.hexdigest()


def _sampled_ranges(tensors: list[Tensor]) -> Iterator[tuple[int, int, str]]:
    """(first byte, length, shard) of what is hashed.

    Without the bound these are the samples of release 0.1.0, so its scans of smaller checkpoints still fit.
    """
    samples, block = _granularity([tensor.size_bytes for tensor in tensors])
    for tensor in tensors:
        if tensor.size_bytes <= samples * block:
            yield tensor.start, tensor.size_bytes, tensor.shard
            continue
        last = tensor.size_bytes - block
        for sample in range(samples):
            at = last * sample // (samples - 1) if samples > 1 else last // 2
            yield tensor.start + at, block, tensor.shard


def _granularity(sizes: list[int]) -> tuple[int, int]:
    """How many blocks of a large tensor are hashed, and of how many bytes: as many as the bound allows."""
    for samples in range(SAMPLES, 0, -1):
        if sum(min(size, samples * BLOCK_BYTES) for size in sizes) <= MOST_BYTES:
            return samples, BLOCK_BYTES
    return 1, max(1, MOST_BYTES // len(sizes))
