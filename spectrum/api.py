"""The commands as functions of a line each: one makes a scan, the others take one, or the path of its file."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

from spectrum.checkpoint import Fetch, open_model
from spectrum.errors import SpectrumError
from spectrum.exporting import LoraOptions
from spectrum.exporting import export as write_text
from spectrum.results import Scan, Settings, read_scan, spectra_file
from spectrum.results.scan import Precision
from spectrum.scanning.obtain import obtain
from spectrum.scanning.plan import plan_scan
from spectrum.scanning.progress import SILENT, Listener, Progress
from spectrum.scanning.ranks import team
from spectrum.scanning.union import rescored
from spectrum.selection import Choice, Selection, TopPercent, Treatment, read_conditions
from spectrum.selection import select as choose
from spectrum.selection.diff import Diff, compare_scans
from spectrum.spectra.snr import NoiseModel

ScanOrPath: TypeAlias = Scan | str | Path


def scan(
    model: str | Path,
    *,
    modules: str | Sequence[str] = (),
    exclude: str | Sequence[str] = (),
    all_modules: bool = False,
    noise_model: NoiseModel = "iqr",
    experts: int | None = None,
    model_class: str | None = None,
    precision: Precision = "auto",
    device: str = "auto",
    out: str | Path = "snr_results",
    revision: str | None = None,
    token: str | None = None,
    fetch: Fetch = "auto",
    rescan: bool = False,
    progress: Callable[[Progress], None] | None = None,
    notify: Callable[[str], None] | None = None,
) -> Scan:
    """Score the weight matrices of a checkpoint, as the command `spectrum scan` does.

    What the folder `out` holds about these weights is used again, an interrupted scan is resumed, and only one process
    at a time writes there. Under torchrun the ranks share the work, rank 0 writes, and every rank returns the scan.

    Args:
        model: a folder, a file, or 'owner/name' on the Hub.
        modules: shell pattern of module types to score, or several; () is all.
        exclude: patterns of module types to leave out.
        all_modules: score embeddings, heads and routers as well.
        noise_model: where the threshold between noise and signal lies.
        experts: score this many experts of each layer, drawn with a fixed seed; None is all.
        model_class: the transformers class that the trainer loads; None is the usual one.
        precision: 'auto', 'float32' or 'float64'.
        device: 'auto', or a device as torch names it.
        out: folder for the results.
        revision: branch, tag or commit of a model on the Hub.
        token: for private models on the Hub; by default the stored login.
        fetch: whether a model on the Hub is read over the network or downloaded first.
        rescan: decompose again what is stored.
        progress: called when decomposing begins and after every matrix.
        notify: called with each message for the user.

    Returns:
        The scores asked for; the scan file may hold more.

    Raises:
        SpectrumError: one of its children for each kind of failure; what is finished is kept.
    """
    settings = Settings(
        noise_model=noise_model,
        device=device,
        precision=precision,
        modules=_patterns(modules),
        exclude=_patterns(exclude),
        all_modules=all_modules,
        model_class=model_class,
        experts=experts,
    )
    notify = notify or SILENT.hint
    listener = Listener(notify, notify, progress or SILENT.progress)
    with (
        team() as ranks,
        open_model(str(model), revision=revision, token=token, fetch=fetch, notify=notify) as checkpoint,
    ):
        plan = plan_scan(checkpoint, settings)
        return obtain(checkpoint, plan, Path(out), ranks=ranks, rescan=rescan, listener=listener).scan


def select(
    scan: ScanOrPath,
    top: float | Choice = 25,
    *,
    modules: str | Sequence[str] = (),
    exclude: str | Sequence[str] = (),
    noise_model: NoiseModel | None = None,
    embeddings: Treatment = "train",
    norms: Treatment = "freeze",
) -> Selection:
    """The parameters to train.

    Args:
        scan: to choose from.
        top: percentage of each module type, 0 < top <= 100; or a `Choice`, which says everything itself.
        modules: shell pattern of module types to choose from, or several; () is those of `top`.
        exclude: patterns of module types to leave out; likewise.
        noise_model: of the scores; None is the scan's. Another one needs the path of the scan file.
        embeddings: whether the embedding and the head are trained. The default suits full training. The command freezes
            them in selections for adapters; give 'freeze' to do the same.
        norms: whether all norms are trained.

    Raises:
        SpectrumError: a file that cannot be read, a pattern that matches nothing, or nothing to choose.
    """
    choice = top if isinstance(top, Choice) else Choice(TopPercent(top), embeddings=embeddings, norms=norms)
    choice = replace(choice, modules=_patterns(modules) or choice.modules, exclude=_patterns(exclude) or choice.exclude)
    value = _scored(scan, noise_model)
    conditions = None
    if choice.score == "condition":
        conditions = read_conditions(value, choice, spectra_file(_path(scan, "condition numbers")))
    return choose(value, choice, conditions=conditions)


def export(
    selection: Selection,
    scan: ScanOrPath,
    format: str = "axolotl",  # noqa: A002
    *,
    lora: LoraOptions | None = None,
) -> str:
    """A selection as the text that a trainer takes.

    Args:
        selection: what to train.
        scan: that it was chosen from.
        format: one of those of `spectrum select --format`.
        lora: how adapters are made; only for the formats that have some.

    Raises:
        SelectionError: an unknown format, or a selection that the format cannot express.
    """
    return write_text(selection, _scored(scan, None), format, lora=lora).text


def diff(
    first: ScanOrPath,
    second: ScanOrPath,
    *,
    noise_model: NoiseModel | None = None,
    percents: Sequence[float] = (10, 25, 50),
) -> Diff:
    """Compare two scans: correlation of the rankings, overlap of the selections, largest movers.

    Args:
        first: what is compared with.
        second: what is compared.
        noise_model: of both; None is the scans' own.
        percents: at which selections are compared.

    Raises:
        SpectrumError: a file that cannot be read, or scans without a parameter in common.
    """
    return compare_scans(_scored(first, noise_model), _scored(second, noise_model), percents=percents)


def _patterns(given: str | Sequence[str]) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else tuple(given)


def _scored(scan: ScanOrPath, noise_model: NoiseModel | None) -> Scan:
    value = scan if isinstance(scan, Scan) else read_scan(Path(scan))
    if noise_model in (None, value.settings.noise_model):
        return value
    return rescored(value, _path(scan, f"noise model {noise_model}"), noise_model)


def _path(scan: ScanOrPath, purpose: str) -> Path:
    if isinstance(scan, Scan):
        raise SpectrumError(f"The singular values for {purpose} are beside the scan file: give its path.")
    return Path(scan)
