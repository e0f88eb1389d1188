"""`spectrum scan`: the main job."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import typer

from spectrum.checkpoint import Checkpoint, Fetch, open_checkpoint, open_model
from spectrum.cli.app import app
from spectrum.cli.choice import overlap_lines, read_choice, read_conditions
from spectrum.cli.exporting import (
    Exported,
    Into,
    Lora,
    LoraAlpha,
    LoraRank,
    Qlora,
    RankPattern,
    check_options,
    default_path,
    export,
    put_into,
)
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
    ScoreOption,
    Seed,
    StrategyOption,
    Top,
    Trainable,
    TreatmentName,
    WholeLayers,
    known_device,
)
from spectrum.cli.output import hint, progress, show, warn
from spectrum.cli.published import PUBLISHED_URL, published_scan
from spectrum.errors import one_line
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
from spectrum.selection import Choice, Selection, overlap, select


@app.command(epilog="Example: spectrum scan --model ./Meta-Llama-3-8B --top 25 --exclude 'self_attn.v_proj'")
def scan(
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
    all_modules: Annotated[
        bool, typer.Option("--all-modules", help="Score embeddings, heads and routers as well.")
    ] = False,
    embeddings: Embeddings = TreatmentName.train,
    norms: Norms = TreatmentName.freeze,
    noise_model: Annotated[
        NoiseModelName, typer.Option("--noise-model", help="Where the threshold between noise and signal lies.")
    ] = NoiseModelName.iqr,
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
    device: Annotated[
        str, typer.Option("--device", callback=known_device, help="auto, cpu, cuda, cuda:N or mps.")
    ] = "auto",
    out: Annotated[Path, typer.Option("--out", metavar="FOLDER", help="Folder for the results.")] = Path("snr_results"),
    format: FormatOption = Format.axolotl,  # noqa: A002  the option's name
    into: Into = None,
    lora_rank: LoraRank = None,
    lora_alpha: LoraAlpha = None,
    rank_pattern: RankPattern = False,
    qlora: Qlora = False,
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
    lora = Lora(lora_rank, lora_alpha, by_snr=rank_pattern, four_bit=qlora)
    check_options(format, lora, into)
    settings = Settings(
        noise_model=noise_model.value,
        device=device,
        precision=precision,
        modules=tuple(modules or ()),
        exclude=tuple(exclude or ()),
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
        _choose(scanned, choice, format, lora, into, quiet=quiet)
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
        _choose(scanned, choice, format, lora, into, quiet=quiet)


def _choose(scanned: Scanned, choice: Choice, target: Format, lora: Lora, into: Path | None, *, quiet: bool) -> None:
    """Make the selection, write and print it."""
    scan = scanned.scan
    conditions = read_conditions(scan, choice, scanned.place.spectra_file)
    selection = select(scan, choice, conditions=conditions)
    lines = overlap_lines(overlap(selection, choice, scan, scanned.as_stored, conditions=conditions))
    made = export(selection, scan, target, lora)
    _report(
        selection, scan, made, default_path(scanned.place.stem, selection.tag, scan, target), target, lines, quiet=quiet
    )
    if into is not None:
        put_into(into, selection, scan, target, lora, quiet=quiet)


def _open(model: str | None, *, revision: str | None, token: str | None, fetch: Fetch, quiet: bool) -> Checkpoint:
    if model is not None:
        return open_model(
            model, revision=revision, token=token, fetch=fetch, notify=lambda text: hint(f"note: {text}", quiet=quiet)
        )
    from spectrum.demo import demo_checkpoint  # noqa: PLC0415

    return open_checkpoint(demo_checkpoint())


def _report(
    selection: Selection, scan: Scan, made: Exported, path: Path, target: Format, lines: Sequence[str], *, quiet: bool
) -> None:
    replace_file(path, lambda temporary: temporary.write_text(made.text, encoding="utf-8"))
    for note in made.notes:
        hint(f"note: {note}", quiet=quiet)
    for warning in selection.warnings:
        warn(warning)
    if quiet:
        print(path)
    elif target is Format.json:
        print(made.text, end="")
        for line in lines:
            hint(line)
    else:
        from spectrum.reporting import selection_table, trainable_line  # noqa: PLC0415  it imports rich

        show(selection_table(selection))
        print(trainable_line(selection, scan))
        for line in lines:
            print(one_line(line))
        print(f"selection: {path}")
