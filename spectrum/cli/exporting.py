"""What a selection is written as, and where: the options, and the calls behind them."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spectrum.cli.options import Format
from spectrum.cli.output import hint, warn
from spectrum.results import Scan, replace_file
from spectrum.selection import Selection

if TYPE_CHECKING:
    from spectrum.exporting import LoraOptions

LORA = (Format.peft, Format.axolotl_lora, Format.mlx_lm)

LoraRank = Annotated[
    int | None, typer.Option("--lora-rank", metavar="R", min=1, help="Rank of LoRA adapters; 16 by default.")
]
LoraAlpha = Annotated[
    int | None, typer.Option("--lora-alpha", metavar="A", min=1, help="Their alpha; twice the rank by default.")
]
RankPattern = Annotated[
    bool, typer.Option("--rank-pattern", help="A higher rank where the SNR is above its module type's median.")
]
Qlora = Annotated[bool, typer.Option("--qlora", help="Adapters beside weights in 4 bit.")]
Into = Annotated[
    Path | None,
    typer.Option("--into", metavar="CONFIG", help="Put the selection into this Axolotl config, in place."),
]


@dataclass(frozen=True)
class Lora:
    """The LoRA options as they were given."""

    rank: int | None
    alpha: int | None
    by_snr: bool
    four_bit: bool

    @property
    def given(self) -> bool:
        """Whether any was."""
        return self.rank is not None or self.alpha is not None or self.by_snr or self.four_bit


@dataclass(frozen=True)
class Exported:
    """A selection as the text of its target, and what its user should be told."""

    text: str
    notes: tuple[str, ...] = ()


def check_options(target: Format, lora: Lora, into: Path | None) -> None:
    """Refuse what does not go together and what no file can express, before anything is done."""
    from spectrum.exporting import refuse  # noqa: PLC0415

    if target in {Format.llama_factory, Format.torchtune}:
        refuse(target.value)
    if lora.given and target not in LORA:
        names = ", ".join(each.value for each in LORA)
        raise typer.BadParameter(
            f"--format {target.value} makes no adapters; these do: {names}.", param_hint="--format"
        )
    if into is not None and target not in {Format.axolotl, Format.axolotl_lora}:
        raise typer.BadParameter("it takes --format axolotl or axolotl-lora.", param_hint="--into")


def export(selection: Selection, scan: Scan, target: Format, lora: Lora) -> Exported:
    """The selection as the text of its target."""
    from spectrum import exporting as export  # noqa: PLC0415  what prints help needs none of it

    plain = {
        Format.axolotl: export.to_axolotl,
        Format.json: export.to_json,
        Format.swift: export.to_swift,
        Format.names: export.to_names,
        Format.regex: export.to_regex,
    }
    adapters = {
        Format.peft: export.to_peft,
        Format.axolotl_lora: export.to_axolotl_lora,
        Format.mlx_lm: export.to_mlx_lm,
    }
    if target in plain:
        return Exported(plain[target](selection, scan))
    if target in adapters:
        return Exported(*adapters[target](selection, scan, _options(lora)))
    made = export.to_axolotl_plugin(selection, scan)
    return Exported(made.text, tuple(_plugin_notes(scan, made.fraction)))


def default_path(stem: Path, tag: str, scan: Scan, target: Format) -> Path:
    """Where `scan` writes a selection: beside the scan, but the plugin's file where the plugin looks."""
    from spectrum.exporting import plugin_path  # noqa: PLC0415

    if target is Format.axolotl_plugin:
        return Path(plugin_path(scan.model.id))
    return stem.with_name(f"{stem.name}.{tag}.{ENDINGS[target]}")


ENDINGS = {
    Format.axolotl: "yaml",
    Format.axolotl_lora: "lora.yaml",
    Format.json: "json",
    Format.peft: "peft.json",
    Format.swift: "swift.yaml",
    Format.mlx_lm: "mlx.yaml",
    Format.names: "names.txt",
    Format.regex: "regex.txt",
}


def put_into(path: Path, selection: Selection, scan: Scan, target: Format, lora: Lora, *, quiet: bool = False) -> None:
    """Put the selection into an Axolotl config; a file that needs no change is not touched.

    Raises:
        SpectrumError: the file cannot be read, is no config, or contradicts the selection; it is as before.
    """
    from spectrum.exporting.axolotl_config import lora_settings, put_into_axolotl  # noqa: PLC0415
    from spectrum.exporting.config_text import read_text  # noqa: PLC0415

    text = read_text(path)
    if target is Format.axolotl_lora:
        rank, alpha = lora_settings(text, str(path))
        scaled = lora.alpha or (None if lora.rank else alpha)
        lora = Lora(lora.rank or rank, scaled, by_snr=lora.by_snr, four_bit=lora.four_bit)
    made = export(selection, scan, target, lora)
    edited = put_into_axolotl(text, made.text, selection, scan, place=str(path))
    for note in (*edited.messages, *made.notes):
        warn(f"{path}: {note}")
    if edited.text == text:
        hint(f"'{path}' holds this selection already.", quiet=quiet)
        return

    def write(temporary: Path) -> None:
        temporary.write_bytes(edited.text.encode())
        shutil.copymode(path, temporary)

    replace_file(path, write)
    hint(f"Wrote the selection into '{path}'.", quiet=quiet)


def _options(lora: Lora) -> "LoraOptions":
    from spectrum.exporting import LoraOptions  # noqa: PLC0415

    return LoraOptions(lora.rank or LoraOptions.rank, lora.alpha, by_snr=lora.by_snr, four_bit=lora.four_bit)


def _plugin_notes(scan: Scan, fraction: float) -> list[str]:
    from spectrum.exporting import plugin_path  # noqa: PLC0415

    lines = f"'plugins: [axolotl.integrations.spectrum.SpectrumPlugin]' and 'spectrum_top_fraction: {fraction}'"
    place = f"'{plugin_path(scan.model.id)}' in the folder it is started in"
    return [
        f"Axolotl's config needs these two lines: {lines}.",
        f"Axolotl looks for {place}, where base_model (or spectrum_model_name) is '{scan.model.id}'.",
    ]
