"""The scores that the authors of the paper published, in place of a scan."""

from collections.abc import Sequence
from pathlib import Path

from spectrum.cli.output import hint, warn
from spectrum.cli.stored import narrowed
from spectrum.errors import SpectrumError
from spectrum.results import Scan, file_stem, read_scan, write_scan
from spectrum.results.published import fetch_published

PUBLISHED_URL = "https://raw.githubusercontent.com/QuixiAI/spectrum/main/model_snr_results"


def published_scan(model: str, base_url: str, out: Path, *, modules: Sequence[str], exclude: Sequence[str]) -> Scan:
    """The published scan of a model, stored in `out` and narrowed to the modules asked for.

    Raises:
        SpectrumError: there is none, it cannot be had, or a scan made here would be replaced.
    """
    path = out / f"{file_stem(model)}.json"
    if path.exists() and read_scan(path).settings.origin is None:
        raise SpectrumError(f"'{path}' is a scan that was made here; choose another folder with --out.")
    scan = fetch_published(model, base_url)
    write_scan(scan, path)
    hint(f"Imported '{scan.settings.origin}' to '{path}'.")
    warn(
        "published scores tell neither the revision of the model nor shapes, and their names are those of the "
        "checkpoint; scan the model for an exact list."
    )
    return narrowed([scan], modules, exclude)[0]
