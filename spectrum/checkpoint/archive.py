"""The files that torch.save writes: their pickle, and where in the file each storage stands.

Since torch 1.6 an uncompressed zip archive with the records `<name>/data.pkl` and `<name>/data/<key>`; before, and with
`_use_new_zipfile_serialization=False`, five pickles and then each storage behind its number of elements. Of neither is
a byte of a storage read here. Source: `torch/serialization.py` of torch 2.13.
"""

import io
import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from spectrum.checkpoint.pickles import Global, PickleError, read_pickle
from spectrum.checkpoint.torch_names import ALLOWED, STORAGES
from spectrum.untrusted import shown

ZIP_START = b"PK\x03\x04"
_LOCAL_HEADER = struct.Struct("<4s22xHH")  # APPNOTE.TXT 4.3.7: signature, ..., lengths of name and extra field
_MAX_DIRECTORY_BYTES = 32 * 2**20  # 100,000 storages take 10 MB
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C  # torch.serialization.MAGIC_NUMBER
_LEGACY_PROTOCOL = 1001


@dataclass(frozen=True, eq=False, repr=False)
class Storage:
    """Consecutive numbers in the file, by the key that the pickle gives them."""

    key: str
    dtype: str
    element_bytes: int
    numel: int

    @property
    def size_bytes(self) -> int:
        """Bytes in the file."""
        return self.numel * self.element_bytes


@dataclass(frozen=True)
class Archive:
    """A file of torch.save: the object that was saved, read as data, and the first byte of each storage by its key."""

    saved: Any
    starts: dict[str, int]


class ShardFile(io.RawIOBase):
    """A shard as a file, on whatever reads its bytes."""

    def __init__(self, read: Callable[[int, memoryview], None], size_bytes: int) -> None:
        """Take a function that fills a buffer from an offset, and the size of the shard."""
        self._read, self.size_bytes, self._position = read, size_bytes, 0

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a position, not before the beginning."""
        self._position = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.size_bytes}[whence]
        if self._position < 0:
            raise ValueError("a position before the beginning")
        return self._position

    def tell(self) -> int:
        """The position."""
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer as far as the shard goes."""
        count: int = max(0, min(len(buffer), self.size_bytes - self._position))
        if count:
            self._read(self._position, memoryview(buffer).cast("B")[:count])
        self._position += count
        return count


class ArchiveError(Exception):
    """No sound file of torch.save. Its text is the reason and the remedy, for the user."""


def read_archive(file: ShardFile) -> Archive:
    """The pickle of a file, and where its storages stand; every one lies inside the file.

    Args:
        file: its beginning.

    Raises:
        ArchiveError: no file of torch.save, or one that is cut off, altered, or of another kind.
        PickleError: its pickle is malformed.
        ForbiddenError: its pickle names a function or class that no weights need.
    """
    head = file.read(265)
    file.seek(0)
    if head.startswith(ZIP_START):
        return _read_zip(file)
    if head[257:262] == b"ustar":
        raise ArchiveError("is in the tar format of torch before 0.1.10. Load it with that torch and save it again.")
    return _read_legacy(file)


def _read_zip(file: ShardFile) -> Archive:
    entries = _entries(file)
    prefix = next(iter(entries)).partition("/")[0] + "/"
    if f"{prefix}constants.pkl" in entries:
        raise ArchiveError("is a TorchScript archive, a program with its weights. Save the model's state_dict() alone.")
    if f"{prefix}data.pkl" not in entries:
        raise ArchiveError("is a zip archive but none of torch.save. Download the file again.")
    if f"{prefix}byteorder" in entries and _content(file, entries[f"{prefix}byteorder"]) != b"little":
        raise ArchiveError("was saved on a big-endian machine. Load it with torch and save it again.")
    storages: dict[str, Storage] = {}
    pickle = io.BytesIO(_content(file, entries[f"{prefix}data.pkl"]))
    if zlib.crc32(pickle.getbuffer()) != entries[f"{prefix}data.pkl"].CRC:
        raise ArchiveError("has a pickle that does not fit its checksum: it was altered. Download it again.")
    saved = read_pickle(pickle, ALLOWED, lambda identification: _storage(identification, storages))
    starts = {}
    for storage in storages.values():
        entry = entries.get(f"{prefix}data/{storage.key}")
        if entry is None or entry.file_size != storage.size_bytes:
            held = f"{entry.file_size} bytes" if entry else "nothing"
            raise ArchiveError(
                f"should hold {storage.size_bytes} bytes of storage {shown(storage.key)} and holds {held}. "
                "It is truncated or was altered; download it again."
            )
        starts[storage.key] = _start(file, entry)
    return Archive(saved, starts)


def _entries(file: ShardFile) -> dict[str, zipfile.ZipInfo]:
    """The records of the archive, in order."""
    try:
        infos = zipfile.ZipFile(_Sparing(file)).infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError, struct.error, OSError) as error:
        raise ArchiveError("is a zip archive that is cut off or damaged. Download it again.") from error
    entries = {info.filename: info for info in infos}
    if len(entries) < len(infos) or not entries:
        raise ArchiveError("is a zip archive with two records of one name, or none. Download it again.")
    return entries


class _Sparing:
    """A file for the zipfile module, which reads a directory of any announced size at once."""

    def __init__(self, file: ShardFile) -> None:
        self._file = file
        self.seek, self.tell = file.seek, file.tell

    def seekable(self) -> bool:
        return True

    def read(self, count: int = -1) -> bytes:
        data = self._file.read(count if 0 <= count <= _MAX_DIRECTORY_BYTES else _MAX_DIRECTORY_BYTES + 1) or b""
        if len(data) > _MAX_DIRECTORY_BYTES:
            raise ValueError("a directory beyond reason")
        return data


def _start(file: ShardFile, entry: zipfile.ZipInfo) -> int:
    """First byte of an uncompressed record, which lies inside the file."""
    plain = entry.compress_type == zipfile.ZIP_STORED and entry.compress_size == entry.file_size
    if plain and not entry.flag_bits & 1 and 0 <= entry.header_offset < file.size_bytes:
        file.seek(entry.header_offset)
        header = file.read(_LOCAL_HEADER.size) or b""
        if len(header) == _LOCAL_HEADER.size and header.startswith(ZIP_START):
            _, name_bytes, extra_bytes = _LOCAL_HEADER.unpack(header)
            start = entry.header_offset + _LOCAL_HEADER.size + name_bytes + extra_bytes
            if start + entry.file_size <= file.size_bytes:
                return int(start)
    raise ArchiveError(
        f"has the record {shown(entry.filename)} compressed, encrypted or outside of the file, as torch.save never "
        "writes it. Download it again."
    )


def _content(file: ShardFile, entry: zipfile.ZipInfo) -> bytes:
    start = _start(file, entry)
    if entry.file_size > _MAX_DIRECTORY_BYTES * 2:
        raise PickleError(f"it has {entry.file_size} bytes beside the weights")
    file.seek(start)
    return file.read(entry.file_size) or b""


def _read_legacy(file: ShardFile) -> Archive:
    storages: dict[str, Storage] = {}
    buffered = io.BufferedReader(file)
    try:
        magic, protocol, _, saved, keys = (
            read_pickle(buffered, ALLOWED, lambda identification: _storage(identification, storages)) for _ in range(5)
        )
        if (magic, protocol) != (_LEGACY_MAGIC, _LEGACY_PROTOCOL):
            raise PickleError("it does not begin as torch.save begins")
        position = buffered.tell()
    finally:
        buffered.detach()  # or it would close the file
    return Archive(saved, _legacy_starts(file, position, keys, storages))


def _legacy_starts(file: ShardFile, position: int, keys: Any, storages: dict[str, Storage]) -> dict[str, int]:
    """Each storage stands behind its number of elements, in the order of the keys."""
    starts: dict[str, int] = {}
    for key in keys if type(keys) is list else ():
        storage = storages.get(key) if type(key) is str else None
        file.seek(position)
        numel = int.from_bytes(file.read(8) or b"", "little")
        if storage is None or key in starts or numel != storage.numel:
            break
        if position + 8 + storage.size_bytes > file.size_bytes:
            break
        starts[key] = position + 8
        position += 8 + storage.size_bytes
    missing = storages.keys() - starts.keys()
    if missing or position != file.size_bytes:
        raise ArchiveError(
            f"has {file.size_bytes} bytes, which do not hold the {len(storages)} storages that its pickle tells of. "
            "It is truncated or was altered; download it again."
        )
    return starts


def _storage(identification: tuple[Any, ...], storages: dict[str, Storage]) -> Storage:
    """The storage of ('storage', type, key, location, elements), and of the legacy form, which ends in a view or None.

    Raises:
        PickleError: the identification is of another form, or contradicts an earlier one of the same key.
    """
    filled: tuple[Any, ...] = (*identification, *[None] * (5 - len(identification)))
    word, kind, key, _, numel, *views = filled
    known = type(kind) is Global and kind.name in STORAGES
    if word != "storage" or not known or type(key) is not str or type(numel) is not int or numel < 0 or any(views):
        raise PickleError("it identifies a storage in a way that torch.save does not")
    storage = Storage(key, *STORAGES[kind.name], numel)
    first = storages.setdefault(key, storage)
    if (first.dtype, first.numel) != (storage.dtype, storage.numel):
        raise PickleError(f"it tells two things of storage {shown(key)}")
    return first
