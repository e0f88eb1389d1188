"""A stored scan as the options ask for it: under a noise model, with some of its module types."""

from collections.abc import Sequence
from pathlib import Path

from spectrum.results import Scan
from spectrum.scanning import union
from spectrum.scanning.store import spectra_file
from spectrum.spectra.snr import NoiseModel

__all__ = ["narrowed", "rescored", "spectra_file"]


def rescored(scan: Scan, scan_file: Path, noise_model: NoiseModel | None) -> Scan:
    """The scan under a noise model, from the spectra stored beside its file."""
    return union.rescored(scan, spectra_file(scan_file), noise_model)


def narrowed(scans: Sequence[Scan], modules: Sequence[str] | None, exclude: Sequence[str] | None) -> list[Scan]:
    """The scans with the module types that `--modules` and `--exclude` leave."""
    return union.narrowed(scans, modules or (), exclude or ())
