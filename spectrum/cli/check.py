"""`spectrum check`: is everything still true?"""

from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from spectrum.cli.app import command
from spectrum.cli.choice import read_choice
from spectrum.cli.options import MODEL, OUTPUT, SCORED, ChoiceOptions, HubOptions, ModuleOptions, ScanFile
from spectrum.cli.output import hint
from spectrum.cli.stored import rescored, spectra_file
from spectrum.errors import SpectrumError
from spectrum.results import Scan
from spectrum.selection import Choice, Selection, TopPercent, read_conditions
from spectrum.selection import select as choose
from spectrum.spectra.snr import NoiseModel

if TYPE_CHECKING:
    from spectrum.checking import Area, Finding, Header, ListedConfig


@command(example="spectrum check snr_results/Meta-Llama-3-8B.json --config axolotl.yml --top 25")
def check(
    scan_file: ScanFile,
    choosing: ChoiceOptions,
    modules: ModuleOptions,
    hub: HubOptions,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            metavar="MODEL",
            help="What the scan should be of: owner/name[@revision], a folder or file.",
            rich_help_panel=MODEL,
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            "--config", metavar="FILE", help="Axolotl config, or a list that select wrote.", rich_help_panel=MODEL
        ),
    ] = None,
    noise_model: Annotated[
        NoiseModel | None,
        typer.Option(
            "--noise-model",
            help="By default what the config's header says, else as in the scan.",
            rich_help_panel=SCORED,
        ),
    ] = None,
    transformers: Annotated[
        str | None,
        typer.Option(
            "--transformers",
            metavar="VERSION",
            help="The trainer's; by default the one installed here.",
            rich_help_panel=MODEL,
        ),
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Fail on warnings, too.", rich_help_panel=OUTPUT)] = False,
    format: Annotated[  # noqa: A002  the option's name
        Literal["text", "json", "github", "junit"],
        typer.Option("--format", help="How the findings are printed.", rich_help_panel=OUTPUT),
    ] = "text",
) -> None:
    """Check that a scan is sound, still belongs to its model, and that a config trains exactly its selection.

    The options of select say which selection that is; without them, the header above the config's list does.
    """
    choice = read_choice(choosing, modules)
    if model is None and hub != HubOptions():
        raise typer.BadParameter("they belong to --model.", param_hint="--revision, --token")
    from spectrum.checking import FORMATS, Report, ordered, read_listed_config, read_scan_file  # noqa: PLC0415  it imports yaml

    file = read_scan_file(scan_file)
    findings = list(file.findings)
    read = None
    if config is not None:
        read, more = read_listed_config(config)
        findings += more
    header = read.header if read else None
    wanted = _Wanted(
        choice if choosing.given or header is None else _as_told(header, choice),
        noise_model or (header.noise_model if header else None),
    )
    if file.scan is not None:
        findings += _findings(file.scan, scan_file, wanted, read, transformers=transformers)
    if file.scan is not None and model is not None:
        findings += _of_model(file.scan, scan_file, model, hub, transformers)
    areas = _areas(
        scan=file.scan is not None,
        model=model is not None,
        config=config is not None,
        selection=wanted.choice is not None,
    )
    report = Report(str(scan_file), ordered(findings), areas, strict=strict)
    print(FORMATS[format](report), end="")
    raise typer.Exit(1 if report.failed else 0)


@dataclass(frozen=True)
class _Wanted:
    """What the config should train, in the words of `select`; without a choice where only its user can tell."""

    choice: Choice | None
    noise_model: NoiseModel | None


def _as_told(header: "Header", choice: Choice) -> Choice | None:
    """The choice of a header that is that of --top alone."""
    return None if header.top_percent is None else replace(choice, rule=TopPercent(header.top_percent))


def _findings(
    scan: Scan, scan_file: Path, wanted: _Wanted, config: "ListedConfig | None", *, transformers: str | None
) -> "list[Finding]":
    """What a usable scan and a config are checked for."""
    from spectrum.checking import check_scan, check_spectra, located, of_error, unclear  # noqa: PLC0415

    findings = list(check_spectra(scan, spectra_file(scan_file)))
    chosen, selection = scan, None
    if wanted.choice is not None:
        try:
            chosen, selection = _select(scan, scan_file, wanted, wanted.choice)
        except SpectrumError as error:
            findings.append(of_error("SPC602", error))
    elif config is not None and config.header is not None:
        findings += located([unclear(config.header)], config.path)
    findings += check_scan(chosen, selection, config=config, transformers=transformers or _installed_transformers())
    return located(findings, str(scan_file))


def _of_model(scan: Scan, scan_file: Path, model: str, hub: HubOptions, transformers: str | None) -> "list[Finding]":
    """What a usable scan is checked for against a checkpoint."""
    from spectrum.checking import check_model, located  # noqa: PLC0415

    installed = _installed_transformers()
    findings = check_model(
        scan,
        model,
        revision=hub.revision,
        token=hub.token,
        scan_file=scan_file,
        transformers=installed if (transformers or installed) == installed else None,
        notify=lambda text: hint(f"note: {text}"),
    )
    return located(findings, str(scan_file))


def _select(scan: Scan, scan_file: Path, wanted: _Wanted, choice: Choice) -> tuple[Scan, Selection]:
    scan = rescored(scan, scan_file, wanted.noise_model)
    return scan, choose(scan, choice, conditions=read_conditions(scan, choice, spectra_file(scan_file)))


def _areas(*, scan: bool, model: bool, config: bool, selection: bool) -> "set[Area]":
    """What was looked at; without a usable scan, that is the files alone."""
    looked: dict[Area, bool] = {
        "scan": True, "model": scan and model, "names": scan, "config": config, "trainer": scan and config,
        "selection": scan and selection,
    }  # fmt: skip
    return {area for area, at in looked.items() if at}


def _installed_transformers() -> str | None:
    """Its version, from the package's metadata: importing it takes a second."""
    try:
        return version("transformers")
    except PackageNotFoundError:
        return None
