"""Find out before a slow scan whether its selection can be written."""

from pathlib import Path

from spectrum.exporting.into import edited_config
from spectrum.exporting.targets import export, file_name
from spectrum.results import Scan, check_writable
from spectrum.selection import Choice, select


def rehearse(
    blank: Scan,
    choice: Choice,
    format: str,  # noqa: A002
    *,
    stem: Path | None = None,
    into: Path | None = None,
) -> None:
    """Choose, export and edit the config as after the scan, but write nothing.

    Args:
        blank: with equal scores; see `scanning.scoring.blank_scan`.
        choice: what to select.
        format: that the selection will be written in.
        stem: of the result files, if they will be written.
        into: Axolotl config that the selection will be put into.

    Raises:
        SpectrumError: as `select`, `export`, `put_into` and the writing of the selection would raise it.
    """
    selection = select(blank, choice)
    export(selection, blank, format)
    if stem is not None:
        check_writable(stem.with_name(file_name(stem.name, selection, format)))
    if into is not None:
        edited_config(into, selection, blank, format)
