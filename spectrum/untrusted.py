"""Reading what others wrote: files of any size or kind, JSON of any depth, text of any length."""

import errno
import json
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from spectrum.errors import SpectrumError, one_line

LONGEST_SHOWN = 100  # characters
SHORT = 8  # entries
MAX_CONFIG_BYTES = 16 * 2**20  # of a config.json; the longest seen, with two maps of 21,000 labels, has 2 MB
LONGEST_NAME = 10_000  # of a tensor or parameter; the longest of transformers have 150 characters


class TwiceError(ValueError):
    """An object of JSON with one name twice: readers differ in which of the two they take."""


def read_file(path: Path, *, most: int) -> bytes:
    """Content of a regular file.

    Args:
        path: of the file; a pipe or a device is refused, not waited for.
        most: bytes that it may have; a sparse file can claim any number.

    Raises:
        OSError: it cannot be read, is not a regular file, or is larger; `strerror` says so.
    """
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    with open(descriptor, "rb") as file:  # noqa: PTH123  of a descriptor
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "It is not a regular file", str(path))
        if status.st_size > most:
            raise OSError(errno.EFBIG, f"It has {status.st_size} bytes, more than the {most} expected", str(path))
        return file.read(most)


def read_text(path: Path, *, most: int) -> str:
    """Content of a regular file in UTF-8.

    Raises:
        OSError: as `read_file`, or it is not UTF-8; `strerror` says so.
    """
    try:
        return read_file(path, most=most).decode()
    except UnicodeDecodeError as error:
        raise OSError(errno.EILSEQ, "It is not text in UTF-8", str(path)) from error


def parse_json(content: bytes | str, **hooks: Any) -> Any:
    """A value of JSON in UTF-8, without a byte-order mark; NaN and Infinity come through as floats.

    Args:
        content: the text, or its bytes.
        **hooks: parse_int, parse_constant and so on of `json.loads`.

    Raises:
        TwiceError: an object has a name twice.
        ValueError: it is not JSON, not UTF-8, or nested too deep.
    """
    try:
        # Given bytes, json.loads guesses: it also takes UTF-16, UTF-32 and a byte-order mark.
        text = content.decode() if isinstance(content, bytes) else content
        return json.loads(text, object_pairs_hook=unique, **hooks)
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON from its entries.

    Raises:
        TwiceError: with the name that occurs twice.
    """
    entries = dict(pairs)
    if len(entries) < len(pairs):
        seen: set[str] = set()
        raise TwiceError(next(name for name, _ in pairs if name in seen or seen.add(name)))  # type: ignore[func-returns-value]
    return entries


def is_name(value: object) -> bool:
    """Whether a value can name a tensor or parameter: text that can be shown, stored and exported.

    Control characters and halves of surrogate pairs are neither printable nor always writable.
    """
    return isinstance(value, str) and value.isprintable() and len(value) <= LONGEST_NAME


def check_word(value: object, words: Sequence[str], *, of: str) -> None:
    """Raise SpectrumError unless a value given from Python is one of the words that an argument takes."""
    if value not in words:
        raise SpectrumError(f"{shown(value)} is not a value of {of}: give one of {', '.join(map(repr, words))}.")


def cut(text: str) -> str:
    """Text of others, on one line and shortened for an error."""
    line = one_line(text)
    return line if len(line) <= LONGEST_SHOWN else f"{line[:LONGEST_SHOWN]}..."


def shown(value: object) -> str:
    """A value quoted for an error, cut where it is long."""
    if isinstance(value, list) and len(value) <= SHORT and not any(isinstance(entry, list | dict) for entry in value):
        return f"[{', '.join(map(shown, value))}]"
    if isinstance(value, list | dict):
        return f"a list of {len(value)}" if isinstance(value, list) else f"an object of {len(value)}"
    if isinstance(value, int) and abs(value) >= 10**LONGEST_SHOWN:
        return "a number of many digits"  # Python refuses to write thousands of them
    text = repr(value[:LONGEST_SHOWN] if isinstance(value, str) else value)
    return text if not isinstance(value, str) or len(value) <= LONGEST_SHOWN else f"{text[:-1]}...{text[-1]}"
