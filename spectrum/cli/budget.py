"""`spectrum budget`: the memory that training a selection takes."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from spectrum.budget import (
    Memory,
    OptimizerName,
    Precision,
    Setup,
    Sharding,
    activation_bytes,
    all_names,
    dimensions,
    largest_that_fits,
    memory,
    model_weights,
    parse_size,
    show_size,
    with_lora,
)
from spectrum.checkpoint import open_model
from spectrum.cli.app import command
from spectrum.cli.options import (
    CHOSEN,
    MODEL,
    OUTPUT,
    TRAINING,
    Embeddings,
    HubOptions,
    ModuleOptions,
    Norms,
    find_scan,
    percent,
    read_percent,
)
from spectrum.cli.output import hint, show
from spectrum.results import Scan, Settings, read_scan
from spectrum.scanning.plan import plan_scan
from spectrum.scanning.scoring import blank_scan
from spectrum.scanning.union import narrowed
from spectrum.selection import select_top

PERCENTS = (5, 10, 15, 20, 25, 30, 40, 50, 60, 70, 80, 90, 100)
RESERVE = 15.0  # percent


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
        typer.Option(
            "--model",
            metavar="MODEL",
            help="Before any scan, from headers alone: owner/name[@revision] on the Hub, or a folder or file.",
            rich_help_panel=MODEL,
        ),
    ] = None


@dataclass(frozen=True)
class TrainingOptions:
    """How the model is trained."""

    gpus: Annotated[
        int, typer.Option("--gpus", metavar="N", min=1, help="Number of GPUs.", rich_help_panel=TRAINING)
    ] = 1
    sharding: Annotated[
        Sharding,
        typer.Option(
            "--sharding",
            help="How the GPUs share: DeepSpeed's ZeRO 2 or 3, torch's fully_shard, or not.",
            rich_help_panel=TRAINING,
        ),
    ] = "none"
    optimizer: Annotated[
        OptimizerName, typer.Option("--optimizer", help="The optimizer.", rich_help_panel=TRAINING)
    ] = "adamw"
    precision: Annotated[
        Precision,
        typer.Option(
            "--precision",
            help="All in bf16, or with fp32 copies of the trained weights.",
            rich_help_panel=TRAINING,
        ),
    ] = "bf16"
    lora_rank: Annotated[
        int,
        typer.Option(
            "--lora-rank", metavar="N", min=1, help="Rank of the LoRA in the last row.", rich_help_panel=TRAINING
        ),
    ] = 16
    sequence_length: Annotated[
        int | None,
        typer.Option(
            "--sequence-length",
            metavar="N",
            min=1,
            help="Tokens of a sequence: estimates activations, too.",
            rich_help_panel=TRAINING,
        ),
    ] = None
    micro_batch: Annotated[
        int,
        typer.Option(
            "--micro-batch", metavar="N", min=1, help="Sequences at a time on one GPU.", rich_help_panel=TRAINING
        ),
    ] = 1
    checkpointing: Annotated[
        bool,
        typer.Option(
            "--checkpointing/--no-checkpointing",
            help="Recompute activations, layer by layer.",
            rich_help_panel=TRAINING,
        ),
    ] = True

    @property
    def setup(self) -> Setup:
        """The setup without activations."""
        return Setup(self.optimizer, self.precision, self.sharding, self.gpus)

    def activations(self, config: Mapping[str, Any] | None, origin: str) -> int:
        """Estimated bytes of activations; 0 if no sequence length is given."""
        if self.sequence_length is None:
            if self.micro_batch != 1 or not self.checkpointing:
                option = "--checkpointing" if self.micro_batch == 1 else "--micro-batch"
                raise typer.BadParameter("it needs --sequence-length.", param_hint=option)
            return 0
        if config is None:
            raise typer.BadParameter(
                "it needs --model, whose config.json says how wide the layers are.", param_hint="--sequence-length"
            )
        return activation_bytes(
            dimensions(config, origin),
            sequence_length=self.sequence_length,
            micro_batch=self.micro_batch,
            checkpointing=self.checkpointing,
        )


@dataclass(frozen=True)
class _Limit:
    """The memory of a GPU, and the part of it that may be used."""

    size_bytes: int
    reserve: float  # percent

    @property
    def usable(self) -> int:
        return int(self.size_bytes * (100 - self.reserve) / 100)


@command(example="spectrum budget snr_results/Meta-Llama-3-8B.json --gpus 8 --sharding zero3 --memory 24GB")
def budget(
    source: SourceOptions,
    hub: HubOptions,
    modules: ModuleOptions,
    training: TrainingOptions,
    top: Annotated[
        float | None,
        typer.Option(
            "--top",
            metavar="PERCENT",
            parser=read_percent,
            callback=percent,
            help="One selection in detail, to the byte, in place of the table.",
            rich_help_panel=CHOSEN,
        ),
    ] = None,
    memory_size: Annotated[
        str | None,
        typer.Option(
            "--memory",
            metavar="SIZE",
            help="Memory of a GPU, such as 48GB or 48GiB: find the largest selection that fits.",
            rich_help_panel=CHOSEN,
        ),
    ] = None,
    reserve: Annotated[
        float | None,
        typer.Option(
            "--reserve",
            metavar="PERCENT",
            parser=read_percent,
            callback=below_100,
            help="Part of --memory that is kept free for what is not counted. [default: 15]",
            rich_help_panel=CHOSEN,
        ),
    ] = None,
    embeddings: Embeddings = None,
    norms: Norms = "freeze",
    as_json: Annotated[
        bool, typer.Option("--json", help="Everything in bytes, as JSON.", rich_help_panel=OUTPUT)
    ] = False,
) -> None:
    """Count the memory per GPU that training needs: each top percent, full fine-tuning and LoRA.

    From a stored scan, or with --model from the headers of a checkpoint. The first line says what is assumed, the last
    what is not counted.
    """
    if top is not None and memory_size is not None:
        raise typer.BadParameter("give --top or --memory, not both.", param_hint="--memory")
    limit = None if memory_size is None else _Limit(_size(memory_size), RESERVE if reserve is None else reserve)
    if reserve is not None and limit is None:
        raise typer.BadParameter("it needs --memory.", param_hint="--reserve")
    scan, config = _shapes(source, hub, modules)
    setup, activations = training.setup, training.activations(config, f"{scan.model.id}/config.json")
    if setup.gpus > 1 and setup.sharding == "none":
        hint(f"note: without --sharding each of the {setup.gpus} GPUs holds everything, as a single one would.")

    def needed(top_percent: float) -> Memory:
        selection = select_top(scan, top_percent, embeddings=embeddings or "train", norms=norms)
        return memory(model_weights(scan, selection.names), setup, activations=activations)

    rows = {f"top {each:g} %": needed(each) for each in (PERCENTS if top is None else (top,))}
    weights = model_weights(scan, all_names(scan))
    others = {
        "full": memory(weights, setup, activations=activations),
        f"LoRA, rank {training.lora_rank}": memory(
            with_lora(weights, training.lora_rank), setup, activations=activations
        ),
    }
    fits = None if limit is None else largest_that_fits(needed, limit.usable)
    if as_json:
        print(json.dumps(_document(scan, setup, rows | others, limit, fits), allow_nan=False, indent=1))
        return
    print(_assumptions(setup, scored=source.model is None, activations=activations > 0))
    _print_rows(scan, rows, others, detail=top is not None)
    if limit is not None and fits is not None:
        print(
            f"{show_size(limit.size_bytes)}, of which {limit.reserve:g} % stay free (--reserve): the largest selection "
            f"within {show_size(limit.usable)} is top {fits[0]:g} %, {show_size(fits[1].total)} per GPU"
        )
    print(_not_counted(activations=activations > 0))


def _assumptions(setup: Setup, *, scored: bool, activations: bool) -> str:
    gpus = "1 GPU" if setup.gpus == 1 else f"{setup.gpus} GPUs, sharding {setup.sharding}"
    scores = "" if scored else ", equal scores in all layers (no scan)"
    counted = "activations estimated" if activations else "activations not counted"
    return f"Assumed: {setup.optimizer}, {setup.precision}, {gpus}, frozen weights in bf16, {counted}{scores}."


def _not_counted(*, activations: bool) -> str:
    missing = "" if activations else "activations, "
    return (
        f"Not counted: {missing}the CUDA context, memory that the allocator reserves or fragments, and communication "
        "buffers. Leave 10 to 20 % of the GPU's memory free, and more for long sequences."
    )


def _shapes(source: SourceOptions, hub: HubOptions, modules: ModuleOptions) -> tuple[Scan, Mapping[str, Any] | None]:
    """A scan, and the config.json of --model."""
    if (source.scan_file is None) == (source.model is None):
        raise typer.BadParameter("give either a SCAN or --model MODEL.", param_hint="SCAN")
    if source.scan_file is not None:
        if hub != HubOptions():
            raise typer.BadParameter("--revision and --token need --model.", param_hint="SCAN")
        return narrowed([read_scan(source.scan_file)], modules.modules, modules.exclude)[0], None
    settings = Settings(modules=tuple(modules.modules or ()), exclude=tuple(modules.exclude or ()))
    with open_model(
        source.model or "", revision=hub.revision, token=hub.token, notify=lambda text: hint(f"note: {text}")
    ) as checkpoint:
        plan = plan_scan(checkpoint, settings, same=lambda _one, _other: True)  # tied copies: reads no weights
        for note in plan.notes:
            hint(f"note: {note}")
        return blank_scan(plan), checkpoint.config


def _print_rows(scan: Scan, rows: Mapping[str, Memory], others: Mapping[str, Memory], *, detail: bool) -> None:
    from spectrum.reporting import memory_parts, memory_table  # noqa: PLC0415  it imports rich

    if not detail:
        show(memory_table({**rows, **others}))
        return
    ((label, row),) = rows.items()
    print(f"{label} of {scan.model.id}: {row.trainable:,} weights trained, {row.frozen:,} frozen")
    show(memory_parts(row))


def _document(
    scan: Scan, setup: Setup, rows: Mapping[str, Memory], limit: _Limit | None, fits: tuple[float, Memory] | None
) -> dict[str, Any]:
    """Everything in bytes per GPU."""
    document: dict[str, Any] = {
        "model": {"id": scan.model.id, "revision": scan.model.revision},
        "setup": asdict(setup),
        "selections": {label: _sizes(row) for label, row in rows.items()},
    }
    if limit is not None and fits is not None:
        sizes = {"memory": limit.size_bytes, "reserve_percent": limit.reserve, "usable": limit.usable}
        document["fits"] = {**sizes, "top_percent": fits[0], **_sizes(fits[1])}
    return document


def _sizes(row: Memory) -> dict[str, int]:
    return {**asdict(row), "total": row.total}


def _size(text: str) -> int:
    try:
        return parse_size(text)
    except ValueError as error:
        raise typer.BadParameter(f"{error}.", param_hint="--memory") from error
