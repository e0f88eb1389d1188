"""`spectrum diff`: two scans compared."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from spectrum.cli.app import command
from spectrum.cli.options import ModuleOptions, find_scan, percent
from spectrum.cli.output import hint
from spectrum.cli.output import show as print_table
from spectrum.errors import SpectrumError, one_line
from spectrum.results import Scan, read_scan
from spectrum.scanning.union import narrowed, rescored
from spectrum.selection.diff import Diff, compare_scans
from spectrum.spectra.snr import NoiseModel


def percents(text: str) -> str:
    """Refuse a text that is not a list of percentages."""
    try:
        _ = [percent(float(part)) for part in text.split(",")]
    except ValueError as error:
        raise typer.BadParameter(f"'{text}' is not a list of percentages: give numbers such as 10,25,50.") from error
    return text


def correlation(value: float | None) -> float | None:
    """Refuse a number that is not between -1 and 1, because no correlation is below it."""
    if value is not None and not -1 < value <= 1:
        raise typer.BadParameter(f"{value:g} is out of range: give more than -1 and at most 1.")
    return value


@command(example="spectrum diff snr_results/base.json snr_results/tuned.json --fail-below 0.9")
def diff(
    first: Annotated[Path, typer.Argument(metavar="A", parser=find_scan, help="Scan to compare with.")],
    second: Annotated[Path, typer.Argument(metavar="B", parser=find_scan, help="Scan to compare.")],
    modules: ModuleOptions,
    noise_model: Annotated[
        NoiseModel | None,
        typer.Option("--noise-model", help="Score both again from the stored spectra; by default as in the scans."),
    ] = None,
    other_noise_model: Annotated[
        NoiseModel | None, typer.Option("--other-noise-model", help="Another one for B, which may be A itself.")
    ] = None,
    at: Annotated[
        str,
        typer.Option(
            "--at", metavar="P,P,...", callback=percents, help="Percentages at which selections are compared."
        ),
    ] = "10,25,50",
    movers: Annotated[int, typer.Option("--movers", metavar="N", min=0, help="How many of the largest to show.")] = 10,
    fail_below: Annotated[
        float | None,
        typer.Option(
            "--fail-below",
            metavar="R",
            callback=correlation,
            help="Exit 1 if a module type's Spearman correlation is below R, or a parameter is missing or new.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The whole comparison as JSON.")] = False,
) -> None:
    """Compare two scans: correlation of the rankings, overlap of the selections, largest movers, missing and new."""
    one = rescored(read_scan(first), first, noise_model)
    other = rescored(read_scan(second), second, other_noise_model or noise_model)
    one, other = narrowed((one, other), modules.modules, modules.exclude)
    found = compare_scans(one, other, percents=[float(part) for part in at.split(",")])
    if as_json:
        print(json.dumps(_document(one, other, found), allow_nan=False, sort_keys=True, indent=1, ensure_ascii=False))
    else:
        _print(one, other, found, movers)
    if fail_below is not None:
        _check(found, fail_below)


def _check(found: Diff, least: float) -> None:
    """Raise SpectrumError unless the rankings agree."""
    if found.missing or found.new:
        name = (*found.missing, *found.new)[0]
        counts = f"{len(found.missing)} parameters missing and {len(found.new)} new"
        raise SpectrumError(f"{counts}, such as '{name}', have no rank to compare.")
    weakest = found.weakest
    if weakest is None or weakest.spearman is None:
        raise SpectrumError("No module type has a correlation: each has fewer than two parameters, or equal scores.")
    if weakest.spearman < least:
        raise SpectrumError(
            f"The rankings of {weakest.label} correlate by {weakest.spearman:.4g} (Spearman), below {least:g}."
        )


def _document(first: Scan, second: Scan, found: Diff) -> dict[str, Any]:
    document = asdict(found)
    return document | {"first": _origin(first), "second": _origin(second)}


def _origin(scan: Scan) -> dict[str, str | None]:
    return {"id": scan.model.id, "revision": scan.model.revision, "noise_model": scan.settings.noise_model}


def _print(first: Scan, second: Scan, found: Diff, movers: int) -> None:
    from spectrum.reporting import move_table, overlap_table, type_table  # noqa: PLC0415  it imports rich

    for letter, scan in (("A", first), ("B", second)):
        revision = f" @ {scan.model.revision}" if scan.model.revision else ""
        print(one_line(f"{letter}: {scan.model.id}{revision}, noise model {scan.settings.noise_model}"))
    print()
    print_table(type_table(found))
    print()
    print_table(overlap_table(found))
    if found.moves and movers:
        print()
        print_table(move_table(found, movers))
    for what, names in (("missing in B", found.missing), ("new in B", found.new), ("of another shape", found.reshaped)):
        if names:
            print(
                one_line(f"{what}: {len(names)} parameters, {', '.join(names[:3])}{', ...' if len(names) > 3 else ''}")
            )
    if len(found.moves) > movers > 0:
        hint(f"{len(found.moves)} parameters changed their rank; --movers shows more of them.")
