"""The fingerprint of a checkpoint: does a stored scan still speak of these weights?"""

import hashlib
import json
from dataclasses import dataclass

from spectrum.checkpoint.checkpoint import Checkpoint
from spectrum.checkpoint.tensors import Tensor

# A tensor up to this size is hashed whole; of a larger one, SAMPLES blocks spread evenly over it. Of an 8B model that
# reads 70 MB of 16 GB. Were one weight in a thousand changed at random, all 131072 sampled bfloat16 weights of one
# tensor would be old ones with probability 0.999^131072 = 1e-57. An edit of a few rows can fall between the blocks:
# `written_since` is for those.
WHOLE_BYTES = 256 * 1024
BLOCK_BYTES = 4 * 1024
SAMPLES = WHOLE_BYTES // BLOCK_BYTES


@dataclass(frozen=True)
class Fingerprint:
    """What tells one state of a checkpoint from another.

    Attributes:
        headers: SHA-256 over names, dtypes and shapes of all tensors, in order of name.
        content: 'hub:<SHA-256>' over commit and file hashes of the Hub cache, or 'samples:<SHA-256>' over samples of
            each tensor's bytes.
    """

    headers: str
    content: str


def fingerprint(checkpoint: Checkpoint) -> Fingerprint:
    """Fingerprint of an open checkpoint, from the strongest evidence at hand."""
    tensors = sorted(checkpoint.stored_tensors.values(), key=lambda tensor: tensor.name)
    return Fingerprint(_hash_headers(tensors), _hash_blobs(checkpoint) or _hash_samples(checkpoint, tensors))


def written_since(checkpoint: Checkpoint, time_ns: int) -> bool:
    """Whether a shard was written after a moment, where samples of its bytes are all the evidence there is.

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
    """Evidence of the Hub or its cache: the commit, and the hash of each shard. None where it does not hold."""
    blobs = None if checkpoint.revision is None else checkpoint.blobs()
    if blobs is None:
        return None
    facts = [checkpoint.revision, *([shard, blob] for shard, blob in zip(checkpoint.shards, blobs, strict=True))]
    return "hub:" + hashlib.sha256(json.dumps(facts, separators=(",", ":")).encode()).hexdigest()


def _hash_samples(checkpoint: Checkpoint, tensors: list[Tensor]) -> str:
    digest = hashlib.sha256()
    for tensor in tensors:
        for offset, length in _sampled_ranges(tensor):
            buffer = bytearray(length)
            checkpoint.read_bytes(tensor.shard, offset, memoryview(buffer))
            digest.update(buffer)
    return "samples:" + digest.hexdigest()


def _sampled_ranges(tensor: Tensor) -> list[tuple[int, int]]:
    """(first byte, length) of what is hashed of a tensor."""
    if tensor.size_bytes <= WHOLE_BYTES:
        return [(tensor.start, tensor.size_bytes)]
    last = tensor.size_bytes - BLOCK_BYTES
    return [(tensor.start + last * sample // (SAMPLES - 1), BLOCK_BYTES) for sample in range(SAMPLES)]
