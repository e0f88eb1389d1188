"""The commands as functions: each takes a scan, or the path of a scan file, and needs a line."""

from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

from spectrum.errors import SpectrumError
from spectrum.results import Scan, read_extremes, read_scan
from spectrum.scanning.store import spectra_file
from spectrum.scanning.union import narrowed, rescored
from spectrum.selection import Choice, Selection, TopPercent, Treatment, condition_numbers
from spectrum.selection import select as choose
from spectrum.selection.diff import Diff, compare_scans
from spectrum.spectra.snr import NoiseModel

ScanOrPath: TypeAlias = Scan | str | Path


def select(
    scan: ScanOrPath,
    top: float | Choice = 25,
    *,
    modules: Sequence[str] = (),
    exclude: Sequence[str] = (),
    noise_model: NoiseModel | None = None,
    embeddings: Treatment = "train",
    norms: Treatment = "freeze",
) -> Selection:
    """The parameters to train.

    Args:
        scan: to choose from.
        top: percentage of each module type, 0 < top <= 100; or a `Choice`, which says everything itself.
        modules: shell patterns of module types to choose from; () is all.
        exclude: patterns of module types to leave out.
        noise_model: of the scores; None is the scan's. Another one needs the path of the scan file.
        embeddings: whether the embedding and the head are trained.
        norms: whether all norms are trained.

    Raises:
        SpectrumError: a file that cannot be read, a pattern that matches nothing, or nothing to choose.
    """
    choice = top if isinstance(top, Choice) else Choice(TopPercent(top), embeddings=embeddings, norms=norms)
    value = _scored(scan, noise_model)
    conditions = None
    if choice.score == "condition":
        path = spectra_file(_path(scan, "condition numbers"))
        conditions = condition_numbers(value, read_extremes(path, fingerprint=value.model.fingerprint))
    (value,) = narrowed([value], modules, exclude)
    return choose(value, choice, conditions=conditions)


def export(selection: Selection, scan: ScanOrPath, format: str = "axolotl") -> str:  # noqa: A002
    """A selection as the text that a trainer takes.

    Args:
        selection: what to train.
        scan: that it was chosen from.
        format: one of those of `spectrum select --format`.

    Raises:
        SelectionError: an unknown format, or a selection that the format cannot express.
    """
    from spectrum import exporting  # noqa: PLC0415  the other functions do not need it

    return exporting.export(selection, _scored(scan, None), format).text


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


def _scored(scan: ScanOrPath, noise_model: NoiseModel | None) -> Scan:
    value = scan if isinstance(scan, Scan) else read_scan(Path(scan))
    if noise_model in (None, value.settings.noise_model):
        return value
    return rescored(value, spectra_file(_path(scan, f"noise model {noise_model}")), noise_model)


def _path(scan: ScanOrPath, purpose: str) -> Path:
    if isinstance(scan, Scan):
        raise SpectrumError(f"The singular values for {purpose} are beside the scan file: give its path.")
    return Path(scan)
