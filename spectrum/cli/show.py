"""`spectrum show`: the scores of a scan."""

import json
from typing import Annotated

import typer

from spectrum.cli.app import command
from spectrum.cli.options import OUTPUT, ModuleOptions, ScanFile, StoredNoiseModel
from spectrum.cli.output import show as print_table
from spectrum.cli.stored import narrowed, rescored
from spectrum.results import read_scan, scan_to_json


@command(example="spectrum show snr_results/Meta-Llama-3-8B.json --heatmap --modules 'mlp.*'")
def show(
    scan_file: ScanFile,
    modules: ModuleOptions,
    noise_model: StoredNoiseModel = None,
    as_heatmap: Annotated[
        bool,
        typer.Option(
            "--heatmap",
            help="Layers x module types, coloured by rank within the module type.",
            rich_help_panel=OUTPUT,
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The scan as JSON.", rich_help_panel=OUTPUT)] = False,
) -> None:
    """Show the scores of a scan: a row per parameter, a heatmap, or JSON."""
    if as_heatmap and as_json:
        raise typer.BadParameter("give --heatmap or --json, not both.", param_hint="--heatmap")
    (scan,) = narrowed([rescored(read_scan(scan_file), scan_file, noise_model)], modules.modules, modules.exclude)
    if as_json:
        print(json.dumps(scan_to_json(scan), allow_nan=False, sort_keys=True, indent=1, ensure_ascii=False))
    else:
        from spectrum.reporting import heatmap, parameter_table  # noqa: PLC0415  it imports rich

        print_table(heatmap(scan) if as_heatmap else parameter_table(scan))
