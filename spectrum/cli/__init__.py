"""The command line: parses, calls, prints. One file per command."""

from spectrum.cli import import_, scan, select, show
from spectrum.cli.app import app

__all__ = ["app", "import_", "main", "scan", "select", "show"]


def main() -> None:
    """Entry point of `spectrum`."""
    app(prog_name="spectrum")
