"""`--into`: put a selection into an existing Axolotl config."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from spectrum.errors import SelectionError
from spectrum.exporting.lora import LoraOptions
from spectrum.exporting.targets import export
from spectrum.results import replace_file
from spectrum.results.scan import Scan
from spectrum.selection import Selection

if TYPE_CHECKING:
    from spectrum.exporting.axolotl_config import Edited

FORMATS = ("axolotl", "axolotl-lora")


def put_into(
    path: Path,
    selection: Selection,
    scan: Scan,
    format: str = "axolotl",  # noqa: A002
    *,
    lora: LoraOptions | None = None,
) -> tuple[tuple[str, ...], bool]:
    """Put the selection into an Axolotl config; a file that needs no change is not touched.

    Args:
        path: of the config.
        selection: what to train.
        scan: the scan it was chosen from.
        format: axolotl or axolotl-lora.
        lora: how adapters are made; rank and alpha that are not given are those of the config.

    Returns:
        What was changed beside the list and what the user should know, and whether the file was written.

    Raises:
        SpectrumError: the file cannot be read, is not a config, or contradicts the selection; it is as before.
    """
    edited, is_new = edited_config(path, selection, scan, format, lora=lora)
    if is_new:

        def write(temporary: Path) -> None:
            temporary.write_bytes(edited.text.encode())
            shutil.copymode(path, temporary)

        replace_file(path, write)
    return edited.messages, is_new


def edited_config(
    path: Path,
    selection: Selection,
    scan: Scan,
    format: str = "axolotl",  # noqa: A002
    *,
    lora: LoraOptions | None = None,
) -> "tuple[Edited, bool]":
    """The config with the selection in it and all messages, and whether it differs from the file; see `put_into`."""
    from spectrum.exporting.axolotl_config import lora_settings, put_into_axolotl  # noqa: PLC0415  it imports yaml
    from spectrum.exporting.config_text import read_config_text  # noqa: PLC0415

    if format not in FORMATS:
        raise SelectionError(f"--into takes --format axolotl or axolotl-lora, not {format}.")
    text = read_config_text(path)
    if format == "axolotl-lora":
        given = lora or LoraOptions()
        rank, alpha = lora_settings(text, str(path))
        lora = replace(given, rank=given.rank or rank, alpha=given.alpha or (None if given.rank else alpha))
    made = export(selection, scan, format, lora=lora)
    edited = put_into_axolotl(text, made.text, selection, scan, place=str(path))
    return replace(edited, messages=(*edited.messages, *made.notes)), edited.text != text
