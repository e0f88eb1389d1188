"""Condition numbers, from the spectra stored beside a scan."""

from pathlib import Path

from spectrum.errors import SelectionError
from spectrum.results import Scan, read_extremes
from spectrum.selection.choice import Choice
from spectrum.selection.ranking import condition_numbers


def read_conditions(scan: Scan, choice: Choice, spectra: Path) -> dict[str, float] | None:
    """Condition numbers if the choice ranks by them, else None.

    Args:
        scan: whose parameters are ranked.
        choice: what is asked for.
        spectra: file of the scan's singular values.

    Raises:
        SelectionError: an imported scan, which has no spectra.
        ScanFileError: the file is missing, damaged or of other weights.
    """
    if choice.score != "condition":
        return None
    if scan.settings.origin is not None:
        raise SelectionError(
            f"The scan was imported from '{scan.settings.origin}', which holds SNR only: no singular values, and so no "
            "condition numbers. Choose by --score snr, or scan the model."
        )
    return condition_numbers(scan, read_extremes(spectra, fingerprint=scan.model.fingerprint))
