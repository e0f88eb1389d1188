"""The tensors of a file that torch.save wrote, as a safetensors header would describe them."""

from collections.abc import Sequence
from typing import Any

from spectrum.checkpoint.archive import Archive, ArchiveError, ShardFile, Storage, read_archive
from spectrum.checkpoint.headers import MAX_DIMENSIONS, MAX_SIDE
from spectrum.checkpoint.pickles import Call, ForbiddenError, Global, PickleError
from spectrum.checkpoint.tensors import Tensor
from spectrum.checkpoint.torch_names import DTYPES
from spectrum.errors import CheckpointError, one_line
from spectrum.untrusted import LONGEST_NAME, is_name, shown

_DENSE = {f"torch._utils._rebuild_tensor{version}" for version in ("", "_v2", "_v3")}
_WRAPPED = {"torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state"}
_TYPED = "torch._tensor._rebuild_from_type_v2"
_DEEPEST = 8  # wrappers around one tensor


def read_state_dict(file: ShardFile, *, shard: str, path: str) -> dict[str, Tensor]:
    """The tensors of a pytorch_model.bin or a shard of one. No weight is read, and nothing in the file is executed.

    Entries that are no tensors are left out, as transformers leaves them.

    Args:
        file: the shard.
        shard: file name to record in each tensor.
        path: what errors call the file.

    Raises:
        CheckpointError: no sound file of torch.save, one that asks for code to be run, one that holds something else
            than a state dict, or tensors that are not read.
    """
    try:
        archive = read_archive(file)
        return {name: _tensor(name, call, archive, shard) for name, call in _tensors(archive.saved).items()}
    except ForbiddenError as error:
        raise CheckpointError(
            f"'{path}' asks for '{one_line(str(error))}' when it is loaded, which no weights need and which was not "
            "run. Scan the model's safetensors release, or save the state_dict() of one that you trust."
        ) from error
    except PickleError as error:
        raise CheckpointError(f"The pickle in '{path}' is not read: {error}. Download the file again.") from error
    except ArchiveError as error:
        raise CheckpointError(f"'{path}' {error}") from error


def _tensors(saved: Any) -> dict[str, Call]:
    if type(saved) is not dict:
        raise ArchiveError("holds no state dict. Save the model's state_dict(), better as safetensors.")
    nested = next((key for key, value in saved.items() if type(value) is dict and _has_tensors(value)), None)
    if nested is not None:
        raise ArchiveError(
            f"holds its tensors under the entry {shown(nested)}, where transformers does not find them either. Save "
            "what stands under that entry alone, better as safetensors."
        )
    return {_checked(name): value for name, value in saved.items() if _is_tensor(value)}


def _has_tensors(value: dict[Any, Any]) -> bool:
    return any(_is_tensor(entry) for entry in value.values())


def _is_tensor(value: Any) -> bool:
    return type(value) is Call and value.function.startswith(("torch._utils._rebuild_", "torch._tensor._rebuild_"))


def _checked(name: Any) -> str:
    if not is_name(name):
        raise ArchiveError(
            f"has a tensor called {shown(name)}: a number, or a name with control characters or of more than "
            f"{LONGEST_NAME}, is no parameter's. Download the file again from a source you trust."
        )
    return str(name)


def _tensor(name: str, call: Call, archive: Archive, shard: str) -> Tensor:
    for _ in range(_DEEPEST):
        if call.function in _WRAPPED:
            call = _call(call.arguments[0] if call.arguments else None)
        elif call.function == _TYPED and len(call.arguments) > 2:
            function, _kind, arguments, *_state = call.arguments
            call = _call(Call(function.name, arguments) if type(function) is Global else None)
    if call.function not in _DENSE:
        raise ArchiveError(
            f"holds {shown(name)} as a tensor that is quantised, sparse, nested or on no device "
            f"({call.function.rpartition('.')[2]}), which is not read. Scan the unquantised base model instead."
        )
    return _dense(name, call, archive, shard)


def _call(value: Any) -> Call:
    if type(value) is not Call or type(value.arguments) is not tuple:
        raise PickleError("it rebuilds a tensor from something else")
    return value


def _dense(name: str, call: Call, archive: Archive, shard: str) -> Tensor:
    if len(call.arguments) < 4:
        raise PickleError(f"it rebuilds {shown(name)} from too little")
    storage, offset, shape, strides, *others = call.arguments
    shape, strides = _plain(shape), _plain(strides)
    if (
        type(storage) is not Storage
        or not _whole([offset], shape, strides)
        or len(shape) != len(strides)
        or len(shape) > MAX_DIMENSIONS
    ):
        raise PickleError(f"it gives {shown(name)} no sound storage, shape and strides")
    dtype, size = _dtype(name, storage, others if call.function.endswith("_v3") else [])
    flags = others[3:4] if call.function.endswith("_v3") else others[2:3]
    if any(flags):
        raise ArchiveError(
            f"holds {shown(name)} negated or conjugated by a flag. Save its clone(), better as safetensors."
        )
    length = _extent(shape, strides) * size
    if offset * size + length > storage.size_bytes:
        raise ArchiveError(
            f"holds {shown(name)} of shape {list(shape)} in {dtype} in a storage of {storage.size_bytes} bytes, which "
            "is too small. It was altered; download it again."
        )
    start = archive.starts[storage.key] + offset * size
    return Tensor(name, dtype, shape, shard, start, start + length, strides=_order(name, shape, strides))


def _plain(value: Any) -> Any:
    """A shape, which is a tuple or the Size of one."""
    return value.arguments[0] if type(value) is Call and value.function == "torch.Size" and value.arguments else value


def _whole(*groups: Any) -> bool:
    return all(
        type(group) in (tuple, list) and all(type(each) is int and 0 <= each <= MAX_SIDE for each in group)
        for group in groups
    )


def _dtype(name: str, storage: Storage, others: Sequence[Any]) -> tuple[str, int]:
    """The dtype and bytes per element: of the storage, or as `_rebuild_tensor_v3` is told."""
    if len(others) > 2:
        told = others[2]
        if type(told) is not Global or told.name not in DTYPES:
            raise PickleError(f"it gives {shown(name)} no dtype")
        return DTYPES[told.name]
    return storage.dtype, storage.element_bytes


def _extent(shape: Sequence[int], strides: Sequence[int]) -> int:
    """Elements from the first to the last one that belongs to the tensor, in the order of the file."""
    if 0 in shape:
        return 0
    return 1 + sum((side - 1) * stride for side, stride in zip(shape, strides, strict=True))


def _order(name: str, shape: Sequence[int], strides: Sequence[int]) -> tuple[int, ...] | None:
    """The strides, or None where the entries stand one after the other.

    Raises:
        ArchiveError: entries that share a place, as expand() makes them: of few bytes there could be any number.
    """
    if 0 in shape or _follow_on(shape, strides):
        return None
    axes = sorted((stride, side) for side, stride in zip(shape, strides, strict=True) if side > 1)
    reach = 1
    for stride, side in axes:
        if stride < reach:
            raise ArchiveError(
                f"holds {shown(name)} with several entries in one place, as expand() makes them. Save its "
                "contiguous(), better as safetensors."
            )
        reach += stride * (side - 1)
    return tuple(strides)


def _follow_on(shape: Sequence[int], strides: Sequence[int]) -> bool:
    """Whether the entries stand one after the other."""
    expected = 1
    for side, stride in zip(reversed(shape), reversed(strides), strict=True):
        if side > 1 and stride != expected:
            return False
        expected *= side
    return True
