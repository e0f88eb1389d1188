"""The comment that Spectrum wrote above a list: the choice that made it."""

import re
import shlex
from dataclasses import dataclass

from spectrum.checking.findings import Finding
from spectrum.errors import SelectionError
from spectrum.selection import Choice
from spectrum.selection.reading import read_arguments
from spectrum.spectra.snr import NoiseModel

LONGEST = 10_000  # characters; a config is anybody's text
_TITLE = re.compile(r"\s*# Spectrum: .*")
_OPTIONS = re.compile(r"\s*# options: (.*)")


@dataclass(frozen=True)
class Header:
    """What the comment above a list says.

    Attributes:
        line: of the file.
        choice: that made the list; None if the comment does not hold it.
        noise_model: of the scores; None if the comment does not hold it.
        reason: half a sentence on why there is no choice.
    """

    line: int
    choice: Choice | None = None
    noise_model: NoiseModel | None = None
    reason: str = ""


def read_header(text: str, *, above: int) -> Header | None:
    """The last header above a line; None if there is none."""
    lines = text.splitlines()[: above - 1]
    titles = [number for number, line in enumerate(lines, 1) if _TITLE.match(line)]
    if not titles:
        return None
    options = [found[1] for line in lines[titles[-1] :] if (found := _OPTIONS.match(line))]
    if not options:
        return Header(titles[-1], reason="has no line '# options:', as older versions wrote it")
    try:
        choice, noise_model = read_arguments(shlex.split(options[-1][:LONGEST]))
    except (SelectionError, ValueError) as error:
        return Header(titles[-1], reason=f"has options that cannot be read: {str(error)[:200].rstrip('.')}")
    return Header(titles[-1], choice, noise_model)


def unclear(header: Header) -> Finding:
    """That a list was not compared, because its header does not hold the choice."""
    message = f"The list was not compared with the scan, because its header {header.reason}."
    return Finding(
        "SPC418", message, "Give check the options of 'spectrum select' that made the list.", line=header.line
    )
