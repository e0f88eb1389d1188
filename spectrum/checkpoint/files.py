"""Which files make up a checkpoint: chosen by index, never by globbing.

A folder may hold the same weights twice (Mistral's `consolidated.safetensors` beside the shards), variants,
adapters; reading every `*.safetensors` would mix them.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from spectrum.checkpoint.headers import PREFIX_BYTES, refuse_placeholder
from spectrum.errors import CheckpointError, one_line
from spectrum.untrusted import MAX_CONFIG_BYTES, TwiceError, parse_json, read_file, shown

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
PICKLED_INDEX = "pytorch_model.bin.index.json"
PICKLED_SINGLE = "pytorch_model.bin"
PREFERENCE = ((SINGLE, INDEX), (PICKLED_SINGLE, PICKLED_INDEX))  # in the order in which transformers looks for them
INDEXES = (INDEX, PICKLED_INDEX)
PICKLED = (".bin", ".pt", ".pth")  # endings of what torch.save wrote
MAX_INDEX_BYTES = 256 * 2**20  # DeepSeek-V3's, of 46,183 tensors, has 9 MB
_PART = re.compile(r"(model|pytorch_model)-\d+-of-\d+\.(safetensors|bin)")
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class CheckpointFiles:
    """The files of one checkpoint on disk.

    Attributes:
        id: 'owner/name' for a snapshot of the Hub cache, else the name of the folder or file.
        revision: commit hash for a snapshot of the Hub cache, else None.
        folder: of the shards.
        shards: their file names, in order of name.
        weight_map: tensor name -> shard, as the index states it; None without an index.
        config: the parsed config.json; None if there is none.
    """

    id: str
    revision: str | None
    folder: Path
    shards: tuple[str, ...]
    weight_map: Mapping[str, str] | None
    config: Mapping[str, Any] | None


def find_files(path: Path) -> CheckpointFiles:
    """Files of the checkpoint at a path: a folder, a Hub cache snapshot or one .safetensors or .bin file.

    In a folder safetensors come first, as in transformers: one file, an index of several, then the same in .bin.

    Raises:
        CheckpointError: nothing there, nothing readable there, or an index that contradicts the folder.
    """
    try:
        if path.is_file():
            return _single_file(path)
        if not path.is_dir():
            raise CheckpointError(
                f"There is no folder '{path}', nor a file of that name. Give a folder with a checkpoint, one "
                ".safetensors or .bin file, or 'owner/name' of a model on the Hub."
            )
        return _folder(path)
    except OSError as error:
        raise CheckpointError(f"'{path}' cannot be read: {error.strerror}.") from error


def _folder(path: Path) -> CheckpointFiles:
    identity, revision = _identity(path)
    config = _read_json_object(path / "config.json", MAX_CONFIG_BYTES) if (path / "config.json").is_file() else None
    for single, index in PREFERENCE:
        if (path / single).is_file():
            check_named(config, single, path)
            return CheckpointFiles(identity, revision, path, (single,), None, config)
        if (path / index).is_file():
            check_named(config, index, path)
            weight_map = _read_index(path / index)
            shards = tuple(sorted(set(weight_map.values())))
            return CheckpointFiles(identity, revision, path, shards, weight_map, config)
    raise CheckpointError(why_nothing(path, [entry.name for entry in path.iterdir()]))


def check_named(config: Mapping[str, Any] | None, chosen: str, folder: Path) -> None:
    """Raise CheckpointError if `transformers_weights` of config.json names another file (transformers 5)."""
    named = (config or {}).get("transformers_weights")
    if isinstance(named, str) and named != chosen:
        raise CheckpointError(
            f"The config.json of '{folder}' has transformers load {shown(named)}, not '{chosen}'. "
            "Give the .safetensors file that it loads by its path."
        )


def _single_file(path: Path) -> CheckpointFiles:
    if not path.name.endswith((".safetensors", *PICKLED)):
        raise CheckpointError(
            f"'{path}' is neither a .safetensors nor a .bin file. Give a folder with a checkpoint, or one such file."
        )
    config = path.parent / "config.json"
    identity, revision = _identity(path.parent)
    return CheckpointFiles(
        id=identity if path.name in (SINGLE, PICKLED_SINGLE) else _text(path.stem),
        revision=revision,
        folder=path.parent,
        shards=(path.name,),
        weight_map=None,
        config=_read_json_object(config, MAX_CONFIG_BYTES) if config.is_file() else None,
    )


def _identity(folder: Path) -> tuple[str, str | None]:
    """Model id and revision: of the Hub where the folder is a snapshot in its cache, else the folder's own name."""
    absolute = folder.resolve()
    if absolute.parent.name == "snapshots" and _COMMIT.fullmatch(absolute.name):
        repository = absolute.parent.parent.name
        if repository.startswith("models--"):
            return repository.removeprefix("models--").replace("--", "/"), absolute.name
    return _text(absolute.name), None


def _text(name: str) -> str:
    """A file name as text to show and store: bytes that are not UTF-8 and control characters become question marks."""
    return one_line(name.encode(errors="replace").decode())


def _read_index(path: Path) -> dict[str, str]:
    # Only regular files: a pipe or a device would block or never end.
    return read_weight_map(
        _read_json_object(path, MAX_INDEX_BYTES), path, exists=lambda shard: (path.parent / shard).is_file()
    )


def read_weight_map(index: Mapping[str, Any], path: Path, *, exists: Callable[[str], bool]) -> dict[str, str]:
    """Tensor name -> shard, from a parsed index.

    Raises:
        CheckpointError: it names none, or shards that are outside the folder or do not exist.
    """
    weight_map = index.get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"'{path}' has no 'weight_map' that names tensors. Download the checkpoint again.")
    for name, shard in weight_map.items():
        _check_shard_name(path, name, shard)
    for shard in sorted(set(weight_map.values())):
        if not exists(shard):
            raise CheckpointError(
                f"The index of '{path.parent}' lists shard {shown(shard)}, which does not exist. "
                "Download the checkpoint again."
            )
    return weight_map


def _check_shard_name(path: Path, name: str, shard: Any) -> None:
    """A shard is a file below the folder: an index from the network must not lead out of it."""
    inside = isinstance(shard, str) and shard and "\\" not in shard and shard.isprintable()
    if not inside or PurePosixPath(shard).is_absolute() or ".." in PurePosixPath(shard).parts:
        raise CheckpointError(
            f"'{path}' names {shown(shard)} as the shard of {shown(name)}, which is not a file inside the folder. "
            "Download the checkpoint again from a source you trust."
        )


def _read_json_object(path: Path, most: int) -> dict[str, Any]:
    try:
        content = read_file(path, most=most)
    except OSError as error:
        raise CheckpointError(f"'{path}' cannot be read: {error.strerror}.") from error
    return parse_json_object(content, path)


def parse_json_object(content: bytes, path: Path) -> dict[str, Any]:
    """An object of JSON.

    Raises:
        CheckpointError: anything else.
    """
    refuse_placeholder(content[:PREFIX_BYTES], str(path))
    try:
        value = parse_json(content)
    except TwiceError as error:
        raise CheckpointError(f"'{path}' lists {shown(str(error))} twice. Download the file again.") from error
    except ValueError as error:
        raise CheckpointError(f"'{path}' is not valid JSON. Download the file again.") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"'{path}' is not a JSON object. Download the file again.")
    return value


def why_nothing(folder: Path, names: Sequence[str]) -> str:
    """What the folder holds instead of a checkpoint, and what to do about it."""
    if not names:
        return f"'{folder}' is empty. Download the checkpoint into it."
    if any(name.endswith(".gguf") for name in names):
        return (
            f"'{folder}' holds only GGUF weights, which are quantised for inference and cannot be trained. "
            "Scan the original safetensors checkpoint instead."
        )
    parts = sorted(name for name in names if _PART.fullmatch(name))
    if parts:
        index = INDEX if parts[0].endswith(".safetensors") else PICKLED_INDEX
        return (
            f"'{folder}' holds shards ({shown(parts[0])}) without '{index}', which says which tensors they hold. "
            "Download the index into the same folder."
        )
    if "adapter_config.json" in names or "adapter_model.safetensors" in names:
        return f"'{folder}' holds an adapter, not a model. Scan its base model, or merge the adapter first."
    if any(name.endswith(PICKLED) for name in names):
        return (
            f"'{folder}' holds pickled weights (.bin, .pt, .pth) under other names than '{PICKLED_SINGLE}'. Give one "
            "by its name, or save the model with save_pretrained(), which writes safetensors."
        )
    return (
        f"'{folder}' has neither '{INDEX}' nor '{SINGLE}'. "
        "Give the folder that holds them, or one .safetensors file by its name."
    )
