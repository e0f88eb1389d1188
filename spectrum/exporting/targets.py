"""`export`: a selection as text in any format."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias, get_args

from spectrum.errors import SelectionError
from spectrum.exporting.axolotl import to_axolotl
from spectrum.exporting.axolotl_lora import to_axolotl_lora
from spectrum.exporting.lora import LoraOptions
from spectrum.exporting.mlx_lm import to_mlx_lm
from spectrum.exporting.names import to_json, to_names, to_regex
from spectrum.exporting.peft import to_peft
from spectrum.exporting.swift import to_swift
from spectrum.results import Scan, replace_file
from spectrum.selection import Selection, Treatment

FormatName: TypeAlias = Literal["axolotl", "axolotl-lora", "peft", "swift", "mlx-lm", "names", "regex", "json"]

_WHOLE = {"axolotl": to_axolotl, "swift": to_swift, "names": to_names, "regex": to_regex, "json": to_json}
ADAPTERS = {"axolotl-lora": to_axolotl_lora, "peft": to_peft, "mlx-lm": to_mlx_lm}

# The end of the name of a file in each format.
SUFFIXES: Mapping[str, str] = {
    "axolotl": "yaml", "axolotl-lora": "lora.yaml", "peft": "peft.json", "swift": "swift.yaml", "mlx-lm": "mlx.yaml",
    "names": "names.txt", "regex": "regex.txt", "json": "json",
}  # fmt: skip

# Trainers and formats that cannot be written, and what to do instead.
REFUSED = {
    # src/llamafactory/model/adapter.py: freeze_trainable_layers is one number, n first or n last layers.
    "llama-factory": "LLaMA-Factory's freeze training takes a number of first or last layers and module names that are "
    "trained in each of them, so it cannot train single weight matrices. For LoRA, put the target_modules of --format "
    "peft into its lora_target, separated by commas; for full training take --format axolotl or swift.",
    # torchtune names its modules itself (layers.0.attn.q_proj), and its recipes train everything or LoRA by kind.
    "torchtune": "torchtune's recipes train every weight, or LoRA by kind of module, and its models name their modules "
    "differently, so it cannot train single weight matrices. Take --format axolotl or swift, or --format names "
    "in a loop of your own.",
    "axolotl-plugin": "--format axolotl-plugin was removed: the list of --format axolotl replaces Axolotl's "
    "SpectrumPlugin and trains exactly the selection. Put it into the config with --into and remove the plugin there.",
}


@dataclass(frozen=True)
class Exported:
    """A selection in one format.

    Attributes:
        text: of the file.
        notes: whole sentences that the user should read before using it.
    """

    text: str
    notes: tuple[str, ...] = ()


def export(selection: Selection, scan: Scan, format: str = "axolotl", *, lora: LoraOptions | None = None) -> Exported:  # noqa: A002
    """A selection as the text that a trainer takes.

    Args:
        selection: what to train.
        scan: that it was chosen from.
        format: one of `FormatName`.
        lora: how adapters are made; only for the formats that make them.

    Raises:
        SelectionError: an unknown format, or a selection that the format cannot express.
    """
    check_format(format, lora)
    if format in ADAPTERS:
        return Exported(*ADAPTERS[format](selection, scan, lora or LoraOptions()))
    return Exported(_WHOLE[format](selection, scan))


def check_format(format: str, lora: LoraOptions | None = None) -> None:  # noqa: A002
    """Refuse a format before anything is scanned.

    Raises:
        SelectionError: an unknown format, one that cannot express a selection, or LoRA options for one without LoRA.
    """
    if format in REFUSED:
        raise SelectionError(REFUSED[format])
    if format not in get_args(FormatName):
        raise SelectionError(f"'{format}' is not a format. Choose one of {', '.join(get_args(FormatName))}.")
    if lora is not None and format not in ADAPTERS:
        raise SelectionError(f"--format {format} makes no adapters; these do: {', '.join(ADAPTERS)}.")


def default_embeddings(format: str) -> Treatment:  # noqa: A002
    """Whether embedding and head are trained by default: with full training yes, with adapters no.

    Adapters are chosen to save memory, and the embedding and head of an 8B model are 1.05 billion weights.
    """
    return "freeze" if format in ADAPTERS else "train"


def file_name(stem: str, selection: Selection, format: str) -> str:  # noqa: A002
    """The name of the file for a selection beside the scan `stem`.json; different selections have different names."""
    treatment = selection.choice.embeddings
    embeddings = "" if treatment == default_embeddings(format) else f"-embeddings-{treatment}"
    return f"{stem}.{selection.tag}{embeddings}.{SUFFIXES[format]}"


def write_beside(stem: Path, selection: Selection, scan: Scan, format: str) -> tuple[Path, Exported]:  # noqa: A002
    """Write a selection beside the scan `stem`.json.

    Returns:
        The file, and what it holds.

    Raises:
        SelectionError: a selection that the format cannot express.
        SpectrumError: the folder cannot be written to.
    """
    path, made = stem.with_name(file_name(stem.name, selection, format)), export(selection, scan, format)
    replace_file(path, lambda temporary: temporary.write_text(made.text, encoding="utf-8"))
    return path, made
