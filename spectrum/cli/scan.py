"""`spectrum scan`: the main job."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import typer

from spectrum.checkpoint import Checkpoint, Fetch, open_checkpoint, open_model
from spectrum.cli.app import command
from spectrum.cli.choice import overlap_lines, read_choice
from spectrum.cli.exporting import write_into
from spectrum.cli.options import ChoiceOptions, Device, ExportOptions, ModuleOptions
from spectrum.cli.output import hint, progress, show, warn
from spectrum.cli.published import PUBLISHED_URL, published_scan
from spectrum.errors import one_line
from spectrum.exporting import Exported, export, file_name
from spectrum.results import (
    Scan,
    Settings,
    file_stem,
    replace_file,
)
from spectrum.scanning.plan import plan_scan
from spectrum.scanning.progress import Listener
from spectrum.scanning.ranks import team
from spectrum.scanning.scanning import Scanned, obtain, preview
from spectrum.scanning.store import Place
from spectrum.selection import Choice, Selection, overlap, read_conditions, select
from spectrum.spectra.snr import NoiseModel


@command(example="spectrum scan --model ./Meta-Llama-3-8B --top 25 --exclude 'self_attn.v_proj'")
def scan(
    choosing: ChoiceOptions,
    modules: ModuleOptions,
    exporting: ExportOptions,
    model: Annotated[
        str | None,
        typer.Option("--model", metavar="MODEL", help="owner/name[@revision] on the Hub, or a folder or file."),
    ] = None,
    demo: Annotated[bool, typer.Option("--demo", help="Scan the embedded demo, a small Llama.")] = False,
    revision: Annotated[
        str | None, typer.Option("--revision", metavar="REV", help="Branch, tag or commit of a model on the Hub.")
    ] = None,
    token: Annotated[
        str | None,
        typer.Option("--token", metavar="TOKEN", help="For private and gated models; by default the stored login."),
    ] = None,
    fetch: Annotated[
        Literal["auto", "stream", "download"],
        typer.Option("--fetch", help="Read a model on the Hub over the network, or download it into the Hub's cache."),
    ] = "auto",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be read and computed, and stop there.")
    ] = False,
    published: Annotated[
        bool, typer.Option("--published", help="Take the scores that the authors of the paper published, scan nothing.")
    ] = False,
    published_url: Annotated[
        str, typer.Option("--published-url", metavar="URL", help="Folder of their result files.")
    ] = PUBLISHED_URL,
    all_modules: Annotated[
        bool, typer.Option("--all-modules", help="Score embeddings, heads and routers as well.")
    ] = False,
    noise_model: Annotated[
        NoiseModel, typer.Option("--noise-model", help="Where the threshold between noise and signal lies.")
    ] = "iqr",
    experts: Annotated[
        int | None,
        typer.Option("--experts", metavar="N", min=1, help="Score N experts of each layer, drawn by a fixed seed."),
    ] = None,
    names: Annotated[
        Literal["runtime", "checkpoint"],
        typer.Option("--names", help="Name parameters as the trainer sees them, or as the checkpoint does."),
    ] = "runtime",
    model_class: Annotated[
        str | None,
        typer.Option("--model-class", metavar="CLASS", help="The transformers class the trainer loads."),
    ] = None,
    precision: Annotated[
        Literal["auto", "float32", "float64"],
        typer.Option("--precision", help="auto redoes in float64 what float32 cannot resolve."),
    ] = "auto",
    device: Device = "auto",
    out: Annotated[Path, typer.Option("--out", metavar="FOLDER", help="Folder for the results.")] = Path("snr_results"),
    rescan: Annotated[bool, typer.Option("--rescan", help="Scan again although a stored scan fits.")] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Print only the selection's path, and warnings.")
    ] = False,
) -> None:
    """Score a checkpoint's weight matrices and select from them: by default the top 25 percent of each module type.

    Writes <model>.json (the scan), <model>.spectra.safetensors (all singular values) and <model>.top25.yaml (the
    selection, named after what was asked for) to the output folder. A stored scan that still fits the weights is used
    again.
    """
    choice = read_choice(choosing, modules, format=exporting.format)
    exporting.check()
    settings = Settings(
        noise_model=noise_model,
        device=device,
        precision=precision,
        modules=choice.modules,
        exclude=choice.exclude,
        all_modules=all_modules,
        names=names,
        model_class=model_class,
        experts=experts,
    )
    if demo == (model is not None):
        raise typer.BadParameter("give either --model MODEL or --demo.", param_hint="--model")
    if demo and (revision or token or fetch != "auto"):
        raise typer.BadParameter("it is on this machine: no --revision, --token or --fetch.", param_hint="--demo")
    if published:
        if model is None or dry_run:
            raise typer.BadParameter("it takes --model owner/name, and no --dry-run.", param_hint="--published")
        chosen = published_scan(model, published_url, out, modules=settings.modules, exclude=settings.exclude)
        scanned = Scanned(chosen, chosen, Place(out / file_stem(chosen.model.id)))
        _choose(scanned, choice, exporting, quiet=quiet)
        return
    with (
        team() as ranks,
        _open(model, revision=revision, token=token, fetch=fetch, quiet=quiet or not ranks.leads) as checkpoint,
    ):
        quiet = quiet or not ranks.leads
        plan = plan_scan(checkpoint, settings)
        for note in plan.notes:
            hint(f"note: {note}", quiet=quiet and (plan.model.name_mapping == "exact" or not ranks.leads))
        if dry_run:
            if ranks.leads:
                print("\n".join(preview(checkpoint, plan, out, ranks=ranks)))
            return
        with progress(quiet=quiet) as show_progress:
            listener = Listener(lambda text: hint(text, quiet=quiet), warn, show_progress)
            scanned = obtain(checkpoint, plan, out, ranks=ranks, rescan=rescan, listener=listener)
    if ranks.leads:
        _choose(scanned, choice, exporting, quiet=quiet)


def _choose(scanned: Scanned, choice: Choice, exporting: ExportOptions, *, quiet: bool) -> None:
    """Make the selection, write and print it."""
    scan, stem = scanned.scan, scanned.place.stem
    conditions = read_conditions(scan, choice, scanned.place.spectra_file)
    selection = select(scan, choice, conditions=conditions)
    lines = overlap_lines(overlap(selection, choice, scan, scanned.as_stored, conditions=conditions))
    made = export(selection, scan, exporting.format, lora=exporting.lora)
    path = stem.with_name(file_name(stem.name, selection, exporting.format))
    _report(selection, scan, made, path, exporting.format, lines, quiet=quiet)
    if exporting.into is not None:
        write_into(exporting, selection, scan, quiet=quiet)


def _open(model: str | None, *, revision: str | None, token: str | None, fetch: Fetch, quiet: bool) -> Checkpoint:
    if model is not None:
        return open_model(
            model, revision=revision, token=token, fetch=fetch, notify=lambda text: hint(f"note: {text}", quiet=quiet)
        )
    from spectrum.demo import demo_checkpoint  # noqa: PLC0415

    return open_checkpoint(demo_checkpoint())


def _report(
    selection: Selection, scan: Scan, made: Exported, path: Path, target: str, lines: Sequence[str], *, quiet: bool
) -> None:
    replace_file(path, lambda temporary: temporary.write_text(made.text, encoding="utf-8"))
    for note in made.notes:
        hint(f"note: {note}", quiet=quiet)
    for warning in selection.warnings:
        warn(warning)
    if quiet:
        print(path)
    elif target == "json":
        print(made.text, end="")
        for line in lines:
            hint(line)
    else:
        from spectrum.reporting import selection_table, trainable_lines  # noqa: PLC0415  it imports rich

        show(selection_table(selection))
        for line in (*trainable_lines(selection, scan, target), *lines):
            print(one_line(line))
        print(f"selection: {path}")
