"""`spectrum select`: another selection from a stored scan."""

from pathlib import Path
from typing import Annotated

import typer

from spectrum.cli.app import app
from spectrum.cli.exporting import Into, Lora, LoraAlpha, LoraRank, Qlora, RankPattern, check_options, export, put_into
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
)
from spectrum.cli.output import hint, warn
from spectrum.naming import match_module_types
from spectrum.results import Scan, read_scan, read_spectra, replace_file, rescore
from spectrum.results.build import narrow
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
    into: Into = None,
    lora_rank: LoraRank = None,
    lora_alpha: LoraAlpha = None,
    rank_pattern: RankPattern = False,
    qlora: Qlora = False,
) -> None:
    """Select the top percent of each module type from a stored scan, without reading the model."""
    if out is not None and out.resolve() == scan_file.resolve():
        raise typer.BadParameter(f"'{out}' is the scan itself.", param_hint="--out")
    if out is not None and into is not None:
        raise typer.BadParameter("give either --out or --into.", param_hint="--into")
    lora = Lora(lora_rank, lora_alpha, by_snr=rank_pattern, four_bit=qlora)
    check_options(format, lora, into)
    scan = rescored(read_scan(scan_file), scan_file, noise_model)
    if modules or exclude:
        wanted = match_module_types({item.module_type for item in scan.parameters}, modules or (), exclude or ())
        scan = narrow(scan, [item.name for item in scan.parameters if item.module_type in wanted])
    selection = select_top(scan, top, embeddings=embeddings.value, norms=norms.value)
    for warning in selection.warnings:
        warn(warning)
    if into is not None:
        put_into(into, selection, scan, format, lora)
        return
    made = export(selection, scan, format, lora)
    for note in made.notes:
        hint(f"note: {note}")
    if out is None:
        print(made.text, end="")
    else:
        replace_file(out, lambda temporary: temporary.write_text(made.text, encoding="utf-8"))


def rescored(scan: Scan, scan_file: Path, noise_model: NoiseModelName | None) -> Scan:
    """The scan under a noise model, from the spectra stored beside its file; as it is where that is its own."""
    if noise_model is None or noise_model.value == scan.settings.noise_model:
        return scan
    path = scan_file.with_name(f"{scan_file.name.removesuffix('.json')}.spectra.safetensors")
    return rescore(scan, read_spectra(path, fingerprint=scan.model.fingerprint), noise_model.value)
