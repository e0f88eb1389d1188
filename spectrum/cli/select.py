"""`spectrum select`: another selection from a stored scan."""

from pathlib import Path
from typing import Annotated

import typer

from spectrum.cli.app import app
from spectrum.cli.choice import overlap_lines, read_choice, read_conditions
from spectrum.cli.exporting import Into, Lora, LoraAlpha, LoraRank, Qlora, RankPattern, check_options, export, put_into
from spectrum.cli.options import (
    CountOption,
    Embeddings,
    Exclude,
    Format,
    FormatOption,
    MaxParams,
    MinSnrOption,
    Modules,
    NoiseModelName,
    Norms,
    PerTypeOption,
    ScanFile,
    ScoreOption,
    Seed,
    StrategyOption,
    Top,
    Trainable,
    TreatmentName,
    WholeLayers,
)
from spectrum.cli.output import hint, warn
from spectrum.cli.stored import narrowed, rescored, spectra_file
from spectrum.results import read_scan, replace_file
from spectrum.selection import overlap
from spectrum.selection import select as choose


@app.command(
    short_help="Select from a stored scan, without the model.",
    epilog="Example: spectrum select snr_results/Meta-Llama-3-8B.json --top 50 > unfrozen.yaml",
)
def select(
    scan_file: ScanFile,
    top: Top = None,
    count: CountOption = None,
    min_snr: MinSnrOption = None,
    max_params: MaxParams = None,
    trainable: Trainable = None,
    per_type: PerTypeOption = None,
    whole_layers: WholeLayers = False,
    score: ScoreOption = "snr",
    strategy: StrategyOption = "top",
    seed: Seed = None,
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
    """Select from a stored scan, without reading the model: by default the top 25 percent of each module type.

    A selection that is not the plain top percentage by SNR is compared with that one on standard error.
    """
    choice = read_choice(
        top=top,
        count=count,
        min_snr=min_snr,
        max_params=max_params,
        trainable=trainable,
        per_type=per_type,
        whole_layers=whole_layers,
        score=score,
        strategy=strategy,
        seed=seed,
        embeddings=embeddings.value,
        norms=norms.value,
    )
    if out is not None and out.resolve() == scan_file.resolve():
        raise typer.BadParameter(f"'{out}' is the scan itself.", param_hint="--out")
    if out is not None and into is not None:
        raise typer.BadParameter("give either --out or --into.", param_hint="--into")
    lora = Lora(lora_rank, lora_alpha, by_snr=rank_pattern, four_bit=qlora)
    check_options(format, lora, into)
    stored = read_scan(scan_file)
    scan, stored = narrowed((rescored(stored, scan_file, noise_model), stored), modules, exclude)
    conditions = read_conditions(scan, choice, spectra_file(scan_file))
    selection = choose(scan, choice, conditions=conditions)
    for warning in selection.warnings:
        warn(warning)
    for line in overlap_lines(overlap(selection, choice, scan, stored, conditions=conditions)):
        hint(line)
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
