"""`spectrum select`: another selection from a stored scan."""

from pathlib import Path
from typing import Annotated

import typer

from spectrum.cli.app import app
from spectrum.cli.options import (
    Embeddings,
    Exclude,
    Format,
    FormatOption,
    Modules,
    NoiseModelName,
    Norms,
    ScanFile,
    Top,
    TreatmentName,
    export,
)
from spectrum.cli.output import warn
from spectrum.naming import match_module_types
from spectrum.results import Scan, read_scan, read_spectra, replace_file, rescore
from spectrum.results.reuse import narrow
from spectrum.selection import select_top


@app.command(epilog="Example: spectrum select snr_results/Meta-Llama-3-8B.json --top 50 > unfrozen.yaml")
def select(
    scan_file: ScanFile,
    top: Top = 25,
    modules: Modules = None,
    exclude: Exclude = None,
    embeddings: Embeddings = TreatmentName.train,
    norms: Norms = TreatmentName.freeze,
    noise_model: Annotated[
        NoiseModelName | None,
        typer.Option("--noise-model", help="Score again from the stored spectra; by default as in the scan."),
    ] = None,
    format: FormatOption = Format.axolotl,  # noqa: A002  the option's name
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="File to write; by default standard output.")
    ] = None,
) -> None:
    """Select the top percent of each module type from a stored scan, without reading the model."""
    if out is not None and out.resolve() == scan_file.resolve():
        raise typer.BadParameter(f"'{out}' is the scan itself.", param_hint="--out")
    scan = rescored(read_scan(scan_file), scan_file, noise_model)
    if modules or exclude:
        wanted = match_module_types({item.module_type for item in scan.parameters}, modules or (), exclude or ())
        scan = narrow(scan, [item.name for item in scan.parameters if item.module_type in wanted])
    selection = select_top(scan, top, embeddings=embeddings.value, norms=norms.value)
    text = export(selection, scan, format)
    for warning in selection.warnings:
        warn(warning)
    if out is None:
        print(text, end="")
    else:
        replace_file(out, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def rescored(scan: Scan, scan_file: Path, noise_model: NoiseModelName | None) -> Scan:
    """The scan under a noise model, from the spectra stored beside its file; as it is where that is its own."""
    if noise_model is None or noise_model.value == scan.settings.noise_model:
        return scan
    path = scan_file.with_name(f"{scan_file.name.removesuffix('.json')}.spectra.safetensors")
    return rescore(scan, read_spectra(path, fingerprint=scan.model.fingerprint), noise_model.value)
