"""`spectrum scan`: the main job."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

import typer

from spectrum.checkpoint import Checkpoint, Fetch, open_checkpoint, open_model, written_since
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
from spectrum.cli.plan import plan_lines
from spectrum.distributed import Team, team
from spectrum.errors import CheckpointError, ScanFileError, one_line
from spectrum.results import (
    Scan,
    Settings,
    check_writable,
    file_stem,
    read_scan,
    read_spectra,
    replace_file,
    rescore,
    write_scan,
    write_spectra,
)
from spectrum.results.build import Plan, plan_scan, run_scan, total_cost, with_device
from spectrum.results.lock import locked
from spectrum.results.partial import PartialScan
from spectrum.results.reuse import adopt, narrow, why_not_reusable
from spectrum.selection import Selection, overlap, select

_Both: TypeAlias = tuple[Scan, Scan]  # as the file has it, and under the noise model asked for


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
    with (
        team() as ranks,
        _open(model, revision=revision, token=token, fetch=fetch, quiet=quiet or not ranks.leads) as checkpoint,
    ):
        quiet = quiet or not ranks.leads
        plan = plan_scan(checkpoint, settings)
        for note in plan.notes:
            hint(f"note: {note}", quiet=quiet and (plan.model.name_mapping == "exact" or not ranks.leads))
        stem = out / file_stem(checkpoint.id)
        if dry_run:
            print("\n".join(plan_lines(checkpoint, with_device(plan, team=ranks)) if ranks.leads else []))
            return
        result = _obtain(checkpoint, plan, stem, ranks, rescan=rescan, quiet=quiet)
    if result is None:  # the rank that leads writes and prints
        return
    stored, chosen = (narrow(each, [item.name for item in plan.scored]) for each in result)
    conditions = read_conditions(chosen, choice, _spectra_file(stem))
    selection = select(chosen, choice, conditions=conditions)
    lines = overlap_lines(overlap(selection, choice, chosen, stored, conditions=conditions))
    made = export(selection, chosen, format, lora)
    _report(selection, chosen, made, default_path(stem, selection.tag, chosen, format), format, lines, quiet=quiet)
    if into is not None:
        put_into(into, selection, chosen, format, lora, quiet=quiet)


def _open(model: str | None, *, revision: str | None, token: str | None, fetch: Fetch, quiet: bool) -> Checkpoint:
    if model is not None:
        return open_model(
            model, revision=revision, token=token, fetch=fetch, notify=lambda text: hint(f"note: {text}", quiet=quiet)
        )
    from spectrum.demo import demo_checkpoint  # noqa: PLC0415

    return open_checkpoint(demo_checkpoint())


def _obtain(checkpoint: Checkpoint, plan: Plan, stem: Path, ranks: Team, *, rescan: bool, quiet: bool) -> _Both | None:
    """The stored scan where it fits, else a new one; None on the ranks that do not lead."""
    if not ranks.leads:
        if not ranks.gather(False)[0]:
            run_scan(checkpoint, plan, team=ranks)
        return None
    check_writable(stem.parent, _spectra_file(stem).name)
    with locked(stem.with_name(f".{stem.name}.lock"), on_wait=_waiting):
        stored = None if rescan else _stored(checkpoint, stem, plan, quiet=quiet)
        ranks.gather(stored is not None)
        if stored is not None:
            return stored
        result = _scan(checkpoint, plan, stem, ranks, quiet=quiet)
        return result, result


def _waiting(holder: str) -> None:
    hint(f"Another scan of this model writes to this folder ({holder}); waiting until it is done.")


def _stored(checkpoint: Checkpoint, stem: Path, plan: Plan, *, quiet: bool) -> _Both | None:
    """The scan stored under this name; None where it does not fit any more."""
    path = _scan_file(stem)
    if not path.exists():
        return None
    try:
        stored = scored = read_scan(path)
        reason = why_not_reusable(stored, plan)
        if reason is None and written_since(checkpoint, path.stat().st_mtime_ns):
            reason = "files of the checkpoint were written after it"
        if reason is None and stored.model != plan.model:
            stored = scored = adopt(stored, plan)
            write_scan(stored, path)
        if reason is None and stored.settings.noise_model != plan.settings.noise_model:
            spectra = read_spectra(_spectra_file(stem), fingerprint=stored.model.fingerprint)
            scored = rescore(stored, spectra, plan.settings.noise_model)  # the file keeps its noise model
    except ScanFileError as error:
        reason = f"it cannot be used ({error})"
    if reason is None:
        hint(f"Using the stored scan '{path}'; --rescan makes a new one.", quiet=quiet)
        return stored, scored
    warn(f"the stored scan '{path}' is replaced: {reason}.")
    return None


def _scan(checkpoint: Checkpoint, plan: Plan, stem: Path, ranks: Team, *, quiet: bool) -> Scan:
    plan = with_device(plan, team=ranks)
    together = f" on {ranks.size} ranks" if ranks.size > 1 else ""
    what = f"{plan.matrix_count} matrices of {len(plan.scored)} parameters of '{plan.model.id}'"
    hint(f"Scanning {what}{together}.", quiet=quiet)
    if checkpoint.remote:  # it costs time that the user should know of
        for line in plan_lines(checkpoint, plan)[1:]:
            hint(line, quiet=quiet)
    files = checkpoint.states()
    with PartialScan(_partial_file(stem), plan.model, plan.settings, files=files) as partial:
        if partial.set_aside:
            warn(f"'{partial.path}' is of another scan (weights, files, names, settings); now '{partial.set_aside}'.")
        if partial.done:
            hint(f"Carrying on: {len(partial.done)} matrices were finished before.", quiet=quiet)
        with progress(total_cost(plan), plan.matrix_count, quiet=quiet) as advance:
            result, spectra = run_scan(checkpoint, plan, team=ranks, partial=partial, on_done=advance)
        if checkpoint.states() != files:
            raise CheckpointError(
                f"Files of '{checkpoint.folder}' were written while they were scanned. "
                "Run the command again when nothing writes to them."
            )
        assert plan.model.fingerprint is not None
        # The scan file last: where it stands, its spectra stand beside it.
        write_spectra(spectra, _spectra_file(stem), fingerprint=plan.model.fingerprint)
        write_scan(result, _scan_file(stem))
        partial.remove()
    hint(f"Wrote '{_scan_file(stem)}' and '{_spectra_file(stem)}'.", quiet=quiet)
    return result


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
        from spectrum.report import selection_table, trainable_line  # noqa: PLC0415  it imports rich

        show(selection_table(selection))
        print(trainable_line(selection, scan))
        for line in lines:
            print(one_line(line))
        print(f"selection: {path}")


def _scan_file(stem: Path) -> Path:
    return stem.with_name(f"{stem.name}.json")


def _spectra_file(stem: Path) -> Path:
    return stem.with_name(f"{stem.name}.spectra.safetensors")


def _partial_file(stem: Path) -> Path:
    return stem.with_name(f"{stem.name}.partial.jsonl")
