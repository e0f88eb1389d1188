"""Put a selection into an existing Axolotl config, and mend or report the settings that contradict it.

Source of the keys that choose modules for LoRA: utils/schemas/config.py of axolotl 0.19.0, and peft 0.20.0.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import yaml

from spectrum.errors import SpectrumError
from spectrum.exporting.axolotl import ROWS
from spectrum.exporting.axolotl_conflicts import (
    ADAPTER,
    FSDP_1,
    MODEL_CLASS,
    PLUGIN,
    REENTRANT,
    Conflict,
    find_conflicts,
)
from spectrum.exporting.config_edits import Change, above, changed, child, replaced, with_child, without_items
from spectrum.exporting.config_text import Config, ConfigError, Entry, parse_config, read_config_text
from spectrum.results.scan import Scan
from spectrum.results.writer import check_writable
from spectrum.selection import Selection

# Beginnings of the lines of `spectrum.exporting.header`, those of 0.1.0 included; comments of the user stay.
HEADER = (
    "# Spectrum: ", "# options: ", "# model: ", "# trainable params: ", "# weights in the adapted ",
    "# in the adapted ", "# trainable: ",
)  # fmt: skip
_PLUGIN = "SpectrumPlugin"
_Mender = Callable[[Config, str], tuple[list[Change], str] | None]
_FULL = ("unfrozen_parameters",)
_LORA_SCALARS = ("adapter", "lora_r", "lora_alpha", "lora_dropout")
_LORA = (
    "lora_target_modules", "lora_target_parameters", "lora_modules_to_save", "lora_rank_pattern", "lora_alpha_pattern",
)  # fmt: skip
# These choose modules as well, or freeze the adapters.
_NOT_BESIDE_LORA = (
    "unfrozen_parameters", "lora_target_linear", "peft_layers_to_transform", "peft_layers_pattern",
    "lora_exclude_modules",
)  # fmt: skip
# Mended in part, or kept as the user set it.
_MAY_DIFFER = ("plugins", "gradient_checkpointing_kwargs", "fsdp_config", "lora_dropout")


@dataclass(frozen=True)
class Edited:
    """A config with the selection in it, what was changed besides, and what the user should know."""

    text: str
    messages: tuple[str, ...]


def validate_target(path: Path, *, adapters: bool = False, four_bit: bool = False) -> None:
    """Refuse, before anything is scanned, a config that no selection could be put into.

    Args:
        path: of the config.
        adapters: whether LoRA adapters will train the selection.
        four_bit: whether the weights beside the adapters are in 4 bit.

    Raises:
        SpectrumError: it cannot be read or replaced, is not an Axolotl config, or has a setting that only its user
            can change.
    """
    if not path.exists():
        raise SpectrumError(
            f"'{path}' cannot be read: there is no such file. Give the config that Axolotl is started with."
        )
    text = read_config_text(path)
    check_writable(path)
    config = _editable(text, str(path))
    wanted = {**dict.fromkeys(_LORA_SCALARS), "adapter": "qlora" if four_bit else "lora"} if adapters else {}
    _check(config, wanted, str(path))
    _mend(config, find_conflicts(config.data, adapters=adapters), str(path))


def put_into_axolotl(text: str, addition: str, selection: Selection, scan: Scan, *, place: str) -> Edited:
    """Put the lines of `to_axolotl` or `to_axolotl_lora` into a config; every other line stays as it is.

    Args:
        text: of the config.
        addition: the lines of the selection.
        selection: what to train.
        scan: from which it was chosen.
        place: what errors call the config.

    Raises:
        SpectrumError: not a valid config, or one with a contradiction that only its user can resolve.
    """
    config = _editable(text, place)
    wanted: dict[str, Any] = yaml.safe_load(addition)
    lora = "adapter" in wanted
    _check(config, wanted, place)

    def conflicts(data: Mapping[str, Any]) -> list[Conflict]:
        rows = any(ROWS.match(text) for text in wanted.get("unfrozen_parameters", []))
        return find_conflicts(data, model=scan.model, rows=rows, names=selection.names, adapters=lora)

    changes, messages = _mend(config, conflicts(config.data), place)
    gone = {change.start for change in changes if not change.text}
    removed = {entry.key for entry in config.entries if entry.start in gone}
    block_keys = _LORA if lora else _FULL
    old = [entry for entry in config.entries if entry.key in block_keys or (lora and entry.key in _NOT_BESIDE_LORA)]
    changes += [Change(above(config, entry, HEADER), entry.end, "") for entry in old]
    messages += [
        f"'{entry.key}' was removed: it would choose other modules." for entry in old if entry.key not in block_keys
    ]
    scalars, block = _parts(addition, block_keys, config.newline)
    for entry in config.entries:
        line = scalars.pop(entry.key, None)
        kept = entry.key == "lora_dropout" and "lora_target_parameters" not in wanted
        if line is not None and config.data[entry.key] != wanted[entry.key] and not kept:
            changes.append(replaced(entry.value, line.partition(": ")[2].rstrip()))
            messages.append(f"'{entry.key}' was {config.data[entry.key]!r} and is now {wanted[entry.key]!r}.")
    homes = [entry for entry in old if entry.key in block_keys]
    changes.append(_placed(config, homes, "".join(scalars.values()) + block))
    after = changed(config.text, changes)
    new = _confirm(config, after, wanted, {entry.key for entry in old} | removed, place)
    messages += [f"{left.message} {left.remedy}" for left in conflicts(new.data)]
    return Edited(config.mark + after, tuple(messages))


def lora_settings(text: str, place: str) -> tuple[int | None, int | None]:
    """lora_r and lora_alpha of a config; None if it has none.

    Raises:
        SpectrumError: not a valid config.
    """
    data = _editable(text, place).data
    return _positive(data.get("lora_r")), _positive(data.get("lora_alpha"))


def _editable(text: str, place: str) -> Config:
    """A config, or an error that says that the file was left as it is."""
    try:
        return parse_config(text, place)
    except ConfigError as error:
        where = f" See line {error.line}." if error.line else ""
        raise SpectrumError(f"{error}{where} It was left as it is.") from error


def _refuse(place: str, reason: str) -> NoReturn:
    raise SpectrumError(f"'{place}' {reason}. It was left as it is.")


def _positive(number: object) -> int | None:
    return number if isinstance(number, int) and not isinstance(number, bool) and number > 0 else None


def _parts(addition: str, block_keys: Sequence[str], newline: str) -> tuple[dict[str, str], str]:
    """Lines that may go anywhere, by key, and the block of the others below its header."""
    scalars, block = {}, []
    for line in addition.splitlines():
        key = line.partition(":")[0]
        if line[0] not in "#- " and key not in block_keys:
            scalars[key] = line + newline
        else:
            block.append(line + newline)
    return scalars, "".join(block)


def _placed(config: Config, homes: Sequence[Entry], block: str) -> Change:
    """The block in place of the first of its keys, else at the end of the file."""
    if homes:
        start = above(config, homes[0], HEADER)
        return Change(start, start, block)
    end = len(config.text)
    return Change(end, end, block if config.text.endswith("\n") else config.newline + block)


def _check(config: Config, wanted: Mapping[str, Any], place: str) -> None:
    data = config.data
    if not isinstance(data.get("base_model"), str):
        _refuse(place, "has no base_model, so it is not an Axolotl config")
    merged = next((key for key in (*_LORA, *_FULL, *wanted) if key in data and config.entry(key) is None), None)
    if merged:
        _refuse(place, f"takes '{merged}' from an anchor. Write it out first")
    if data.get("adapter") == "qlora" and wanted.get("adapter") == "lora":
        _refuse(place, "has adapter: qlora. Pass --qlora as well")


def _mend(config: Config, found: Sequence[Conflict], place: str) -> tuple[list[Change], list[str]]:
    """The changes that settle conflicts, and the messages that say so.

    Raises:
        SpectrumError: a conflict that would leave nothing trained, or a training that does not start.
    """
    codes = {conflict.code: conflict for conflict in found}
    if (other := codes.get(MODEL_CLASS)) is not None:
        _refuse(place, f"would train another model: {other.message} {other.remedy.removesuffix('.')}")
    if ADAPTER in codes:
        which = f"trains an adapter ('{config.data['adapter']}'), and unfrozen_parameters would freeze it"
        _refuse(place, f"{which}. Remove the adapter, or pass --format axolotl-lora")
    menders: dict[str, _Mender] = {PLUGIN: _plugin, REENTRANT: _reentrant, FSDP_1: _fsdp}
    done = [mended for code in codes if code in menders and (mended := menders[code](config, place))]
    return [change for changes, _ in done for change in changes], [message for _, message in done]


def _plugin(config: Config, _place: str) -> tuple[list[Change], str] | None:
    entry = config.entry("plugins")
    if entry is None or not isinstance(entry.value, yaml.SequenceNode):
        return None
    found = [item for item in entry.value.value if isinstance(item.value, str) and _PLUGIN in item.value]
    settings = [other for other in config.entries if other.key.startswith("spectrum_")]
    gone = [Change(other.start, other.end, "") for other in settings]
    what = "".join(f" and '{other.key}'" for other in settings)
    message = f"Removed '{found[0].value}'{what}: the plugin would replace this selection by its own."
    return [*without_items(config, entry, found), *gone], message


def _reentrant(config: Config, _place: str) -> tuple[list[Change], str] | None:
    entry = config.entry("gradient_checkpointing_kwargs")
    node = child(entry.value, "use_reentrant") if entry else None
    if node is None:
        return None
    message = "'gradient_checkpointing_kwargs.use_reentrant' is now false: Axolotl refuses it with frozen parameters."
    return [replaced(node, "false")], message


def _fsdp(config: Config, place: str) -> tuple[list[Change], str]:
    """FSDP 1 flattens parameters together, which it cannot do if only some of them are trained."""
    entry = config.entry("fsdp_config")
    if entry is None or not isinstance(entry.value, yaml.MappingNode):
        needs = "frozen parameters need 'use_orig_params: true' in its fsdp_config"
        _refuse(place, f"trains with FSDP, and {needs}. Add it")
    settings = config.data["fsdp_config"] or {}
    node = child(entry.value, "use_orig_params") or child(entry.value, "fsdp_use_orig_params")
    prefixed = any(str(key).startswith("fsdp_") and key != "fsdp_version" for key in settings)
    line = f"{'fsdp_' if prefixed else ''}use_orig_params: true"
    change = replaced(node, "true") if node is not None else with_child(entry.value, line, config.newline)
    return [change], "'fsdp_config.use_orig_params' is now true: FSDP 1 cannot train some parameters only without it."


def _confirm(config: Config, after: str, wanted: dict[str, Any], removed: set[str], place: str) -> Config:
    """Read the new text back: what was put in is there, and what was not touched is as before."""
    expected = {key: value for key, value in config.data.items() if key not in removed} | wanted
    with suppress(ConfigError):
        new = parse_config(after, place)
        same = all(new.data.get(key) == value for key, value in expected.items() if key not in _MAY_DIFFER)
        if same and new.data.keys() == expected.keys():
            return new
    layout = "(an anchor, a key twice, or not lines of 'key: value')"
    _refuse(place, f"is written in a way that the selection cannot be put into {layout}. Paste the lines instead")
