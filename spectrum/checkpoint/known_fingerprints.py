"""A small file in the user's cache folder that remembers fingerprints: unchanged files are not sampled again."""

import json
import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from spectrum.untrusted import parse_json, read_file

MOST_ENTRIES = 500  # the oldest are dropped
MAX_BYTES = 2**20


def remembered(cache: Path | None, key: str, compute: Callable[[], str]) -> str:
    """The value of a key; computed and remembered if it is not known.

    Args:
        cache: the file; None for one in the user's cache folder. One that cannot be read or written is not used.
        key: changes with everything that the value depends on.
        compute: makes the value.
    """
    known: dict[str, str] = {}
    path = cache
    with suppress(OSError, RuntimeError, ValueError):  # no home folder, no such file, or a damaged one
        path = cache or _default()
        known = _read(path)
    if key in known:
        return known[key]
    value = compute()
    if path is not None:
        with suppress(OSError):
            _write(path, known | {key: value})
    return value


def _default() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser(), "spectrum-snr", "fingerprints.json")


def _read(path: Path) -> dict[str, str]:
    stored = parse_json(read_file(path, most=MAX_BYTES))
    if not isinstance(stored, dict) or not all(isinstance(value, str) for value in stored.values()):
        raise ValueError("it is not a file of ours")
    return stored


def _write(path: Path, known: dict[str, str]) -> None:
    """Replace the file in one step; of two processes that write at once, one forgets what the other found."""
    path.parent.mkdir(parents=True, exist_ok=True)
    newest = dict(list(known.items())[-MOST_ENTRIES:])
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False, encoding="utf-8") as file:
        json.dump(newest, file, indent=0)
    try:
        Path(file.name).replace(path)
    except OSError:
        Path(file.name).unlink(missing_ok=True)
        raise
