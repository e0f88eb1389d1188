"""Files of torch.save (.bin, .pt, .pth) on disk, loaded by `torch.load(weights_only=True, mmap=True)`.

The pickle runs in torch's restricted unpickler, so nothing in the file is executed; the weights stay in the file until
they are read. Files of torch before 1.6, which are not zip archives, are loaded whole.
"""

import re
import warnings
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spectrum.checkpoint.disk import LARGEST_AHEAD_BYTES, blobs, shortened, states
from spectrum.checkpoint.headers import MAX_DIMENSIONS, refuse_placeholder
from spectrum.checkpoint.tensors import TORCH_NAMES, Tensor
from spectrum.errors import CheckpointError
from spectrum.untrusted import LONGEST_NAME, is_name, shown

if TYPE_CHECKING:
    import torch

_GLOBAL = re.compile(r"GLOBAL ([\w.]+)")  # how torch names a function or class that it refuses
ZIP_START = b"PK\x03\x04"

_SAFETENSORS_NAMES = {torch_name: name for name, torch_name in TORCH_NAMES.items()}


class PickledSource:
    """Files of torch.save; see `Source`. The tensors of a shard are numbered as if they followed each other."""

    remote = False
    concurrent_reads = 1
    largest_ahead: int | None = LARGEST_AHEAD_BYTES

    def __init__(self, folder: Path, shards: Sequence[str]) -> None:
        """Nothing is opened yet."""
        self._folder, self._shards = folder, shards
        self._loaded: dict[str, list[torch.Tensor]] = {}
        self._starts: dict[str, list[int]] = {}
        self._states: dict[str, tuple[str, int, int]] = {}

    def tensors(self, shard: str) -> dict[str, Tensor]:
        """Load a shard; entries that are not tensors are left out, as transformers leaves them out."""
        path = self._folder / shard
        loaded = _load(path)
        self._states[shard] = states(self._folder, [shard])[0]
        self._loaded[shard], self._starts[shard] = list(loaded.values()), []
        described, start = {}, 0
        for name, tensor in loaded.items():
            size = tensor.numel() * tensor.element_size()
            described[name] = Tensor(name, _dtype(tensor), tuple(tensor.shape), shard, start, start + size)
            self._starts[shard].append(start)
            start += size
        return described

    def read(self, shard: str, offset: int, buffer: memoryview) -> None:
        """Fill a buffer from the bytes of one tensor, in order of its rows, whatever its strides in the file are."""
        import torch  # noqa: PLC0415

        if not len(buffer):
            return
        state = states(self._folder, [shard])[0]
        if state[1] < self._states[shard][1]:  # touching a mapped page that is gone would end the process
            raise shortened(self._folder / shard, state[1])
        index = bisect_right(self._starts[shard], offset) - 1
        tensor = self._loaded[shard][index].detach()
        rows = tensor.reshape(1) if tensor.ndim == 0 else tensor
        row_bytes = rows[0].numel() * rows.element_size()
        first, skipped = divmod(offset - self._starts[shard][index], row_bytes)
        last = first + -(-(skipped + len(buffer)) // row_bytes)
        stored = rows[first:last].resolve_conj().resolve_neg().contiguous().reshape(-1).view(torch.uint8)
        torch.frombuffer(buffer, dtype=torch.uint8).copy_(stored[skipped : skipped + len(buffer)])

    def states(self) -> list[tuple[str, int, int]]:
        """(shard, size in bytes, time of the last change in ns)."""
        return states(self._folder, self._shards)

    def blobs(self) -> list[str] | None:
        """Names of the blobs in the Hub's cache that the shards link to; None if one is not such a link."""
        return blobs(self._folder, self._shards)

    def close(self) -> None:
        """Drop the memory maps."""
        self._loaded = {}


def _load(path: Path) -> dict[str, "torch.Tensor"]:
    import torch  # noqa: PLC0415

    try:
        with path.open("rb") as file:
            head = file.read(512)
    except OSError as error:
        raise CheckpointError(f"'{path}' cannot be opened: {error.strerror}.") from error
    refuse_placeholder(head, str(path))
    saved = _unpickle(path, mapped=head.startswith(ZIP_START))
    if not isinstance(saved, Mapping):
        raise CheckpointError(f"'{path}' does not hold a state dict. Save the model's state_dict(), as safetensors.")
    for key, value in saved.items():
        if isinstance(value, Mapping) and any(isinstance(entry, torch.Tensor) for entry in value.values()):
            raise CheckpointError(
                f"'{path}' holds its tensors under the entry {shown(key)}, which transformers does not read. "
                "Save the content of that entry alone, preferably as safetensors."
            )
    tensors = {name: value for name, value in saved.items() if isinstance(value, torch.Tensor)}
    for name, tensor in tensors.items():
        _check(name, tensor, path)
    return tensors


def _unpickle(path: Path, *, mapped: bool) -> Any:
    """The saved object, from torch's restricted unpickler."""
    import torch  # noqa: PLC0415

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's, about deprecated storages
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except MemoryError:
        raise
    # A damaged file makes torch's readers raise almost any exception, from struct.error to AttributeError.
    except Exception as error:
        if asked := _GLOBAL.search(str(error)):
            raise CheckpointError(
                f"'{path}' asks for {shown(asked[1])} when it is loaded, which weights do not need; it was not "
                "executed. Scan the model's safetensors release, or save the state_dict() of one that you trust."
            ) from error
        raise CheckpointError(
            f"'{path}' is damaged or not a file of torch.save: torch.load(weights_only=True) refuses it. "
            "Download it again, or scan the model's safetensors release."
        ) from error


def _check(name: Any, tensor: "torch.Tensor", path: Path) -> None:
    """Raise CheckpointError for a tensor that cannot be read as rows of plain numbers."""
    import torch  # noqa: PLC0415

    if not is_name(name):
        raise CheckpointError(
            f"'{path}' has a tensor called {shown(name)}: a name must be printable text of at most {LONGEST_NAME} "
            "characters. Download the file again from a source you trust."
        )
    dense = tensor.layout == torch.strided and tensor.device.type == "cpu" and not tensor.is_quantized
    if not dense or tensor.is_nested or tensor.ndim > MAX_DIMENSIONS or _dtype(tensor) not in TORCH_NAMES:
        raise CheckpointError(
            f"'{path}' holds {shown(name)} as a tensor that is quantised, sparse, nested or without data, which is not "
            "read. Scan the unquantised base model instead."
        )
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise CheckpointError(
            f"'{path}' holds {shown(name)} with several entries in one place, as expand() makes them. Save its "
            "contiguous(), better as safetensors."
        )


def _dtype(tensor: "torch.Tensor") -> str:
    name = str(tensor.dtype).removeprefix("torch.")
    return _SAFETENSORS_NAMES.get(name, name)
