"""Read a trainer's YAML config, for `check` and `--into`: its text, its values, the place of each top-level entry.

Bounds keep a small file from expanding to billions of values.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from spectrum.errors import SpectrumError
from spectrum.untrusted import read_file

LARGEST_BYTES = 2**20  # a selection of 10,000 parameters takes half of it
DEEPEST = 50
MOST_VALUES = 200_000  # aliases written out
LONGEST_NUMBER = 4300  # characters; Python refuses longer decimal numbers, but not YAML's 1:30:00

_BYTE_ORDER_MARK = "\ufeff"
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml is ten times faster


class ConfigError(SpectrumError):
    """A config that cannot be read; `line` counts from 1 and is None if the reason has no line."""

    def __init__(self, message: str, line: int | None = None) -> None:
        super().__init__(message)
        self.line = line


@dataclass(frozen=True)
class Entry:
    """A top-level entry.

    Attributes:
        key: its name.
        line: of the key, from 1.
        start: index of the key in the text.
        end: index after its last line, including a comment on that line.
        value: PyYAML's node.
    """

    key: str
    line: int
    start: int
    end: int
    value: yaml.Node


@dataclass(frozen=True)
class Config:
    """A config.

    Attributes:
        text: of the file, without a byte order mark.
        mark: the byte order mark, or ''.
        root: PyYAML's node of the whole.
        data: the values, as the trainer reads them.
    """

    text: str
    mark: str
    root: yaml.MappingNode
    data: Mapping[str, Any]

    @property
    def newline(self) -> str:
        """The line ending that the file uses."""
        return "\r\n" if "\r\n" in self.text else "\n"

    @cached_property
    def entries(self) -> tuple[Entry, ...]:
        """Those whose key is text, in order."""
        pairs = [(key, value) for key, value in self.root.value if isinstance(key, yaml.ScalarNode)]
        return tuple(_entry(self.text, key, value) for key, value in pairs)

    @cached_property
    def _by_key(self) -> Mapping[str, Entry]:
        return {entry.key: entry for entry in self.entries}

    def entry(self, key: str) -> Entry | None:
        """The entry of a key; the last one if the key occurs twice, as in `data`."""
        return self._by_key.get(key)

    def line(self, keys: Sequence[str]) -> int | None:
        """Line of a key, or of its innermost parent in the file; only the two outermost levels are searched."""
        entry = self.entry(keys[0])
        if entry is None:
            return None
        inner = [key for key, _ in _pairs(entry.value) if keys[1:] and key.value == keys[1]]
        return inner[-1].start_mark.line + 1 if inner else entry.line


def read_config(path: Path) -> Config:
    """Read and parse a config file; see `read_config_text` and `parse_config`."""
    return parse_config(read_config_text(path), str(path))


def read_config_text(path: Path) -> str:
    """The text of a config file.

    Raises:
        ConfigError: it is missing, not a regular file, too large, or not UTF-8.
    """
    try:
        return read_file(path, most=LARGEST_BYTES).decode()
    except UnicodeDecodeError as error:
        raise ConfigError(f"'{path}' is not UTF-8 text.") from error
    except OSError as error:
        raise ConfigError(f"'{path}' cannot be read: {error.strerror}.") from error


def parse_config(text: str, place: str) -> Config:
    """Parse a config, which errors call `place`; each step is bounded by what the step before it found.

    Raises:
        ConfigError: it is not a YAML mapping within the bounds.
    """
    mark = _BYTE_ORDER_MARK if text.startswith(_BYTE_ORDER_MARK) else ""
    text = text.removeprefix(mark)
    try:
        _check_depth(yaml.parse(text, Loader=_LOADER), place)
        root = yaml.compose(text, Loader=_LOADER)
        if not isinstance(root, yaml.MappingNode):
            raise ConfigError(f"'{place}' is not a mapping of keys to values.", 1)
        _check_size(root, {}, place)
        data = yaml.load(text, Loader=_LOADER)  # noqa: S506  a safe loader
    except yaml.MarkedYAMLError as error:
        where = error.problem_mark or error.context_mark
        line = where.line + 1 if where else None
        problem = ", ".join(part for part in (error.context, error.problem) if part)
        raise ConfigError(f"'{place}' is not valid YAML: {problem[:200]}.", line) from error
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError) as error:
        raise ConfigError(f"'{place}' is not valid YAML: {' '.join(str(error).split())[:200]}.") from error
    return Config(text, mark, root, data)


def _check_depth(events: Iterator[Any], place: str) -> None:
    depth = 0
    for event in events:
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            raise ConfigError(f"'{place}' is nested more than {DEEPEST} levels deep.", event.start_mark.line + 1)


def _check_size(node: yaml.Node, sizes: dict[int, int], place: str) -> int:
    """Number of values under a node, aliases written out. A node inside itself counts as too many."""
    line = node.start_mark.line + 1
    if isinstance(node, yaml.ScalarNode):
        if node.tag.endswith(":int") and len(node.value) > LONGEST_NUMBER:
            raise ConfigError(f"'{place}' has a number of {len(node.value):,} characters.", line)
        return 1
    if id(node) not in sizes:
        sizes[id(node)] = MOST_VALUES + 1  # what the node finds if it contains itself
        sizes[id(node)] = 1 + sum(_check_size(each, sizes, place) for each in _children(node))
    if sizes[id(node)] > MOST_VALUES:
        raise ConfigError(f"'{place}' expands to more than {MOST_VALUES:,} values.", line)
    return sizes[id(node)]


def _children(node: yaml.Node) -> Iterator[yaml.Node]:
    for child in node.value:
        yield from child if isinstance(child, tuple) else (child,)


def _pairs(node: yaml.Node) -> Sequence[tuple[yaml.Node, yaml.Node]]:
    return node.value if isinstance(node, yaml.MappingNode) else ()


def _entry(text: str, key: yaml.ScalarNode, value: yaml.Node) -> Entry:
    mark = key.start_mark
    aliased = value.start_mark.index < mark.index
    end = line_end(text, key if aliased else value)
    return Entry(key.value, mark.line + 1, mark.index, end, value)


def line_start(text: str, index: int) -> int:
    """Index after the last line break before an index."""
    return text.rfind("\n", 0, index) + 1


def line_end(text: str, node: yaml.Node) -> int:
    """Index after the line on which a node ends."""
    end = int(node.end_mark.index)
    if isinstance(node, yaml.CollectionNode) and not node.flow_style:
        # PyYAML's mark of a block lies after the comments and empty lines that follow it.
        start = line_start(text, end - 1)
        while text[start:end].lstrip().startswith("#") or not text[start:end].strip():
            start, end = line_start(text, start - 1), start
        return end
    end -= isinstance(node, yaml.ScalarNode) and node.style in {"|", ">"}  # such text ends after its last line break
    found = text.find("\n", end)
    return len(text) if found < 0 else found + 1
