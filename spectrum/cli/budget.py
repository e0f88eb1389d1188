"""`spectrum budget`: the memory that training a selection takes."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from spectrum.budget import (
    Memory,
    Setup,
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
from spectrum.cli.app import command
from spectrum.cli.options import Embeddings, ModuleOptions, Norms, ScanFile, percent, read_percent
from spectrum.cli.output import hint, show
from spectrum.cli.stored import narrowed
from spectrum.errors import SpectrumError
from spectrum.results import Scan, read_scan
from spectrum.selection import select_top
from spectrum.untrusted import MAX_CONFIG_BYTES, parse_json, read_file

PERCENTS = (5, 10, 15, 20, 25, 30, 40, 50, 60, 70, 80, 90, 100)


@command(example="spectrum budget snr_results/Meta-Llama-3-8B.json --gpus 8 --sharding zero3 --memory 24GB")
def budget(
    scan_file: ScanFile,
    modules: ModuleOptions,
    top: Annotated[
        float | None,
        typer.Option(
            "--top",
            metavar="PERCENT",
            parser=read_percent,
            callback=percent,
            help="One selection in detail, to the byte, in place of the table.",
        ),
    ] = None,
    memory_size: Annotated[
        str | None,
        typer.Option("--memory", metavar="SIZE", help="Find the largest selection that fits, such as 48GB or 48GiB."),
    ] = None,
    gpus: Annotated[int, typer.Option("--gpus", metavar="N", min=1, help="Number of GPUs.")] = 1,
    sharding: Annotated[
        Literal["none", "zero2", "zero3", "fsdp"],
        typer.Option("--sharding", help="How the GPUs share: DeepSpeed's ZeRO 2 or 3, torch's fully_shard, or not."),
    ] = "none",
    optimizer: Annotated[
        Literal["adamw", "adamw-8bit", "paged-adamw-8bit", "adafactor", "sgd", "muon"],
        typer.Option("--optimizer", help="Whose state is counted."),
    ] = "adamw",
    momentum: Annotated[
        bool | None,
        typer.Option("--momentum/--no-momentum", help="Whether sgd has momentum. [default: no-momentum]"),
    ] = None,
    precision: Annotated[
        Literal["bf16", "fp32-master"],
        typer.Option("--precision", help="All in bf16, or with fp32 copies of the trained weights."),
    ] = "bf16",
    lora_rank: Annotated[
        int, typer.Option("--lora-rank", metavar="N", min=1, help="Rank of the LoRA that the last row shows.")
    ] = 16,
    sequence_length: Annotated[
        int | None,
        typer.Option("--sequence-length", metavar="N", min=1, help="Tokens of a sequence: estimates activations, too."),
    ] = None,
    micro_batch: Annotated[
        int | None,
        typer.Option("--micro-batch", metavar="N", min=1, help="Sequences at a time on one GPU. [default: 1]"),
    ] = None,
    checkpointing: Annotated[
        bool | None,
        typer.Option(
            "--checkpointing/--no-checkpointing",
            help="Recompute activations, layer by layer. [default: checkpointing]",
        ),
    ] = None,
    config: Annotated[
        Path | None, typer.Option("--config", metavar="FILE", help="The model's config.json, for activations.")
    ] = None,
    embeddings: Embeddings = None,
    norms: Norms = "freeze",
    as_json: Annotated[bool, typer.Option("--json", help="Everything in bytes, as JSON.")] = False,
) -> None:
    """Tell the memory per GPU that training takes: each top percent, full fine-tuning and LoRA."""
    if top is not None and memory_size is not None:
        raise typer.BadParameter("give --top or --memory, not both.", param_hint="--memory")
    limit = None if memory_size is None else _limit(memory_size)
    if momentum is not None and optimizer != "sgd":
        raise typer.BadParameter("only --optimizer sgd has it as a choice.", param_hint="--momentum")
    sequences = _sequences(sequence_length, micro_batch, config, checkpointing=checkpointing)
    (scan,) = narrowed([read_scan(scan_file)], modules.modules, modules.exclude)
    setup = Setup(optimizer, precision, sharding, gpus, momentum or False)
    if gpus > 1 and sharding == "none":
        hint(f"note: without --sharding, each of the {gpus} GPUs holds everything, as one would.")

    def needed(top_percent: float) -> Memory:
        selection = select_top(scan, top_percent, embeddings=embeddings or "train", norms=norms)
        return memory(model_weights(scan, selection.names), setup, activations=sequences)

    tops = {f"top {each:g} %": needed(each) for each in (PERCENTS if top is None else (top,))}
    weights = model_weights(scan, all_names(scan))
    others = {
        "full": memory(weights, setup, activations=sequences),
        f"LoRA, rank {lora_rank}": memory(with_lora(weights, lora_rank), setup, activations=sequences),
    }
    fits = None if limit is None else largest_that_fits(needed, limit)
    if as_json:
        print(json.dumps(_document(scan, setup, tops | others, limit, fits), allow_nan=False, indent=1))
    else:
        gpu = "1 GPU" if gpus == 1 else f"{gpus} GPUs, sharding {sharding}"
        counted = "activations estimated" if sequences else "activations not counted"
        print(f"Assumed: {optimizer}, {precision}, {gpu}, frozen weights in bf16, {counted}.")
        _print(scan, setup, tops, others, detail=top is not None)
        if limit is not None and fits is not None:
            print(f"largest selection within {show_size(limit)}: top {fits[0]:g} %, {show_size(fits[1].total)} per GPU")
        missing = "" if sequences else "activations, "
        print(
            f"Not counted: {missing}the CUDA context, the allocator's reserve and fragments, and buffers of "
            "communication. Leave 10 to 20 % of the card free, and more for long sequences."
        )


def _print(scan: Scan, setup: Setup, tops: dict[str, Memory], others: dict[str, Memory], *, detail: bool) -> None:
    from spectrum.reporting import memory_parts, memory_table  # noqa: PLC0415  it imports rich

    if not detail:
        show(memory_table(tops | others))
        return
    ((label, row),) = tops.items()
    gpus = "1 GPU" if setup.gpus == 1 else f"{setup.gpus} GPUs, sharding {setup.sharding}"
    print(f"{label} of {scan.model.id}: {setup.optimizer}, {setup.precision}, {gpus}")
    print(f"trainable: {row.trainable:,}, frozen: {row.frozen:,} parameters")
    show(memory_parts(row))


def _document(
    scan: Scan, setup: Setup, rows: dict[str, Memory], limit: int | None, fits: tuple[float, Memory] | None
) -> dict[str, Any]:
    """Everything in bytes per GPU."""
    document: dict[str, Any] = {
        "model": {"id": scan.model.id, "revision": scan.model.revision},
        "setup": asdict(setup),
        "selections": {label: _sizes(row) for label, row in rows.items()},
    }
    if fits is not None:
        document["fits"] = {"memory": limit, "top_percent": fits[0], **_sizes(fits[1])}
    return document


def _sizes(row: Memory) -> dict[str, int]:
    return {**asdict(row), "total": row.total}


def _limit(text: str) -> int:
    try:
        return parse_size(text)
    except ValueError as error:
        raise typer.BadParameter(f"{error}.", param_hint="--memory") from error


def _sequences(length: int | None, micro_batch: int | None, config: Path | None, *, checkpointing: bool | None) -> int:
    """Bytes of activations; 0 where none are asked for."""
    if length is None and config is None:
        if micro_batch is not None or checkpointing is not None:
            raise typer.BadParameter(
                "activations are estimated only with --sequence-length and --config.",
                param_hint="--micro-batch" if micro_batch is not None else "--checkpointing",
            )
        return 0
    if length is None or config is None:
        raise typer.BadParameter(
            "activations need both, the length and the model's config.json.", param_hint="--sequence-length, --config"
        )
    sizes = dimensions(_read_config(config), str(config))
    return activation_bytes(
        sizes, sequence_length=length, micro_batch=micro_batch or 1, checkpointing=checkpointing is not False
    )


def _read_config(path: Path) -> dict[str, Any]:
    try:
        value = parse_json(read_file(path, most=MAX_CONFIG_BYTES))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no JSON"
        raise SpectrumError(f"'{path}' cannot be read: {reason}. Give the model's config.json.") from error
    if not isinstance(value, dict):
        raise SpectrumError(f"'{path}' holds no JSON object. Give the model's config.json.")
    return value
