"""`spectrum bench`: this machine against the plain SVD."""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from spectrum.cli.app import command
from spectrum.cli.options import Device
from spectrum.cli.output import hint, show

if TYPE_CHECKING:
    from rich.table import Table

    from spectrum.bench import Measurement


@command(example="spectrum bench --like llama-3-8b --layers 1")
def bench(
    like: Annotated[
        Literal["minilm", "llama-3-8b", "llama-3-70b", "mixtral-8x22b"],
        typer.Option("--like", help="The model whose matrix shapes are measured."),
    ] = "minilm",
    layers: Annotated[int, typer.Option("--layers", metavar="N", min=1, help="Layers timed together.")] = 1,
    pairs: Annotated[int, typer.Option("--pairs", metavar="N", min=1, help="Pairs of measurements.")] = 3,
    device: Device = "auto",
    accuracy: Annotated[
        bool, typer.Option("--accuracy/--no-accuracy", help="Compare with a float64 SVD, which takes long.")
    ] = True,
    as_json: Annotated[bool, typer.Option("--json", help="The measurements as JSON.")] = False,
) -> None:
    """Time the plain SVD and ours in turn, shape by shape, with accuracy and memory. Medians of the pairs."""
    import torch  # noqa: PLC0415  --help must not wait for it

    from spectrum.bench import MODELS, estimate_seconds, measure  # noqa: PLC0415
    from spectrum.scanning.devices import choose_device  # noqa: PLC0415

    model, chosen = MODELS[like], choose_device(device)
    hint(f"Measuring {len(model.shapes)} shapes of {like} on {chosen}, threads: {torch.get_num_threads()}.")
    measured = []
    for measurement in measure(model, layers=layers, pairs=pairs, device=chosen, accuracy=accuracy):
        rows, cols = measurement.shape
        hint(f"{rows} x {cols}: {measurement.ratio:.1f} times faster")
        measured.append(measurement)
    plain, ours = estimate_seconds(model, measured, layers=layers)
    if as_json:
        facts = {"like": like, "layers": layers, "pairs": pairs, "device": chosen, "threads": torch.get_num_threads()}
        estimate = {"plain_seconds": plain, "seconds": ours}
        document = {**facts, "shapes": [asdict(entry) for entry in measured], "whole_model": estimate}
        print(json.dumps(document, allow_nan=False, indent=1))
        return
    show(_table(measured))
    print(f"whole model, {model.layers} layers, without reading: {ours:.1f} s, plain SVD {plain:.1f} s")


def _table(measured: "list[Measurement]") -> "Table":
    from spectrum.reporting.score_table import add_row, new_table  # noqa: PLC0415  it imports rich

    table = new_table("shape", "matrices", "plain s", "s", "ratio", "SNR deviation", "peak GB", "share of product rate")
    for entry in measured:
        add_row(
            table,
            f"{entry.shape[0]} x {entry.shape[1]}",
            entry.matrices,
            f"{entry.plain_seconds:.3f}",
            f"{entry.seconds:.3f}",
            f"{entry.ratio:.1f}",
            "-" if entry.deviation is None else f"{entry.deviation:.1e}",
            f"{entry.peak_bytes / 1e9:.2f}",
            f"{100 * entry.rate_share:.0f} %",
        )
    return table
