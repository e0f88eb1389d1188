"""`spectrum show`: the scores of a scan."""

import json
from typing import Annotated

import typer

from spectrum.cli.app import command
from spectrum.cli.options import ModuleOptions, ScanFile, StoredNoiseModel, output_option
from spectrum.cli.output import show as print_table
from spectrum.results import read_scan, scan_to_json
from spectrum.scanning.union import narrowed, rescored
from spectrum.untrusted import shown


@command(example="spectrum show snr_results/Meta-Llama-3-8B.json --heatmap --modules 'mlp.*'")
def show(
    scan_file: ScanFile,
    modules: ModuleOptions,
    noise_model: StoredNoiseModel = None,
    as_heatmap: Annotated[
        bool, output_option("--heatmap", help="Layers x module types, coloured by rank within the module type.")
    ] = False,
    summary: Annotated[
        bool, output_option("--summary", help="A row per module type instead of per parameter.")
    ] = False,
    sort: Annotated[
        str | None,
        output_option(
            "--sort",
            metavar="COLUMN",
            help="Order the rows by a column, such as SNR or 'stable rank'. [default: module type]",
        ),
    ] = None,
    as_json: Annotated[bool, output_option("--json", help="The scan as JSON.")] = False,
) -> None:
    """Show the scores of a scan: a row per parameter or per module type, a heatmap, or JSON."""
    forms = {"--heatmap": as_heatmap, "--summary": summary, "--json": as_json, "--sort": sort is not None}
    given = [name for name, value in forms.items() if value]
    if len(given) > 1:
        raise typer.BadParameter(f"give {given[0]} or {given[1]}, not both.", param_hint=given[0])
    column = None if sort is None else _column(sort)
    (scan,) = narrowed([rescored(read_scan(scan_file), scan_file, noise_model)], modules.modules, modules.exclude)
    if as_json:
        print(json.dumps(scan_to_json(scan), allow_nan=False, sort_keys=True, indent=1, ensure_ascii=False))
        return
    from spectrum.reporting import heatmap, parameter_table, type_summary  # noqa: PLC0415  it imports rich

    if as_heatmap:
        print_table(heatmap(scan))
    else:
        print_table(type_summary(scan) if summary else parameter_table(scan, column))


def _column(text: str) -> str:
    """A column of the table, however its name is written: `sigma-max`, `Stable_Rank`."""
    from spectrum.reporting import COLUMNS  # noqa: PLC0415  it imports rich

    plain = {_plain(name): name for name in COLUMNS}
    if _plain(text) not in plain:
        columns = ", ".join(f"'{name}'" if " " in name else name for name in COLUMNS)
        raise typer.BadParameter(f"{shown(text)} is not a column: give one of {columns}.", param_hint="--sort")
    return plain[_plain(text)]


def _plain(name: str) -> str:
    return name.lower().replace("_", " ").replace("-", " ").strip()
