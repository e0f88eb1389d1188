"""`spectrum check`: is everything still true?"""

from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from spectrum.cli.app import app
from spectrum.cli.options import Embeddings, Exclude, Modules, NoiseModelName, Norms, ScanFile, TreatmentName, percent
from spectrum.cli.select import rescored
from spectrum.errors import ScanFileError, SelectionError
from spectrum.naming import match_module_types
from spectrum.results import Scan
from spectrum.results.reuse import narrow
from spectrum.selection import Selection, select_top

if TYPE_CHECKING:
    from spectrum.check import Area, Config, Finding

DEFAULT_TOP = 25.0  # as in `select`


@app.command(epilog="Example: spectrum check snr_results/Meta-Llama-3-8B.json --config axolotl.yml --top 25")
def check(
    scan_file: ScanFile,
    model: Annotated[
        str | None, typer.Option("--model", metavar="PATH", help="The checkpoint that the scan should be of.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option("--config", metavar="FILE", help="Axolotl config, or a list that select wrote.")
    ] = None,
    top: Annotated[
        float | None,
        typer.Option(
            "--top",
            metavar="PERCENT",
            callback=lambda value: None if value is None else percent(value),
            help="Percent of each module type that the config should train; by default what its header says, else 25.",
        ),
    ] = None,
    modules: Modules = None,
    exclude: Exclude = None,
    embeddings: Embeddings = TreatmentName.train,
    norms: Norms = TreatmentName.freeze,
    noise_model: Annotated[
        NoiseModelName | None,
        typer.Option("--noise-model", help="By default what the config's header says, else as in the scan."),
    ] = None,
    transformers: Annotated[
        str | None,
        typer.Option("--transformers", metavar="VERSION", help="The trainer's; by default the one installed here."),
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Fail on warnings, too.")] = False,
    format: Annotated[  # noqa: A002  the option's name
        Literal["text", "json", "github", "junit"], typer.Option("--format", help="How the findings are printed.")
    ] = "text",
) -> None:
    """Check that a scan is sound, still belongs to its model, and that a config trains exactly its selection."""
    from spectrum.check import FORMATS, Report, ordered, read_config, read_scan_file  # noqa: PLC0415  it imports yaml

    file = read_scan_file(scan_file)
    findings = list(file.findings)
    read = None
    if config is not None:
        read, more = read_config(config)
        findings += more
    if file.scan is not None:
        choice = _Choice(
            top=top or (read and read.top_percent) or DEFAULT_TOP,
            modules=tuple(modules or ()),
            exclude=tuple(exclude or ()),
            embeddings=embeddings,
            norms=norms,
            noise_model=noise_model or (NoiseModelName(read.noise_model) if read and read.noise_model else None),
        )
        findings += _findings(file.scan, scan_file, choice, read, model=model, transformers=transformers)
    areas = _areas(scan=file.scan is not None, model=model is not None, config=config is not None)
    report = Report(str(scan_file), ordered(findings), areas, strict=strict)
    print(FORMATS[format](report), end="")
    raise typer.Exit(1 if report.failed else 0)


@dataclass(frozen=True)
class _Choice:
    """What the config should train, in the words of `select`."""

    top: float
    modules: tuple[str, ...]
    exclude: tuple[str, ...]
    embeddings: TreatmentName
    norms: TreatmentName
    noise_model: NoiseModelName | None


def _findings(
    scan: Scan,
    scan_file: Path,
    choice: _Choice,
    config: "Config | None",
    *,
    model: str | None,
    transformers: str | None,
) -> "list[Finding]":
    """What a usable scan is checked for."""
    from spectrum.check import check_model, check_scan, check_spectra, located, of_error  # noqa: PLC0415

    installed = _installed_transformers()
    trainer = transformers or installed
    findings = list(
        check_spectra(scan, scan_file.with_name(f"{scan_file.name.removesuffix('.json')}.spectra.safetensors"))
    )
    try:
        chosen, selection = _select(scan, scan_file, choice)
    except (SelectionError, ScanFileError) as error:
        findings.append(of_error("SPC602", error))
        chosen, selection = scan, None
    findings += check_scan(chosen, selection, config=config, transformers=trainer)
    if model is not None:
        names = installed if trainer == installed else None
        findings += check_model(scan, model, scan_file=scan_file, transformers=names)
    return located(findings, str(scan_file))


def _select(scan: Scan, scan_file: Path, choice: _Choice) -> tuple[Scan, Selection]:
    scan = rescored(scan, scan_file, choice.noise_model)
    if choice.modules or choice.exclude:
        wanted = match_module_types({item.module_type for item in scan.parameters}, choice.modules, choice.exclude)
        scan = narrow(scan, [item.name for item in scan.parameters if item.module_type in wanted])
    return scan, select_top(scan, choice.top, embeddings=choice.embeddings.value, norms=choice.norms.value)


def _areas(*, scan: bool, model: bool, config: bool) -> "set[Area]":
    """What was looked at; without a usable scan, that is the files alone."""
    looked: dict[Area, bool] = {
        "scan": True, "model": scan and model, "names": scan, "config": config, "trainer": scan and config,
        "selection": scan,
    }  # fmt: skip
    return {area for area, at in looked.items() if at}


def _installed_transformers() -> str | None:
    """Its version, from the package's metadata: importing it takes a second."""
    try:
        return version("transformers")
    except PackageNotFoundError:
        return None
