"""The trainer's config: read with bounds, its values beside the lines they stand on."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from spectrum.checking.findings import Finding
from spectrum.checking.header import Header, read_header

LARGEST_BYTES = 2**20  # a selection of 10,000 parameters has half of it
DEEPEST = 50
MOST_VALUES = 200_000  # with every alias written out: a kilobyte of them can stand for 10^9 values

_KEY = "unfrozen_parameters"


class _ConfigError(ValueError):
    """Why a config is not read, and where."""

    def __init__(self, message: str, line: int | None = None) -> None:
        super().__init__(message)
        self.line = line


@dataclass(frozen=True)
class Config:
    """A config as it was read.

    Attributes:
        path: as the user named it.
        values: as the trainer's YAML parser gives them.
        patterns: (line of the file, text) of each entry of unfrozen_parameters; None where they cannot be had.
        header: that Spectrum wrote above the list; None without one.
    """

    path: str
    values: Mapping[str, Any]
    patterns: tuple[tuple[int, str], ...] | None = None
    header: Header | None = None
    _lines: Mapping[tuple[str, ...], int] = field(default_factory=dict)

    def line(self, keys: Sequence[str]) -> int | None:
        """Line of a key, or of the innermost of its parents that stands in the file."""
        found = [self._lines.get(tuple(keys[:depth])) for depth in range(len(keys), 0, -1)]
        return next((line for line in found if line is not None), None)


def read_config(path: Path) -> tuple[Config | None, list[Finding]]:
    """Read a config; whatever keeps it from being read is a finding."""
    try:
        text = _text(path)
        node, values = _load(text)
    except _ConfigError as error:
        remedy = "Give the config file that the trainer is started with."
        return None, [Finding("SPC401", f"The config '{path}' {error}.", remedy, str(path), error.line)]
    patterns, findings = _patterns(node, values, str(path))
    header = read_header(text, before=patterns[0][0]) if patterns else None
    return Config(str(path), values, patterns, header, dict(_key_lines(node))), findings


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST_BYTES + 1)
    except OSError as error:
        raise _ConfigError(f"cannot be read: {error.strerror}") from error
    if len(data) > LARGEST_BYTES:
        raise _ConfigError(f"is larger than {LARGEST_BYTES:,} bytes")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise _ConfigError("is not UTF-8 text") from error


def _load(text: str) -> tuple[yaml.MappingNode, dict[str, Any]]:
    """The node tree, which has the lines, and the values; each step is bounded by what the one before it found."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        _check_depth(yaml.parse(text, Loader=loader))
        node = yaml.compose(text, Loader=loader)
        if not isinstance(node, yaml.MappingNode):
            raise _ConfigError("is no mapping of keys to values", 1)
        _check_size(node, {})
        values = yaml.SafeLoader("").construct_document(node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise _ConfigError(f"is no YAML ({error.problem})", mark.line + 1 if mark else None) from error
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError) as error:
        if isinstance(error, _ConfigError):
            raise
        raise _ConfigError(f"is no YAML ({error})") from error
    return node, values


def _check_depth(events: Iterator[Any]) -> None:
    depth = 0
    for event in events:
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            raise _ConfigError(f"is nested more than {DEEPEST} levels deep", event.start_mark.line + 1)


def _check_size(node: yaml.Node, sizes: dict[int, int]) -> int:
    """Number of values under a node, aliases written out. A node inside itself is an error."""
    if id(node) not in sizes:
        sizes[id(node)] = MOST_VALUES + 1  # where the node contains itself, this is what it finds
        children = node.value if not isinstance(node, yaml.ScalarNode) else ()
        members = [each for child in children for each in (child if isinstance(child, tuple) else (child,))]
        sizes[id(node)] = 1 + sum(_check_size(each, sizes) for each in members)
    if sizes[id(node)] > MOST_VALUES:
        raise _ConfigError(f"stands for more than {MOST_VALUES:,} values", node.start_mark.line + 1)
    return sizes[id(node)]


def _patterns(
    root: yaml.MappingNode, values: Mapping[str, Any], path: str
) -> tuple[tuple[tuple[int, str], ...] | None, list[Finding]]:
    entries = [(key, value) for key, value in root.value if key.value == _KEY]
    if not entries or not values.get(_KEY):
        line = entries[-1][0].start_mark.line + 1 if entries else None
        message = f"The config has no {_KEY}, or an empty one: Axolotl then trains every parameter."
        return None, [Finding("SPC402", message, "Paste the list that 'spectrum select' prints.", path, line)]
    findings = []
    key, node = entries[-1]
    if len(entries) > 1:
        message = f"{_KEY} stands {len(entries)} times in the config; only the last one counts."
        findings = [Finding("SPC404", message, "Delete the others.", path, key.start_mark.line + 1)]
    wrong = _first_wrong(node, values[_KEY])
    if wrong:
        message = f"{_KEY} must be a list of strings: {wrong[1]}."
        remedy = "Write one pattern in each line after '- ', in quotes where it begins with '[', '*' or '&'."
        return None, [*findings, Finding("SPC403", message, remedy, path, wrong[0])]
    lines = [item.start_mark.line + 1 for item in node.value]
    return tuple(zip(lines, values[_KEY], strict=True)), findings


def _first_wrong(node: yaml.Node, value: Any) -> tuple[int, str] | None:
    """Line and reason of what keeps this from being a list of strings."""
    if not isinstance(value, list):
        return node.start_mark.line + 1, f"it is {_named(value)}"
    pairs = zip(node.value, value, strict=True)
    return next(
        (
            (item.start_mark.line + 1, f"an entry is {_named(each)}")
            for item, each in pairs
            if not isinstance(each, str)
        ),
        None,
    )


def _named(value: object) -> str:
    return "nothing" if value is None else f"a {type(value).__name__}"


def _key_lines(node: yaml.Node, parents: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], int]]:
    """Lines of the keys of the two outermost levels; of a key that stands twice the last, as for the values."""
    if isinstance(node, yaml.MappingNode) and len(parents) < 2:
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode):
                yield (*parents, key.value), key.start_mark.line + 1
                yield from _key_lines(value, (*parents, key.value))
