"""The trainer's config: its values, the lines of its list, and the choice that the header above the list records."""

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from spectrum.checking.findings import Finding
from spectrum.errors import SelectionError
from spectrum.exporting.config_text import Config, ConfigError, Entry, read_config
from spectrum.selection import Choice
from spectrum.selection.reading import read_arguments
from spectrum.spectra.snr import NoiseModel

LONGEST_OPTIONS = 10_000  # characters; anybody may write a comment
_KEY = "unfrozen_parameters"
_TITLE = re.compile(r"\s*# Spectrum: .*")
_OPTIONS = re.compile(r"\s*# options: (.*)")
_NAMES = {str: "text", dict: "a mapping", int: "a number", float: "a number", bool: "a truth value", list: "a list"}


@dataclass(frozen=True)
class Header:
    """What the comment above a list says.

    Attributes:
        line: of the file.
        choice: that made the list; None if it cannot be read.
        noise_model: of the scores; None if it cannot be read.
        reason: half a sentence on why there is no choice.
    """

    line: int
    choice: Choice | None = None
    noise_model: NoiseModel | None = None
    reason: str = ""


@dataclass(frozen=True)
class ListedConfig:
    """A config and its list.

    Attributes:
        path: as the user named it.
        config: the parsed file.
        patterns: (line of the file, text) of each entry of unfrozen_parameters; None if there is no valid list.
        header: the comment that Spectrum wrote above the list; None without one.
    """

    path: str
    config: Config
    patterns: tuple[tuple[int | None, str], ...] | None = None
    header: Header | None = None


def read_listed_config(path: Path) -> tuple[ListedConfig | None, list[Finding]]:
    """Read a config; whatever keeps it from being read is a finding."""
    try:
        config = read_config(path)
    except ConfigError as error:
        remedy = "Give the config file that the trainer is started with."
        return None, [Finding("SPC401", str(error), remedy, str(path), error.line)]
    entries = [entry for entry in config.entries if entry.key == _KEY]
    patterns, findings = _patterns(config, entries, str(path))
    header = last_header(config.text, above=entries[-1].line) if entries else None
    return ListedConfig(str(path), config, patterns, header), findings


def last_header(text: str, *, above: int) -> Header | None:
    """The last header above a line; None if there is none."""
    lines = text.splitlines()[: above - 1]
    titles = [number for number, line in enumerate(lines, 1) if _TITLE.match(line)]
    if not titles:
        return None
    options = [found[1] for line in lines[titles[-1] :] if (found := _OPTIONS.match(line))]
    if not options:
        return Header(titles[-1], reason="has no line '# options:', as older versions wrote it")
    try:
        choice, noise_model = read_arguments(shlex.split(options[-1][:LONGEST_OPTIONS]))
    except (SelectionError, ValueError) as error:
        return Header(titles[-1], reason=f"has options that cannot be read: {str(error)[:200].rstrip('.')}")
    return Header(titles[-1], choice, noise_model)


def _patterns(
    config: Config, entries: Sequence[Entry], path: str
) -> tuple[tuple[tuple[int | None, str], ...] | None, list[Finding]]:
    values = config.data.get(_KEY)
    line = entries[-1].line if entries else None
    if not values:
        message = f"The config has no {_KEY}, or an empty one: Axolotl then trains every parameter."
        return None, [Finding("SPC402", message, "Paste the list that 'spectrum select' prints.", path, line)]
    findings = []
    if len(entries) > 1:
        message = f"{_KEY} occurs {len(entries)} times in the config; only the last one counts."
        findings = [Finding("SPC404", message, "Delete the others.", path, line)]
    items = entries[-1].value.value if entries and isinstance(entries[-1].value, yaml.SequenceNode) else ()
    lines: list[int | None] = [item.start_mark.line + 1 for item in items]
    if not isinstance(values, list):
        return None, [*findings, _not_a_list(path, line, f"it is {_named(values)}")]
    lines = lines or [None] * len(values)  # the list comes from an anchor
    for number, value in zip(lines, values, strict=True):
        if not isinstance(value, str):
            return None, [*findings, _not_a_list(path, number, f"an entry is {_named(value)}")]
    return tuple(zip(lines, values, strict=True)), findings


def _not_a_list(path: str, line: int | None, reason: str) -> Finding:
    remedy = "Write one pattern per line after '- ', in quotes if it begins with '[', '*' or '&'."
    return Finding("SPC403", f"{_KEY} must be a list of strings, but {reason}.", remedy, path, line)


def _named(value: object) -> str:
    return "empty" if value is None else _NAMES.get(type(value), f"a {type(value).__name__}")
