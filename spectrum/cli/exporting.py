"""The selection put into a config, with its messages printed."""

from spectrum.cli.options import ExportOptions
from spectrum.cli.output import hint, warn
from spectrum.exporting import put_into
from spectrum.results import Scan
from spectrum.selection import Selection


def write_into(options: ExportOptions, selection: Selection, scan: Scan, *, quiet: bool = False) -> None:
    """Put the selection into the config of `--into`, and say what was changed there."""
    assert options.into is not None
    messages, written = put_into(options.into, selection, scan, options.format, lora=options.lora)
    for message in messages:
        warn(f"{options.into}: {message}")
    done = "Wrote the selection into" if written else "This selection was already in"
    hint(f"{done} '{options.into}'.", quiet=quiet)
