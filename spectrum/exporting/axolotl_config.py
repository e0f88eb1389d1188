"""The selection put into an existing Axolotl config, and what there contradicts it mended or told.

What contradicts it, `axolotl_conflicts` finds; its sources stand there. What else chooses modules for LoRA:
utils/schemas/config.py of axolotl 0.19.0, and peft 0.20.0.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from spectrum.errors import SpectrumError
from spectrum.exporting.axolotl_conflicts import ADAPTER, FSDP_1, PLUGIN, REENTRANT, Conflict, find_conflicts
from spectrum.exporting.config_text import (
    Change,
    Config,
    Entry,
    above,
    changed,
    child,
    parse_config,
    replaced,
    with_child,
    without_items,
)
from spectrum.results.scan import Scan
from spectrum.selection import Selection

# Beginnings of the lines of `spectrum.exporting.header`; comments of the user between them are not ours to remove.
HEADER = ("# Spectrum: ", "# model: ", "# trainable: ", "# in the adapted ")
_PLUGIN = "SpectrumPlugin"
_FULL = ("unfrozen_parameters",)
_LORA = (
    "lora_target_modules", "lora_target_parameters", "lora_modules_to_save", "lora_rank_pattern", "lora_alpha_pattern",
)  # fmt: skip
# These choose modules as well, or freeze what the adapters are.
_NOT_BESIDE_LORA = (
    "unfrozen_parameters", "lora_target_linear", "peft_layers_to_transform", "peft_layers_pattern",
    "lora_exclude_modules",
)  # fmt: skip
_ROWS = re.compile(r"\[[0-9]*(:[0-9]*)?\]$")


@dataclass(frozen=True)
class Edited:
    """A config with the selection in it.

    Attributes:
        text: of the file.
        messages: what was mended, and what should be known.
    """

    text: str
    messages: tuple[str, ...]


def put_into_axolotl(text: str, addition: str, selection: Selection, scan: Scan, *, place: str) -> Edited:
    """Put the lines of `to_axolotl` or `to_axolotl_lora` into a config; every other line stays as it is.

    Args:
        text: of the config.
        addition: the lines.
        selection: that they hold.
        scan: that it was chosen from.
        place: what errors call the config.

    Raises:
        SpectrumError: no valid config, or one that contradicts the selection in a way that only its user can decide.
    """
    mark = "\ufeff" if text.startswith("\ufeff") else ""
    config = parse_config(text.removeprefix(mark), place)
    wanted: dict[str, Any] = yaml.safe_load(addition)
    lora = "adapter" in wanted
    _check(config, wanted, place, lora=lora)

    def conflicts(data: dict[str, Any]) -> list[Conflict]:
        rows = any(_ROWS.search(text) for text in wanted.get("unfrozen_parameters", []))
        return find_conflicts(data, model=scan.model, rows=rows, names=selection.names, adapters=lora)

    changes, messages = _mend(config, conflicts(config.data), place)
    block_keys = _LORA if lora else _FULL
    scalars, block = _parts(addition, block_keys, config.newline)
    gone = {
        entry.key for entry in config.entries if any(c.start <= entry.start and entry.end <= c.end for c in changes)
    }
    old = [entry for entry in config.entries if entry.key in block_keys or (lora and entry.key in _NOT_BESIDE_LORA)]
    for entry in old:
        changes.append(Change(above(config, entry, HEADER), entry.end, ""))
    messages += [
        f"'{entry.key}' was removed: it would choose other modules." for entry in old if entry.key not in block_keys
    ]
    messages += _rows_lost(config, wanted)
    missing = []
    for key, line in scalars.items():
        present = config.entry(key)
        if present is None:
            missing.append(line)
        elif config.data[key] != wanted[key] and not (key == "lora_dropout" and "lora_target_parameters" not in wanted):
            changes.append(replaced(present.value, line.partition(": ")[2].rstrip()))
            messages.append(f"'{key}' was {config.data[key]!r} and is now {wanted[key]!r}.")
    homes = [entry for entry in old if entry.key in block_keys]
    changes.append(_placed(config, homes, "".join(missing) + block))
    after = changed(config.text, changes)
    new = _confirm(config, after, wanted, {entry.key for entry in old} | gone, place)
    messages += [f"{left.message} {left.remedy}" for left in conflicts(new.data)]
    return Edited(mark + after, tuple(messages))


def lora_settings(text: str, place: str) -> tuple[int | None, int | None]:
    """lora_r and lora_alpha of a config, where it has them.

    Raises:
        SpectrumError: no valid config.
    """
    data = parse_config(text.removeprefix("\ufeff"), place).data
    rank, alpha = data.get("lora_r"), data.get("lora_alpha")
    return (rank if _is_positive(rank) else None), (alpha if _is_positive(alpha) else None)


def _is_positive(number: object) -> bool:
    return isinstance(number, int) and not isinstance(number, bool) and number > 0


def _parts(addition: str, block_keys: Sequence[str], newline: str) -> tuple[dict[str, str], str]:
    """Lines that may stand anywhere, by key, and the block of the others behind its header."""
    scalars, block = {}, []
    for line in addition.splitlines():
        key = line.partition(":")[0]
        if line[0] not in "#- " and key not in block_keys:
            scalars[key] = line + newline
        else:
            block.append(line + newline)
    return scalars, "".join(block)


def _placed(config: Config, homes: Sequence[Entry], block: str) -> Change:
    """The block where the first of its keys stood, else at the end of the file."""
    if homes:
        start = above(config, homes[0], HEADER)
        return Change(start, start, block)
    end = len(config.text)
    return Change(end, end, block if config.text.endswith("\n") else config.newline + block)


def _check(config: Config, wanted: dict[str, Any], place: str, *, lora: bool) -> None:
    data = config.data
    if not isinstance(data.get("base_model"), str):
        raise SpectrumError(f"'{place}' has no base_model, so it is no Axolotl config. It was left as it is.")
    merged = next((key for key in (*_LORA, *_FULL, *wanted) if key in data and config.entry(key) is None), None)
    if merged:
        raise SpectrumError(f"'{place}' takes '{merged}' from an anchor. Write it out first. It was left as it is.")
    if data.get("adapter") == "qlora" and lora and wanted["adapter"] != "qlora":
        raise SpectrumError(f"'{place}' has adapter: qlora. Pass --qlora as well. The file was left as it is.")


def _mend(config: Config, found: Sequence[Conflict], place: str) -> tuple[list[Change], list[str]]:
    """What can be mended, and the messages that say so.

    Raises:
        SpectrumError: what would leave nothing trained, or a training that does not start.
    """
    menders: dict[str, Callable[[Config, str], tuple[list[Change], str] | None]] = {
        ADAPTER: _adapter, PLUGIN: _plugin, REENTRANT: _reentrant, FSDP_1: _fsdp,
    }  # fmt: skip
    mended = [menders[conflict.code](config, place) for conflict in found if conflict.code in menders]
    done = [each for each in mended if each is not None]
    return [change for changes, _ in done for change in changes], [message for _, message in done]


def _adapter(config: Config, place: str) -> None:
    raise SpectrumError(
        f"'{place}' trains an adapter ('{config.data['adapter']}'), and unfrozen_parameters would freeze it. Remove "
        "the adapter, or pass --format axolotl-lora. The file was left as it is."
    )


def _plugin(config: Config, _place: str) -> tuple[list[Change], str] | None:
    entry = config.entry("plugins")
    if entry is None or not isinstance(entry.value, yaml.SequenceNode):
        return None
    found = [item for item in entry.value.value if isinstance(item.value, str) and _PLUGIN in item.value]
    settings = [other for other in config.entries if other.key.startswith("spectrum_")]
    gone = [Change(other.start, other.end, "") for other in settings]
    what = "".join(f" and '{other.key}'" for other in settings)
    message = f"'{found[0].value}'{what} were removed: the plugin would replace the selection by one of its own."
    return [*without_items(config, entry, found), *gone], message


def _reentrant(config: Config, _place: str) -> tuple[list[Change], str] | None:
    entry = config.entry("gradient_checkpointing_kwargs")
    node = child(entry.value, "use_reentrant") if entry else None
    if node is None:
        return None
    message = "'gradient_checkpointing_kwargs.use_reentrant' is now false: Axolotl refuses it with frozen parameters."
    return [replaced(node, "false")], message


def _fsdp(config: Config, place: str) -> tuple[list[Change], str]:
    """The first FSDP flattens parameters together, which it cannot where only some of them are trained."""
    entry = config.entry("fsdp_config")
    if entry is None or not isinstance(entry.value, yaml.MappingNode):
        raise SpectrumError(
            f"'{place}' trains with FSDP, and frozen parameters need 'use_orig_params: true' in its fsdp_config. "
            "Add it. The file was left as it is."
        )
    settings = config.data["fsdp_config"] or {}
    keys = [key for key in ("use_orig_params", "fsdp_use_orig_params") if key in settings]
    node = child(entry.value, keys[0]) if keys else None
    prefixed = any(str(key).startswith("fsdp_") and key != "fsdp_version" for key in settings)
    line = f"{'fsdp_' if prefixed else ''}use_orig_params: true"
    change = replaced(node, "true") if node is not None else with_child(entry.value, line, config.newline)
    return [change], "'fsdp_config.use_orig_params' is now true: FSDP 1 cannot train some parameters only without it."


def _rows_lost(config: Config, wanted: dict[str, Any]) -> list[str]:
    before = config.data.get("unfrozen_parameters")
    rows = [text for text in before if isinstance(text, str) and _ROWS.search(text)] if isinstance(before, list) else []
    lost = [text for text in rows if text not in wanted.get("unfrozen_parameters", [])]
    return [f"'{lost[0]}' trained some rows only; it was replaced like the other unfrozen_parameters."] if lost else []


def _confirm(config: Config, after: str, wanted: dict[str, Any], removed: set[str], place: str) -> Config:
    """The new text read back: what was put in is there, and what was not touched stands as it stood."""
    refused = SpectrumError(
        f"'{place}' is written in a way that the selection cannot be put into (anchors, or a layout of its own). "
        "Paste the lines instead. It was left as it is."
    )
    try:
        new = parse_config(after, place)
    except SpectrumError as error:
        raise refused from error
    same = all(new.data.get(key) == value for key, value in wanted.items() if key != "lora_dropout")
    lost = [entry for entry in config.entries if entry.key not in removed and new.entry(entry.key) is None]
    extra = [key for key in removed if key in new.data and key not in wanted]
    if not same or lost or extra:
        raise refused
    return new
