"""`spectrum scan`: score a model and select from the scores."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from spectrum.checkpoint import Checkpoint, Fetch, open_checkpoint, open_model
from spectrum.cli.app import command
from spectrum.cli.choice import overlap_lines, read_choice
from spectrum.cli.exporting import write_into
from spectrum.cli.options import (
    STORE,
    ChoiceOptions,
    Device,
    Embeddings,
    ExportOptions,
    Format,
    HubOptions,
    Into,
    ModuleOptions,
    Norms,
    Top,
    hub_option,
    model_option,
    output_option,
    scored_option,
)
from spectrum.cli.output import hint, note, progress, show, warn
from spectrum.errors import one_line
from spectrum.exporting import rehearse, write_beside
from spectrum.results import Settings
from spectrum.results.scan import Precision
from spectrum.scanning.obtain import Scanned, obtain, preview
from spectrum.scanning.plan import Plan, plan_scan
from spectrum.scanning.progress import Listener
from spectrum.scanning.ranks import team
from spectrum.scanning.scoring import blank_scan
from spectrum.scanning.store import named_place
from spectrum.selection import Choice, overlap, select
from spectrum.spectra.snr import NoiseModel


@dataclass(frozen=True)
class ModelOptions:
    """Which model, and how it is read."""

    path: Annotated[
        str | None, typer.Argument(metavar="MODEL", help="owner/name[@revision] on the Hub, or a folder or file.")
    ] = None
    model: Annotated[str | None, model_option("--model", metavar="MODEL", help="The same as an option.")] = None
    demo: Annotated[bool, model_option("--demo", help="Scan the embedded demo, a small Llama.")] = False
    model_class: Annotated[
        str | None, model_option("--model-class", metavar="CLASS", help="The transformers class the trainer loads.")
    ] = None
    fetch: Annotated[
        Fetch,
        hub_option("--fetch", help="Read a model on the Hub over the network, or download it into the Hub's cache."),
    ] = "auto"


@dataclass(frozen=True)
class ScoringOptions:
    """What is scored beside the chosen module types, and how."""

    all_modules: Annotated[
        bool, scored_option("--all-modules", help="Score embeddings, heads and routers as well.")
    ] = False
    experts: Annotated[
        int | None,
        scored_option("--experts", metavar="N", min=1, help="Score N experts of each layer, drawn by a fixed seed."),
    ] = None
    noise_model: Annotated[
        NoiseModel, scored_option("--noise-model", help="Where the threshold between noise and signal lies.")
    ] = "iqr"
    precision: Annotated[
        Precision, scored_option("--precision", help="auto redoes in float64 what float32 cannot resolve.")
    ] = "auto"


@dataclass(frozen=True)
class RunOptions:
    """Where the results go, and how the scan runs."""

    out: Annotated[Path, output_option("--out", metavar="FOLDER", help="Folder for the results.")] = STORE
    device: Device = "auto"
    rescan: Annotated[bool, output_option("--rescan", help="Scan again although a stored scan fits.")] = False
    dry_run: Annotated[
        bool, output_option("--dry-run", help="Print what would be read and computed, and stop there.")
    ] = False
    quiet: Annotated[bool, output_option("--quiet", "-q", help="Print only the selection's path, and warnings.")] = (
        False
    )


@command(example="spectrum scan ./Meta-Llama-3-8B --top 25 --exclude 'self_attn.v_proj'")
def scan(
    model: ModelOptions,
    hub: HubOptions,
    modules: ModuleOptions,
    scoring: ScoringOptions,
    running: RunOptions,
    top: Top = None,
    embeddings: Embeddings = None,
    norms: Norms = "freeze",
    format: Format = "axolotl",  # noqa: A002
    into: Into = None,
) -> None:
    """Score a model's weight matrices and select from them: by default the top 25 percent of each module type.

    Writes <model>.json (the scan), <model>.spectra.safetensors (all singular values) and <model>.top25.yaml (the
    selection, named after what was asked for) to the output folder. A stored scan that still fits the weights is used
    again. For other selections than by percentage see 'spectrum select', which needs no second scan.
    """
    choice = read_choice(ChoiceOptions(top=top, embeddings=embeddings, norms=norms), modules, format=format)
    settings = Settings(
        noise_model=scoring.noise_model,
        device=running.device,
        precision=scoring.precision,
        modules=choice.modules,
        exclude=choice.exclude,
        all_modules=scoring.all_modules,
        model_class=model.model_class,
        experts=scoring.experts,
    )
    with team() as ranks:
        quiet = running.quiet or not ranks.leads
        exporting = ExportOptions(format=format, into=into if ranks.leads else None)
        exporting.check()
        with _open(model, hub, quiet=quiet) as checkpoint:
            plan = plan_scan(checkpoint, settings)
            if ranks.leads:
                _print_notes(plan, quiet=quiet)
                stem = None if running.dry_run else named_place(running.out, plan).stem
                rehearse(blank_scan(plan), choice, format, stem=stem, into=into)
            if running.dry_run:
                if ranks.leads:
                    print("\n".join(preview(checkpoint, plan, running.out, ranks=ranks)))
                return
            with progress(quiet=quiet) as show_progress:
                listener = Listener(partial(hint, quiet=quiet), warn, show_progress)
                scanned = obtain(checkpoint, plan, running.out, ranks=ranks, rescan=running.rescan, listener=listener)
    if ranks.leads:
        _print_selection(scanned, choice, exporting, quiet=quiet)


def _open(model: ModelOptions, hub: HubOptions, *, quiet: bool) -> Checkpoint:
    given = [each for each in (model.path, model.model) if each is not None]
    if len(given) + model.demo != 1:
        raise typer.BadParameter("give one MODEL, or --demo.", param_hint="MODEL")
    if not model.demo:
        return open_model(
            given[0],
            revision=hub.revision,
            token=hub.token,
            fetch=model.fetch,
            notify=partial(note, quiet=quiet),
        )
    if hub != HubOptions() or model.fetch != "auto":
        raise typer.BadParameter("it is on this machine: no --revision, --token or --fetch.", param_hint="--demo")
    from spectrum.demo import demo_checkpoint  # noqa: PLC0415

    return open_checkpoint(demo_checkpoint())


def _print_notes(plan: Plan, *, quiet: bool) -> None:
    """What --quiet hides: only if the names are exact."""
    for text in plan.notes:
        note(text, quiet=quiet and plan.model.name_mapping == "exact")


def _print_selection(scanned: Scanned, choice: Choice, exporting: ExportOptions, *, quiet: bool) -> None:
    """Make the selection, write and print it."""
    scan = scanned.scan
    selection = select(scan, choice)
    path, made = write_beside(scanned.place.stem, selection, scan, exporting.format)
    lines = overlap_lines(overlap(selection, scan, scanned.as_stored))
    for text in made.notes:
        note(text, quiet=quiet)
    for warning in selection.warnings:
        warn(warning)
    if quiet:
        print(path)
    elif exporting.format == "json":
        print(made.text, end="")
        for line in lines:
            hint(line)
    else:
        from spectrum.reporting import selection_table, trainable_lines  # noqa: PLC0415  it imports rich

        show(selection_table(selection))
        for line in (*trainable_lines(selection, scan, exporting.format), *lines):
            print(one_line(line))
        print(f"selection: {path}")
    if exporting.into is not None:
        write_into(exporting, selection, scan, quiet=quiet)
