"""`spectrum check`: is everything still true?"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from spectrum.cli.app import app
from spectrum.cli.choice import read_choice, read_conditions
from spectrum.cli.options import (
    CountOption,
    Embeddings,
    Exclude,
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
    Trainable,
    TreatmentName,
    WholeLayers,
    percent,
    read_percent,
)
from spectrum.cli.output import hint
from spectrum.cli.stored import narrowed, rescored, spectra_file
from spectrum.errors import SpectrumError
from spectrum.results import Scan
from spectrum.selection import Choice, Selection, TopPercent
from spectrum.selection import select as choose

if TYPE_CHECKING:
    from spectrum.checking import Area, Finding, Header, ListedConfig


@app.command(epilog="Example: spectrum check snr_results/Meta-Llama-3-8B.json --config axolotl.yml --top 25")
def check(
    scan_file: ScanFile,
    model: Annotated[
        str | None,
        typer.Option(
            "--model", metavar="MODEL", help="What the scan should be of: owner/name[@revision], a folder or file."
        ),
    ] = None,
    revision: Annotated[
        str | None, typer.Option("--revision", metavar="REV", help="Branch, tag or commit of a model on the Hub.")
    ] = None,
    token: Annotated[
        str | None,
        typer.Option("--token", metavar="TOKEN", help="For private and gated models; by default the stored login."),
    ] = None,
    config: Annotated[
        Path | None, typer.Option("--config", metavar="FILE", help="Axolotl config, or a list that select wrote.")
    ] = None,
    top: Annotated[
        float | None,
        typer.Option(
            "--top",
            metavar="PERCENT",
            parser=read_percent,
            callback=percent,
            help="Percent of each module type that the config should train; by default what its header says, else 25.",
        ),
    ] = None,
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
    """Check that a scan is sound, still belongs to its model, and that a config trains exactly its selection.

    Which selection that is, the options of select say; without them the header above the config's list does.
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
    values = (top, count, min_snr, max_params, trainable, per_type, seed)
    given = any(value is not None for value in values) or whole_layers or score != "snr" or strategy != "top"
    if model is None and (revision is not None or token is not None):
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
        choice if given or header is None else _as_told(header, choice),
        tuple(modules or ()),
        tuple(exclude or ()),
        noise_model or (NoiseModelName(header.noise_model) if header and header.noise_model else None),
    )
    if file.scan is not None:
        findings += _findings(file.scan, scan_file, wanted, read, transformers=transformers)
    if file.scan is not None and model is not None:
        findings += _of_model(file.scan, scan_file, model, revision, token, transformers)
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
    modules: Sequence[str]
    exclude: Sequence[str]
    noise_model: NoiseModelName | None


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


def _of_model(
    scan: Scan, scan_file: Path, model: str, revision: str | None, token: str | None, transformers: str | None
) -> "list[Finding]":
    """What a usable scan is checked for against a checkpoint."""
    from spectrum.checking import check_model, located  # noqa: PLC0415

    installed = _installed_transformers()
    findings = check_model(
        scan,
        model,
        revision=revision,
        token=token,
        scan_file=scan_file,
        transformers=installed if (transformers or installed) == installed else None,
        notify=lambda text: hint(f"note: {text}"),
    )
    return located(findings, str(scan_file))


def _select(scan: Scan, scan_file: Path, wanted: _Wanted, choice: Choice) -> tuple[Scan, Selection]:
    (scan,) = narrowed([rescored(scan, scan_file, wanted.noise_model)], wanted.modules, wanted.exclude)
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
