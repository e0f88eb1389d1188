"""The partial file: one line per finished matrix, so that a scan that was stopped carries on where it was.

`<model>.partial.jsonl` begins with a line that says what it belongs to. Every further line is one matrix with its
spectrum, in base64 of little-endian float64: exactly the numbers that an unbroken scan would have kept. The line has
the CRC-32 of the rest, because a flipped bit would give a wrong score that looks like a right one.
"""

import base64
import errno
import io
import json
import os
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from spectrum.errors import SpectrumError
from spectrum.results.scan import Model, Settings
from spectrum.results.spectra import Spectra, is_spectrum
from spectrum.spectra.snr import Array
from spectrum.untrusted import is_name, parse_json, read_file

FORMAT = "spectrum-partial"
VERSION = 3
MAX_BYTES = 4 * 2**30  # the spectra of a model of 10^12 weights in float64 take 1 GB


class PartialScan:
    """An open partial file. Close it, or use it in a `with` statement.

    Attributes:
        path: of the file.
        spectra: of the matrices that were finished before.
        set_aside: where a partial file of another scan was moved to; None if there was none.

    Raises:
        SpectrumError: the file cannot be written to.
    """

    def __init__(self, path: Path, model: Model, settings: Settings, *, files: Sequence[object] = ()) -> None:
        """Open the file for appending; take over its spectra if they are of the same weights and made the same way.

        Args:
            path: of the partial file.
            model: what is scanned.
            settings: how.
            files: states of the checkpoint's files; if they differ, weights may have been edited in between.
        """
        self.path = path
        self.spectra = Spectra(algorithm=settings.algorithm, precision=settings.precision)
        self.set_aside: Path | None = None
        header = json.dumps(_identity(model, settings) | {"files": list(files)}, sort_keys=True)
        try:
            end = self._load(header)
            self._file = io.FileIO(path, "r+" if end else "w")  # without a buffer that closing would try to write
            self._file.truncate(end)  # a line that was being written when the scan was killed
            self._file.seek(end)
            if not end:
                self._write(header)
        except OSError as error:
            raise self._unwritable(error) from error

    def append(self, key: str, spectrum: Array, *, redone: str | None) -> None:
        """Add a finished matrix; it is handed to the operating system before this returns.

        Raises:
            SpectrumError: the disk is full.
        """
        values = base64.b64encode(spectrum.astype("<f8").tobytes()).decode()
        entry: dict[str, Any] = {"key": key, "values": values} | ({"redone": redone} if redone else {})
        entry["crc"] = _checksum(entry)
        try:
            self._write(json.dumps(entry, sort_keys=True))
        except OSError as error:
            raise self._unwritable(error) from error

    def add_to(self, spectra: Spectra, shapes: Mapping[str, tuple[int, int]]) -> None:
        """Add what was finished before, except for spectra of another length than their matrices' shapes give."""
        for key, values in self.spectra.values.items():
            if key not in shapes or len(values) == min(shapes[key]):
                spectra.add(key, values, self.spectra.redone.get(key))

    def close(self) -> None:
        """Close the file and leave it where it is."""
        self._file.close()

    def remove(self) -> None:
        """Close and delete the file: the scan is finished."""
        self._file.close()
        self.path.unlink(missing_ok=True)

    def __enter__(self) -> "PartialScan":  # noqa: PYI034  typing.Self is not in Python 3.10
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _load(self, header: str) -> int:
        """Take over the finished matrices; returns where the last valid line ends, 0 to begin anew."""
        try:
            content = read_file(self.path, most=MAX_BYTES)
        except FileNotFoundError:
            return 0
        first, newline, rest = content.partition(b"\n")
        if not newline:
            return 0
        if first.decode(errors="replace") != header:
            self.set_aside = self.path.with_name(f"{self.path.name}.old")
            self.path.replace(self.set_aside)
            return 0
        end = len(first) + 1
        for line in rest.splitlines(keepends=True):
            if not line.endswith(b"\n") or not self._take(line):
                break
            end += len(line)
        return end

    def _take(self, line: bytes) -> bool:
        """Whether a line is a valid entry; if so it is taken over."""
        try:
            entry = parse_json(line)
            if entry.pop("crc") != _checksum(entry):
                return False
            values = np.frombuffer(base64.b64decode(entry["values"], validate=True), dtype="<f8").astype(np.float64)
            if not (is_spectrum(values) and is_name(entry.get("redone", ""))):
                return False
            self.spectra.add(str(entry["key"]), values, entry.get("redone"))  # the last line of a matrix counts
        except (ValueError, TypeError, KeyError, AttributeError):
            return False
        return True

    def _write(self, line: str) -> None:
        data = line.encode() + b"\n"
        if self._file.write(data) != len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _unwritable(self, error: OSError) -> SpectrumError:
        return SpectrumError(
            f"'{self.path}' cannot be written: {error.strerror or error}. Make room or choose another folder with "
            "--out; the same command then carries on where it stopped."
        )


def _checksum(entry: dict[str, Any]) -> int:
    return zlib.crc32(json.dumps(entry, sort_keys=True).encode())


def _identity(model: Model, settings: Settings) -> dict[str, Any]:
    """What must be the same for spectra to be taken over: neither scope, nor device, nor version of the program."""
    return {
        "format": FORMAT,
        "version": VERSION,
        "model": {"id": model.id, "fingerprint": asdict(model.fingerprint) if model.fingerprint else None},
        "scan": {"algorithm": settings.algorithm, "precision": settings.precision},
    }
