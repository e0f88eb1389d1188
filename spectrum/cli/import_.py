"""`spectrum import`: older result files."""

from pathlib import Path
from typing import Annotated

import typer

from spectrum.cli.app import command
from spectrum.cli.options import STORE
from spectrum.cli.output import hint, warn
from spectrum.errors import SpectrumError
from spectrum.results import file_stem, import_scan, read_scan, write_scan


@command(
    "import",
    example="spectrum import snr_results_Meta-Llama-3-8B.json --model meta-llama/Meta-Llama-3-8B",
)
def import_(
    old: Annotated[
        str, typer.Argument(metavar="OLD", help="Result file of the authors' program, or its address on the web.")
    ],
    model: Annotated[
        str | None, typer.Option("--model", metavar="ID", help="The model's id; by default it follows the file's name.")
    ] = None,
    out: Annotated[Path, typer.Option("--out", metavar="FOLDER", help="Folder for the scan file.")] = STORE,
) -> None:
    """Convert an older result file to a scan file, from which 'select' and 'show' work."""
    scan = import_scan(old, model_id=model)
    path = out / f"{file_stem(scan.model.id)}.json"
    if path.exists() and read_scan(path).settings.origin is None:
        raise SpectrumError(f"'{path}' is a scan that was made here; choose another folder with --out.")
    write_scan(scan, path)
    matrices = sum(len(item.matrices) or 1 for item in scan.parameters)
    hint(f"Imported {matrices} scores of {len(scan.parameters)} parameters.")
    if not any(item.saturated for item in scan.parameters):
        warn(
            "this file holds no infinite score. Since April 2025 the authors' program writes a finite one for a "
            "saturated matrix, so in newer files saturated matrices cannot be recognised. Scan the model to know them."
        )
    print(path)
