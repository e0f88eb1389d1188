"""Options that several commands share, worded once."""

import re
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from spectrum.selection import ScoreName, Strategy


class Format(str, Enum):
    """What a selection is written as."""

    axolotl = "axolotl"
    axolotl_plugin = "axolotl-plugin"
    axolotl_lora = "axolotl-lora"
    peft = "peft"
    swift = "swift"
    mlx_lm = "mlx-lm"
    names = "names"
    regex = "regex"
    json = "json"
    llama_factory = "llama-factory"
    torchtune = "torchtune"


class NoiseModelName(str, Enum):
    """Where the threshold between noise and signal lies; docs/explanation/score.md describes them."""

    iqr = "iqr"
    mp = "mp"
    gavish_donoho = "gavish-donoho"
    std = "std"


class TreatmentName(str, Enum):
    """Whether parameters are trained."""

    train = "train"
    freeze = "freeze"


def read_percent(text: str) -> float:
    """A percentage, with or without its sign: `25`, `2.5` or `25%`."""
    try:
        return float(text.strip().removesuffix("%"))
    except ValueError:
        raise typer.BadParameter(f"'{text}' is no percentage: give more than 0 and at most 100.") from None


def percent(value: float | None) -> float | None:
    """Refuse a percentage that selects nothing or more than everything."""
    if value is not None and not 0 < value <= 100:
        raise typer.BadParameter(f"{value:g} is out of range: give more than 0 and at most 100.")
    return value


def known_device(value: str) -> str:
    """Refuse what torch could not be asked for; whether this machine has it is found out later."""
    if not re.fullmatch(r"auto|cpu|mps|cuda(:[0-9]+)?", value):
        raise typer.BadParameter(f"'{value}' is no device: give auto, cpu, cuda, cuda:N or mps.")
    return value


Top = Annotated[
    float | None,
    typer.Option(
        "--top",
        metavar="PERCENT",
        parser=read_percent,
        callback=percent,
        help="Percent of each module type to select. [default: 25]",
    ),
]
CountOption = Annotated[
    int | None, typer.Option("--count", metavar="N", min=1, help="Select N of each module type, whatever its size.")
]
MinSnrOption = Annotated[
    float | None,
    typer.Option("--min-snr", metavar="X", help="Select every parameter that scores X or more, saturated ones too."),
]
MaxParams = Annotated[
    str | None,
    typer.Option("--max-params", metavar="N", help="Select the largest percentage that trains at most N, as in 2.5B."),
]
Trainable = Annotated[
    str | None,
    typer.Option("--trainable", metavar="PERCENT", help="The same, in percent of the model's weights, as in 30%."),
]
PerTypeOption = Annotated[
    str | None,
    typer.Option(
        "--per-type",
        metavar="PATTERN=PERCENT,...",
        help="A percentage per module type, as in 'mlp.*=50,self_attn.*=25'; --top speaks of the others.",
    ),
]
WholeLayers = Annotated[
    bool, typer.Option("--whole-layers", help="Score whole layers, select those, and train all ranked weights in them.")
]
ScoreOption = Annotated[ScoreName, typer.Option("--score", help="What ranks the parameters.")]
StrategyOption = Annotated[
    Strategy,
    typer.Option("--strategy", help="top, or a control of the same size: bottom, random, first or last layers."),
]
Seed = Annotated[int | None, typer.Option("--seed", metavar="N", min=0, help="Seed of --strategy random. [default: 0]")]
FormatOption = Annotated[Format, typer.Option("--format", help="What to write the selection as.")]
Embeddings = Annotated[TreatmentName, typer.Option("--embeddings", help="Train the embedding and the head, or not.")]
Norms = Annotated[TreatmentName, typer.Option("--norms", help="Train all norms, or none.")]
Modules = Annotated[
    list[str] | None,
    typer.Option(
        "--modules",
        metavar="PATTERN",
        help="Only module types that match this shell pattern, such as 'mlp.*'. May be repeated.",
    ),
]
Exclude = Annotated[
    list[str] | None,
    typer.Option("--exclude", metavar="PATTERN", help="Leave out module types that match. May be repeated."),
]
ScanFile = Annotated[Path, typer.Argument(metavar="SCAN", help="Scan file, snr_results/<model>.json.")]
