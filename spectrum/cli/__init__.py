"""The command line: parses, calls, prints. One file per command."""

import sys

__all__ = ["main"]


def main() -> None:
    """Entry point of `spectrum`; Ctrl-C while it still loads ends in one line, too."""
    try:
        from spectrum.cli.commands import app  # noqa: PLC0415

        app(prog_name="spectrum")
    except KeyboardInterrupt:
        print("spectrum: interrupted.", file=sys.stderr)
        sys.exit(130)
