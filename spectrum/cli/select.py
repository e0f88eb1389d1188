"""`spectrum select`: another selection from a stored scan."""

from pathlib import Path
from typing import Annotated

import typer

from spectrum.cli.app import command
from spectrum.cli.choice import overlap_lines, read_choice
from spectrum.cli.exporting import write_into
from spectrum.cli.options import ChoiceOptions, ExportOptions, ModuleOptions, ScanFile, StoredNoiseModel, output_option
from spectrum.cli.output import hint, note, warn
from spectrum.exporting import export
from spectrum.results import read_scan, replace_file, spectra_file
from spectrum.scanning.union import rescored
from spectrum.selection import overlap, read_conditions
from spectrum.selection import select as choose


@command(example="spectrum select snr_results/Meta-Llama-3-8B.json --top 50 > unfrozen.yaml")
def select(
    scan_file: ScanFile,
    choosing: ChoiceOptions,
    modules: ModuleOptions,
    exporting: ExportOptions,
    noise_model: StoredNoiseModel = None,
    out: Annotated[
        Path | None, output_option("--out", metavar="FILE", help="File to write; by default standard output.")
    ] = None,
) -> None:
    """Select from a stored scan, without the model.

    By default the top 25 percent of each module type. Any other choice is compared with plain --top on standard error.
    """
    choice = read_choice(choosing, modules, format=exporting.format)
    if out is not None and out.resolve() == scan_file.resolve():
        raise typer.BadParameter(f"'{out}' is the scan itself.", param_hint="--out")
    if out is not None and exporting.into is not None:
        raise typer.BadParameter("give either --out or --into.", param_hint="--into")
    exporting.check()
    stored = read_scan(scan_file)
    scan = rescored(stored, scan_file, noise_model)
    conditions = read_conditions(scan, choice, spectra_file(scan_file))
    selection = choose(scan, choice, conditions=conditions)
    for warning in selection.warnings:
        warn(warning)
    for line in overlap_lines(overlap(selection, scan, stored, conditions=conditions)):
        hint(line)
    if exporting.into is not None:
        write_into(exporting, selection, scan)
        return
    made = export(selection, scan, exporting.format, lora=exporting.lora)
    for text in made.notes:
        note(text)
    if out is None:
        print(made.text, end="")
    else:
        replace_file(out, lambda temporary: temporary.write_text(made.text, encoding="utf-8"))
        hint(f"Wrote '{out}'.")
