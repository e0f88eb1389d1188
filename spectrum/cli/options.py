"""Options that several commands share, declared and worded once."""

import re
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Annotated, get_args

import typer

from spectrum.cli.output import warn
from spectrum.errors import SpectrumError
from spectrum.exporting import ADAPTERS, REFUSED, FormatName, LoraOptions, check_format
from spectrum.results import file_stem
from spectrum.selection import ScoreName, Strategy, Treatment
from spectrum.spectra.snr import NoiseModel
from spectrum.untrusted import shown

# An option in each section of the help.
model_option = partial(typer.Option, rich_help_panel="Model")
scored_option = partial(typer.Option, rich_help_panel="What is scored")
chosen_option = partial(typer.Option, rich_help_panel="What is chosen")
training_option = partial(typer.Option, rich_help_panel="Training")
output_option = partial(typer.Option, rich_help_panel="Output")
hub_option = partial(typer.Option, rich_help_panel="Hub")

FRACTIONS = {0.1: "a tenth", 0.2: "a fifth", 0.25: "a quarter", 0.5: "half"}
LONGEST_NAME = 200  # characters, of a model
STORE = Path("snr_results")


def find_scan(text: str) -> Path:
    """The scan file of this path, or the stored scan of the model of this name.

    Raises:
        SpectrumError: neither exists, and the name is not that of a JSON file.
    """
    path, stored = Path(text).expanduser(), STORE / f"{file_stem(text)}.json"
    if path.suffix == ".json" or len(text) > LONGEST_NAME or path.exists():
        return path  # what is wrong with it, its reader says
    if stored.is_file():
        return stored
    raise SpectrumError(
        f"There is neither a scan file {shown(text)} nor a scan of a model of that name in '{STORE}'. "
        "Give a scan file, or make one with 'spectrum scan'."
    )


def split_patterns(values: list[str] | None) -> list[str]:
    """The patterns of a repeatable option, each of which may hold several with commas between them."""
    return [pattern.strip() for value in values or () for pattern in value.split(",") if pattern.strip()]


def read_percent(text: str) -> float:
    """A percentage, with or without its sign: `25`, `2.5` or `25%`."""
    try:
        return float(text.strip().removesuffix("%"))
    except ValueError:
        raise typer.BadParameter(f"{shown(text)} is not a percentage: give a number such as 25 or 2.5%.") from None


def percent(value: float | None) -> float | None:
    """Refuse a percentage that selects nothing or more than everything; warn of one that is probably a fraction."""
    if value is not None and not 0 < value <= 100:
        raise typer.BadParameter(f"{value:g} is out of range: give more than 0, at most 100.")
    if value is not None:
        warn_of_fraction(value)
    return value


def warn_of_fraction(value: float) -> None:
    """A percentage below 1 probably means a share of 1."""
    if 0 < value < 1:
        warn(f"this is {value:g} %; for {FRACTIONS.get(value, 'that share')} give {100 * value:g}.")


def known_format(value: str) -> str:
    """Refuse a format that does not exist, or that cannot express a selection."""
    if value not in (*get_args(FormatName), *REFUSED):
        close = get_close_matches(value, get_args(FormatName), 1)
        near = f" Did you mean {close[0]}?" if close else f" Choose one of {', '.join(get_args(FormatName))}."
        raise typer.BadParameter(f"{shown(value)} is not a format.{near}")
    check_format(value)
    return value


def known_device(value: str) -> str:
    """Refuse a name that is not a device of torch; whether this machine has it is found out later."""
    if not re.fullmatch(r"auto|cpu|mps|cuda(:[0-9]+)?", value):
        raise typer.BadParameter(f"'{value}' is not a device: give auto, cpu, cuda, cuda:N or mps.")
    return value


ScanFile = Annotated[
    Path,
    typer.Argument(
        metavar="SCAN", parser=find_scan, help="A scan file, or the name of a model whose scan is in snr_results/."
    ),
]
Top = Annotated[
    float | None,
    chosen_option(
        "--top",
        metavar="PERCENT",
        parser=read_percent,
        callback=percent,
        help="Percent of each module type to select. [default: 25]",
    ),
]
Embeddings = Annotated[
    Treatment | None,
    chosen_option(
        "--embeddings", help="Whether embedding and head are trained. [default: train; with adapters freeze]"
    ),
]
Norms = Annotated[Treatment, chosen_option("--norms", help="Whether all norms are trained.")]
Device = Annotated[str, output_option("--device", callback=known_device, help="auto, cpu, cuda, cuda:N or mps.")]
Format = Annotated[
    str, output_option("--format", metavar="FORMAT", callback=known_format, help=f"{', '.join(get_args(FormatName))}.")
]
Into = Annotated[
    Path | None, output_option("--into", metavar="CONFIG", help="Put the selection into this Axolotl config, in place.")
]
StoredNoiseModel = Annotated[
    NoiseModel | None,
    scored_option("--noise-model", help="Score again from the stored spectra; by default as in the scan."),
]


@dataclass(frozen=True)
class ModuleOptions:
    """Which module types."""

    modules: Annotated[
        list[str] | None,
        scored_option(
            "--modules",
            metavar="PATTERN",
            callback=split_patterns,
            help="Only module types that match, such as 'mlp.*' or 'mlp.*,self_attn.o_proj'. May be repeated.",
        ),
    ] = None
    exclude: Annotated[
        list[str] | None,
        scored_option(
            "--exclude",
            metavar="PATTERN",
            callback=split_patterns,
            help="Leave out module types that match. May be repeated.",
        ),
    ] = None


@dataclass(frozen=True)
class HubOptions:
    """Which version of a model on the Hub, and the token that opens it."""

    revision: Annotated[
        str | None, hub_option("--revision", metavar="REV", help="Branch, tag or commit of a model on the Hub.")
    ] = None
    token: Annotated[
        str | None,
        hub_option("--token", metavar="TOKEN", help="For private and gated models; by default the stored login."),
    ] = None


@dataclass(frozen=True)
class ChoiceOptions:
    """Everything that says what to select, beside the module types."""

    top: Top = None
    count: Annotated[
        int | None,
        chosen_option("--count", metavar="N", min=1, help="Select N of each module type."),
    ] = None
    min_snr: Annotated[
        float | None,
        chosen_option(
            "--min-snr", metavar="X", help="Select every parameter that scores X or more, and the saturated ones."
        ),
    ] = None
    max_params: Annotated[
        str | None,
        chosen_option(
            "--max-params",
            metavar="N",
            help="Select the largest percentage that trains at most N weights, such as 2.5B.",
        ),
    ] = None
    trainable: Annotated[
        float | None,
        chosen_option(
            "--trainable",
            metavar="PERCENT",
            parser=read_percent,
            callback=percent,
            help="The same, in percent of the model's weights, such as 30%.",
        ),
    ] = None
    per_type: Annotated[
        str | None,
        chosen_option(
            "--per-type",
            metavar="PATTERN=PERCENT,...",
            help="A percentage per module type, such as 'mlp.*=50,self_attn.*=25'; --top is for the others.",
        ),
    ] = None
    whole_layers: Annotated[
        bool, chosen_option("--whole-layers", help="Score and select layers, with all ranked weights in them.")
    ] = False
    score: Annotated[ScoreName, chosen_option("--score", help="What ranks the parameters.")] = "snr"
    strategy: Annotated[
        Strategy, chosen_option("--strategy", help="The best, or as many others as a control for comparison.")
    ] = "top"
    seed: Annotated[
        int | None, chosen_option("--seed", metavar="N", min=0, help="Seed of --strategy random. [default: 0]")
    ] = None
    embeddings: Embeddings = None
    norms: Norms = "freeze"

    @property
    def given(self) -> bool:
        """Whether any option was given, beside those for embeddings and norms."""
        return self != ChoiceOptions(embeddings=self.embeddings, norms=self.norms)


@dataclass(frozen=True)
class ExportOptions:
    """What a selection is written as."""

    format: Format = "axolotl"
    into: Into = None
    lora_rank: Annotated[
        int | None, output_option("--lora-rank", metavar="R", min=1, help="Rank of the adapters. [default: 16]")
    ] = None
    lora_alpha: Annotated[
        int | None, output_option("--lora-alpha", metavar="A", min=1, help="Their alpha; by default twice the rank.")
    ] = None
    rank_pattern: Annotated[
        bool, output_option("--rank-pattern", help="A higher rank if the SNR is above the median of the module type.")
    ] = False
    qlora: Annotated[bool, output_option("--qlora", help="Adapters beside weights in 4 bit.")] = False

    @property
    def lora(self) -> LoraOptions | None:
        """How adapters are made; None if no option says so."""
        options = LoraOptions(self.lora_rank, self.lora_alpha, by_snr=self.rank_pattern, four_bit=self.qlora)
        return None if options == LoraOptions() else options

    def check(self) -> None:
        """Refuse options that do not go together, before anything is done."""
        if self.lora is not None and self.format not in ADAPTERS:
            raise typer.BadParameter(
                f"--format {self.format} makes no adapters; these do: {', '.join(ADAPTERS)}.", param_hint="--format"
            )
        if self.into is not None and self.format not in ("axolotl", "axolotl-lora"):
            raise typer.BadParameter("it takes --format axolotl or axolotl-lora.", param_hint="--into")
        if self.into is not None:
            from spectrum.exporting.axolotl_config import validate_target  # noqa: PLC0415  it imports yaml

            validate_target(self.into, adapters=self.format in ADAPTERS, four_bit=self.qlora)
