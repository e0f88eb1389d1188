"""A stored scan as the options ask for it: under a noise model, with some of its module types."""

from collections.abc import Sequence
from pathlib import Path

from spectrum.cli.options import NoiseModelName
from spectrum.naming import match_module_types
from spectrum.results import Scan, read_spectra, rescore
from spectrum.scanning.reuse import narrow


def rescored(scan: Scan, scan_file: Path, noise_model: NoiseModelName | None) -> Scan:
    """The scan under a noise model, from the spectra stored beside its file; as it is where that is its own."""
    if noise_model is None or noise_model.value == scan.settings.noise_model:
        return scan
    return rescore(scan, read_spectra(spectra_file(scan_file), fingerprint=scan.model.fingerprint), noise_model.value)


def spectra_file(scan_file: Path) -> Path:
    """Where the spectra of a scan stand: beside its file."""
    return scan_file.with_name(f"{scan_file.name.removesuffix('.json')}.spectra.safetensors")


def narrowed(scans: Sequence[Scan], modules: Sequence[str] | None, exclude: Sequence[str] | None) -> list[Scan]:
    """The scans with the module types that `--modules` and `--exclude` leave of those of all of them.

    Raises:
        SpectrumError: a pattern that matches none.
    """
    if not modules and not exclude:
        return list(scans)
    types = {item.module_type for scan in scans for item in scan.parameters}
    wanted = match_module_types(types, modules or (), exclude or ())
    return [narrow(scan, [item.name for item in scan.parameters if item.module_type in wanted]) for scan in scans]
