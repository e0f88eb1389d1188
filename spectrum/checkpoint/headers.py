"""The header of a safetensors file: parsed and checked before a byte of data is read.

Format: https://huggingface.co/docs/safetensors, "Format": 8 bytes little-endian length N, N bytes of JSON, the data.
The header is parsed here rather than by the safetensors package because a scan needs the byte ranges
(to read rows of one tensor, locally or over HTTP), which its Python interface does not give.
"""

import math
from collections.abc import Callable
from typing import Any

from spectrum.checkpoint.tensors import FLOAT_SIZES, Tensor
from spectrum.errors import CheckpointError
from spectrum.untrusted import LONGEST_NAME, TwiceError, is_name, parse_json, shown

LENGTH_BYTES = 8
PREFIX_BYTES = 64  # enough to recognise a placeholder
MAX_HEADER_BYTES = 100_000_000  # the limit of the safetensors library itself
# Kimi-K2, the largest seen, has 138,000 tensors with their scales; a million of empty ones took 38 s and 1.8 GB.
MAX_TENSORS = 400_000
MAX_DIMENSIONS = 64  # as NumPy; the product of millions of large numbers would take hours
MAX_SIDE = 2**63 - 1  # as torch

# Bits per element of the dtypes that are not plain floats: safetensors 0.8, its Rust source `Dtype::bitsize`.
_OTHER_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "U16": 16, "I16": 16, "U32": 32, "I32": 32, "U64": 64, "I64": 64, "C64": 64,
    "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
}  # fmt: skip
_BITS = {name: 8 * size for name, size in FLOAT_SIZES.items()} | _OTHER_BITS


def read_header(
    read: Callable[[str, int, memoryview], None], shard: str, *, file_size: int, path: str
) -> dict[str, Tensor]:
    """Read and parse the header of a shard.

    Args:
        read: fills a buffer from a shard, from an offset.
        shard: file name to record in each tensor.
        file_size: in bytes, of the whole file.
        path: how errors name the file.

    Raises:
        CheckpointError: the file is not a sound safetensors file.
    """
    prefix = bytearray(min(file_size, PREFIX_BYTES))
    read(shard, 0, memoryview(prefix))
    header = bytearray(header_length(bytes(prefix), file_size=file_size, path=path))
    read(shard, LENGTH_BYTES, memoryview(header))
    return parse_header(bytes(header), file_size=file_size, shard=shard, path=path)


def header_length(prefix: bytes, *, file_size: int, path: str) -> int:
    """Length in bytes of the JSON header, from the first bytes of the file.

    Raises:
        CheckpointError: the file is shorter than its header says, the length is beyond reason, or the file is a
            placeholder for another one.
    """
    refuse_placeholder(prefix, path)
    if len(prefix) < LENGTH_BYTES:
        raise CheckpointError(
            f"'{path}' has only {file_size} bytes, too few for a safetensors file. Download the file again."
        )
    length = int.from_bytes(prefix[:LENGTH_BYTES], "little")
    text = prefix.decode("utf-8", "replace")
    if "".join(text[:LENGTH_BYTES].split()).isprintable() and prefix[:LENGTH_BYTES].isascii():
        raise CheckpointError(
            f"'{path}' begins with the text {shown(' '.join(text.split()))}: it is not a safetensors file, perhaps an "
            "error that a server sent in its place. Download it again."
        )
    if length > file_size - LENGTH_BYTES:
        raise CheckpointError(
            f"'{path}' announces a header of {length} bytes but has only {file_size} bytes in all. "
            "It is truncated or not a safetensors file; download it again."
        )
    if length > MAX_HEADER_BYTES:
        raise CheckpointError(
            f"'{path}' announces a header of {length} bytes; no more than {MAX_HEADER_BYTES} are allowed. "
            "It is not a safetensors file; download it again."
        )
    return length


def refuse_placeholder(head: bytes, path: str) -> None:
    """Raise CheckpointError if a file is a Git LFS pointer or a web page, as a failed download leaves it."""
    if head.startswith(b"version https://git-lfs"):
        raise CheckpointError(
            f"'{path}' is a Git LFS pointer, not the weights. Run 'git lfs pull' in its folder, or download the model "
            "with 'hf download'."
        )
    if head.lstrip(b"\xef\xbb\xbf \t\r\n")[:9].lower().startswith((b"<!doctype", b"<html", b"<head")):
        raise CheckpointError(
            f"'{path}' is an HTML page, not the weights: a website was saved in their place. Download the model with "
            "'hf download'."
        )


def parse_header(header: bytes, *, file_size: int, shard: str, path: str) -> dict[str, Tensor]:
    """The tensors that a header describes, every byte range checked against the file.

    Args:
        header: the JSON, without the 8 bytes of its length.
        file_size: in bytes, of the whole file.
        shard: file name to record in each tensor.
        path: how errors name the file.

    Raises:
        CheckpointError: malformed JSON, unknown dtype, or byte ranges that do not cover the data exactly once.
    """
    if header.count(b'"data_offsets"') > MAX_TENSORS:  # before the cost of parsing them
        raise CheckpointError(f"'{path}' describes more than {MAX_TENSORS} tensors, which no model has.")
    entries = _load_json(header, path)
    metadata = entries.pop("__metadata__", None)
    if metadata is not None and not (
        isinstance(metadata, dict) and all(isinstance(value, str) for value in metadata.values())
    ):
        raise CheckpointError(
            f"The header of '{path}' has a __metadata__ that does not map text to text, which safetensors refuses. "
            "The file is damaged; download it again."
        )
    data_start = LENGTH_BYTES + len(header)
    tensors = {name: _tensor(name, entry, data_start, shard, path) for name, entry in entries.items()}
    _check_ranges(tensors, data_start, file_size, path)
    return tensors


def _load_json(header: bytes, path: str) -> dict[str, Any]:
    try:
        entries = parse_json(header, parse_int=_whole_number, parse_constant=_no_constant)
    except TwiceError as error:
        raise CheckpointError(
            f"The header of '{path}' lists {shown(str(error))} twice. The file is damaged; download it again."
        ) from error
    except ValueError as error:
        raise CheckpointError(
            f"The header of '{path}' is not valid JSON. The file is damaged; download it again."
        ) from error
    if not isinstance(entries, dict):
        raise CheckpointError(f"The header of '{path}' is not a JSON object. The file is damaged; download it again.")
    return entries


def _whole_number(digits: str) -> int:
    """A number of JSON; '-0', which Rust takes for a float and Python for 0, becomes one that no field accepts."""
    return -1 if digits == "-0" else int(digits)


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def _tensor(name: str, entry: Any, data_start: int, shard: str, path: str) -> Tensor:
    try:
        dtype, shape, (start, stop) = entry["dtype"], entry["shape"], entry["data_offsets"]
        whole = (
            all(type(numbers) is list for numbers in (shape, entry["data_offsets"])) and len(shape) <= MAX_DIMENSIONS
        )
        whole = whole and all(type(number) is int and 0 <= number <= MAX_SIDE for number in (*shape, start, stop))
    except (TypeError, KeyError, ValueError):
        whole = False
    if not whole:
        raise CheckpointError(
            f"The header of '{path}' describes tensor {shown(name)} without a sound dtype, shape and data_offsets. "
            "The file is damaged; download it again."
        )
    if not is_name(name):
        raise CheckpointError(
            f"The header of '{path}' has a tensor called {shown(name)}: a name must be printable text of at most "
            f"{LONGEST_NAME} characters. Download the file again from a source you trust."
        )
    if not isinstance(dtype, str) or dtype not in _BITS:
        raise CheckpointError(
            f"Tensor {shown(name)} in '{path}' has the unknown dtype {shown(dtype)}. "
            "If the file is newer than this program, update spectrum-snr."
        )
    expected = (math.prod(shape) * _BITS[dtype] + 7) // 8
    if stop - start != expected:
        raise CheckpointError(
            f"Tensor {shown(name)} in '{path}' needs {expected} bytes for shape {shown(list(shape))} in {dtype}, "
            f"but its data_offsets hold {stop - start}. The file is damaged; download it again."
        )
    return Tensor(name, dtype, tuple(shape), shard, data_start + start, data_start + stop)


def _check_ranges(tensors: dict[str, Tensor], data_start: int, file_size: int, path: str) -> None:
    """Every byte of data belongs to exactly one tensor, as the format demands."""
    position = data_start
    for tensor in sorted(tensors.values(), key=lambda tensor: (tensor.start, tensor.stop)):
        if tensor.start != position:
            raise CheckpointError(
                f"Tensor {shown(tensor.name)} in '{path}' starts at byte {tensor.start}, expected {position}: "
                "ranges overlap or leave a hole. The file is damaged; download it again."
            )
        position = tensor.stop
    if position != file_size:
        raise CheckpointError(
            f"'{path}' has {file_size} bytes, but its header describes {position}. "
            "It is truncated or was altered; download it again."
        )
