"""Choose which weight matrices of a language model to fine-tune, by the signal-to-noise ratio of their singular values.

The public API; each name is imported when it is first used, so that what needs no torch does not wait for it.
"""

import importlib
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "SpectrumError": "spectrum.errors",
    "scan": "spectrum.api",
    "open_checkpoint": "spectrum.checkpoint",
    "open_model": "spectrum.checkpoint",
    "plan_scan": "spectrum.scanning.plan",
    "run_scan": "spectrum.scanning.run",
    "read_scan": "spectrum.results",
    "write_scan": "spectrum.results",
    "import_scan": "spectrum.results",
    "Scan": "spectrum.results",
    "Settings": "spectrum.results",
    "singular_values": "spectrum.spectra.solver",
    "snr": "spectrum.spectra.snr",
    "Choice": "spectrum.selection",
    "LoraOptions": "spectrum.exporting",
    "select": "spectrum.api",
    "check": "spectrum.checking",
    "export": "spectrum.api",
    "diff": "spectrum.api",
    "select_top": "spectrum.selection",
    "compare_scans": "spectrum.selection.diff",
    "to_axolotl": "spectrum.exporting.axolotl",
}

__all__ = [*_HOMES, "__version__"]  # noqa: PLE0604  names of the lazy imports


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
