"""`spectrum budget`: the memory that training a selection takes."""

import json
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from spectrum.budget import Setup, activation_bytes, dimensions, make_report
from spectrum.checkpoint import open_model
from spectrum.cli.app import command
from spectrum.cli.budget_options import LimitOptions, SourceOptions, TrainingOptions
from spectrum.cli.options import Embeddings, HubOptions, ModuleOptions, Norms, output_option
from spectrum.cli.output import note, show
from spectrum.results import Scan, Settings, read_scan
from spectrum.scanning.scoring import scan_headers
from spectrum.scanning.union import narrowed


@command(example="spectrum budget snr_results/Meta-Llama-3-8B.json --gpus 8 --sharding zero3 --memory 24GB")
def budget(
    source: SourceOptions,
    hub: HubOptions,
    modules: ModuleOptions,
    training: TrainingOptions,
    fitting: LimitOptions,
    embeddings: Embeddings = None,
    norms: Norms = "freeze",
    as_json: Annotated[bool, output_option("--json", help="Everything in bytes, as JSON.")] = False,
) -> None:
    """Count the memory per GPU that training needs: each top percent, full fine-tuning and LoRA.

    From a stored scan, or with --model from the headers of a checkpoint. The first line says what is assumed, the last
    what is not counted.
    """
    limit = fitting.limit
    scan, config = _shapes(source, hub, modules)
    activations = _activations(training, config, f"{scan.model.id}/config.json")
    if training.gpus > 1 and training.sharding == "none":
        note(f"without --sharding each of the {training.gpus} GPUs holds everything, as a single one would.")
    report = make_report(
        scan,
        Setup(training.optimizer, training.precision, training.sharding, training.gpus),
        top=fitting.top,
        embeddings=embeddings or "train",
        norms=norms,
        lora_rank=training.lora_rank,
        activations=activations,
        limit=limit,
    )
    if as_json:
        print(json.dumps(report.document, allow_nan=False, indent=1))
        return
    from spectrum.reporting import memory_parts, memory_table  # noqa: PLC0415  it imports rich

    print(report.assumed(scored=source.model is None))
    if fitting.top is None:
        show(memory_table(report.rows))
    else:
        label, row = next(iter(report.rows.items()))
        print(f"{label} of {scan.model.id}: {row.trainable:,} weights trained, {row.frozen:,} frozen")
        show(memory_parts(row))
    print("\n".join(report.remarks()))


def _shapes(source: SourceOptions, hub: HubOptions, modules: ModuleOptions) -> tuple[Scan, Mapping[str, Any] | None]:
    """A scan, and the config.json of --model."""
    if (source.scan_file is None) == (source.model is None):
        raise typer.BadParameter("give either a SCAN or --model MODEL.", param_hint="SCAN")
    if source.scan_file is not None:
        if hub != HubOptions():
            raise typer.BadParameter("--revision and --token need --model.", param_hint="SCAN")
        return narrowed([read_scan(source.scan_file)], modules.modules, modules.exclude)[0], None
    settings = Settings(modules=tuple(modules.modules or ()), exclude=tuple(modules.exclude or ()))
    with open_model(source.model or "", revision=hub.revision, token=hub.token, notify=note) as checkpoint:
        return scan_headers(checkpoint, settings, note), checkpoint.config


def _activations(training: TrainingOptions, config: Mapping[str, Any] | None, origin: str) -> int:
    """Estimated bytes of activations; 0 if no sequence length is given."""
    if training.sequence_length is None:
        if training.micro_batch != 1 or not training.checkpointing:
            option = "--checkpointing" if training.micro_batch == 1 else "--micro-batch"
            raise typer.BadParameter("it needs --sequence-length.", param_hint=option)
        return 0
    if config is None:
        raise typer.BadParameter(
            "it needs --model, whose config.json says how wide the layers are.", param_hint="--sequence-length"
        )
    return activation_bytes(
        dimensions(config, origin),
        sequence_length=training.sequence_length,
        micro_batch=training.micro_batch,
        checkpointing=training.checkpointing,
    )
