"""A YAML file as text with the places of its top-level entries, so that one can be changed and every other byte kept.

PyYAML tells where each node stands, and it is what Axolotl reads its configs with; writing the whole file anew from a
parsed one would lose comments that stand between entries, quotes and spacing.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from spectrum.errors import SpectrumError


@dataclass(frozen=True)
class Entry:
    """A top-level entry.

    Attributes:
        key: its name.
        start: index of its line's beginning.
        end: index behind its last line, a comment on that line included.
        value: PyYAML's node.
    """

    key: str
    start: int
    end: int
    value: yaml.Node


@dataclass(frozen=True)
class Config:
    """A parsed config.

    Attributes:
        text: as it stands in the file, without a byte order mark.
        entries: in order.
        data: what a YAML parser reads.
    """

    text: str
    entries: tuple[Entry, ...]
    data: dict[str, Any]

    @property
    def newline(self) -> str:
        """The line ending that the file uses."""
        return "\r\n" if "\r\n" in self.text else "\n"

    def entry(self, key: str) -> Entry | None:
        """The entry of a key."""
        return next((entry for entry in self.entries if entry.key == key), None)


@dataclass(frozen=True)
class Change:
    """What stands from `start` to `end` becomes `text`."""

    start: int
    end: int
    text: str


def parse_config(text: str, place: str) -> Config:
    """Read a config.

    Args:
        text: of the file.
        place: what errors call it.

    Raises:
        SpectrumError: not one YAML mapping in block style, or one that names a key twice.
    """
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        data = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise SpectrumError(f"'{place}' is not valid YAML: {_first_line(error)}. It was left as it is.") from error
    if not isinstance(node, yaml.MappingNode) or node.flow_style or not isinstance(data, dict):
        raise SpectrumError(f"'{place}' is no config: expected lines of 'key: value'. It was left as it is.")
    entries = tuple(_entry(text, key, value, place) for key, value in node.value)
    names = [entry.key for entry in entries]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise SpectrumError(f"'{place}' has the key '{twice}' twice. Remove one. It was left as it is.")
    return Config(text, entries, data)


def changed(text: str, changes: Iterable[Change]) -> str:
    """The text with all changes made."""
    for change in sorted(changes, key=lambda each: (each.start, each.end), reverse=True):
        text = text[: change.start] + change.text + text[change.end :]
    return text


def child(mapping: yaml.Node, key: str) -> yaml.Node | None:
    """The value of a key of a mapping."""
    if not isinstance(mapping, yaml.MappingNode):
        return None
    return next((value for name, value in mapping.value if name.value == key), None)


def replaced(node: yaml.Node, text: str) -> Change:
    """Another text in the place of a scalar."""
    return Change(node.start_mark.index, node.end_mark.index, text)


def with_child(mapping: yaml.MappingNode, line: str, newline: str) -> Change:
    """One more `key: value` at the beginning of a mapping."""
    at = mapping.start_mark.index
    if mapping.flow_style:
        return Change(at + 1, at + 1, f"{line}, " if mapping.value else line)
    return Change(at, at, f"{line}{newline}{' ' * mapping.start_mark.column}")


def without_items(config: Config, entry: Entry, unwanted: Sequence[yaml.Node]) -> list[Change]:
    """A sequence without some of its items; the whole entry goes with the last of them."""
    assert isinstance(entry.value, yaml.SequenceNode)
    kept = [item for item in entry.value.value if item not in unwanted]
    if not kept:
        return [Change(entry.start, entry.end, "")]
    if entry.value.flow_style:
        inside = ", ".join(config.text[item.start_mark.index : item.end_mark.index] for item in kept)
        return [replaced(entry.value, f"[{inside}]")]
    return [
        Change(_line_start(config.text, item.start_mark.index), _line_end(config.text, item), "") for item in unwanted
    ]


def above(config: Config, entry: Entry, marks: tuple[str, ...]) -> int:
    """Index of the comment that leads the lines right above an entry; its own start where there is none.

    Args:
        config: that holds it.
        entry: below the comment.
        marks: beginnings of the comment's lines, that of the first one first.
    """
    at = entry.start
    while at > 0:
        at = _line_start(config.text, at - 1)
        if config.text.startswith(marks[0], at):
            return at
        if not config.text.startswith(marks, at):
            break
    return entry.start


def _entry(text: str, key: yaml.Node, value: yaml.Node, place: str) -> Entry:
    start = key.start_mark.index
    if not isinstance(key, yaml.ScalarNode) or key.start_mark.column != 0:
        raise SpectrumError(f"'{place}' has keys that are indented or no words. It was left as it is.")
    aliased = value.start_mark.index < start
    return Entry(key.value, start, _line_end(text, key if aliased else value), value)


def _line_start(text: str, index: int) -> int:
    return text.rfind("\n", 0, index) + 1


def _line_end(text: str, node: yaml.Node) -> int:
    found = text.find("\n", _last(node, node.start_mark.index))
    return len(text) if found < 0 else found + 1


def _last(node: yaml.Node, start: int) -> int:
    """Index behind a node's last character; PyYAML's own mark of a block stands behind the comments that follow it."""
    if not isinstance(node, yaml.CollectionNode) or node.flow_style:
        # Block text (`|`, `>`) ends behind its last line break.
        return int(node.end_mark.index) - (isinstance(node, yaml.ScalarNode) and node.style in {"|", ">"})
    parts = [part for item in node.value for part in (item if isinstance(item, tuple) else (item,))]
    inside = [part for part in parts if part.start_mark.index >= start]  # an alias has the place of its anchor
    return max((_last(part, start) for part in inside), default=start)


def _first_line(error: BaseException) -> str:
    # "expected a single document in the stream" is the context of the problem "but found another document".
    parts = (getattr(error, "context", None), getattr(error, "problem", None))
    problem = ", ".join(part for part in parts if part)
    mark = getattr(error, "problem_mark", None)
    where = f" in line {mark.line + 1}" if mark else ""
    return f"{problem or type(error).__name__}{where}"
