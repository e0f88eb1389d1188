"""The options of `spectrum budget` alone, in groups."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from spectrum.budget import Limit, OptimizerName, Precision, Sharding, parse_size
from spectrum.cli.options import chosen_option, find_scan, model_option, percent, read_percent, training_option

RESERVE = 15.0  # percent


def read_size(text: str) -> int:
    """Bytes of a size such as 48GB."""
    try:
        return parse_size(text)
    except ValueError as error:
        raise typer.BadParameter(f"{error}.", param_hint="--memory") from error


def below_100(value: float | None) -> float | None:
    """Refuse a share of the memory that leaves nothing."""
    if value is not None and not 0 <= value < 100:
        raise typer.BadParameter(f"{value:g} is out of range: give 0 or more, and less than 100.")
    return value


@dataclass(frozen=True)
class SourceOptions:
    """Where the shapes come from."""

    scan_file: Annotated[
        Path | None,
        typer.Argument(metavar="SCAN", parser=find_scan, help="A scan file, or the name of a model that was scanned."),
    ] = None
    model: Annotated[
        str | None,
        model_option(
            "--model",
            metavar="MODEL",
            help="Before any scan, from headers alone: owner/name[@revision] on the Hub, or a folder or file.",
        ),
    ] = None


@dataclass(frozen=True)
class TrainingOptions:
    """How the model is trained."""

    gpus: Annotated[int, training_option("--gpus", metavar="N", min=1, help="Number of GPUs.")] = 1
    sharding: Annotated[
        Sharding,
        training_option("--sharding", help="How the GPUs share: DeepSpeed's ZeRO 2 or 3, torch's fully_shard, or not."),
    ] = "none"
    optimizer: Annotated[OptimizerName, training_option("--optimizer", help="The optimizer.")] = "adamw"
    precision: Annotated[
        Precision, training_option("--precision", help="All in bf16, or with fp32 copies of the trained weights.")
    ] = "bf16"
    lora_rank: Annotated[
        int, training_option("--lora-rank", metavar="N", min=1, help="Rank of the LoRA in the last row.")
    ] = 16
    sequence_length: Annotated[
        int | None,
        training_option(
            "--sequence-length", metavar="N", min=1, help="Tokens of a sequence: estimates activations, too."
        ),
    ] = None
    micro_batch: Annotated[
        int, training_option("--micro-batch", metavar="N", min=1, help="Sequences at a time on one GPU.")
    ] = 1
    checkpointing: Annotated[
        bool, training_option("--checkpointing/--no-checkpointing", help="Recompute activations, layer by layer.")
    ] = True


@dataclass(frozen=True)
class LimitOptions:
    """One selection, or the largest that fits."""

    top: Annotated[
        float | None,
        chosen_option(
            "--top",
            metavar="PERCENT",
            parser=read_percent,
            callback=percent,
            help="One selection in detail, to the byte, in place of the table.",
        ),
    ] = None
    memory: Annotated[
        int | None,
        chosen_option(
            "--memory",
            parser=read_size,
            metavar="SIZE",
            help="Memory of a GPU, such as 48GB or 48GiB: find the largest selection that fits.",
        ),
    ] = None
    reserve: Annotated[
        float | None,
        chosen_option(
            "--reserve",
            metavar="PERCENT",
            parser=read_percent,
            callback=below_100,
            help="Part of --memory that is kept free for what is not counted. [default: 15]",
        ),
    ] = None

    @property
    def limit(self) -> Limit | None:
        """The memory that selections must fit into; None if it was not given."""
        if self.memory is None:
            if self.reserve is not None:
                raise typer.BadParameter("it needs --memory.", param_hint="--reserve")
            return None
        if self.top is not None:
            raise typer.BadParameter("give --top or --memory, not both.", param_hint="--memory")
        return Limit(self.memory, RESERVE if self.reserve is None else self.reserve)
