"""Change entries of a config's text and keep every other byte: comments, quotes and spacing."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import yaml

from spectrum.exporting.config_text import Config, Entry, line_end, line_start


@dataclass(frozen=True)
class Change:
    """Replace what lies from `start` to `end` with `text`."""

    start: int
    end: int
    text: str


def changed(text: str, changes: Iterable[Change]) -> str:
    """The text with all changes made; changes do not overlap, and insertions at one place keep their order."""
    parts, at = [], 0
    for change in sorted(changes, key=lambda each: (each.start, each.end)):
        parts += [text[at : change.start], change.text]
        at = change.end
    return "".join([*parts, text[at:]])


def child(mapping: yaml.Node, key: str) -> yaml.Node | None:
    """The value of a key of a mapping."""
    if not isinstance(mapping, yaml.MappingNode):
        return None
    return next((value for name, value in mapping.value if name.value == key), None)


def replaced(node: yaml.Node, text: str) -> Change:
    """Another text in place of a scalar."""
    return Change(node.start_mark.index, node.end_mark.index, text)


def with_child(mapping: yaml.MappingNode, line: str, newline: str) -> Change:
    """One more `key: value` at the beginning of a mapping."""
    at = mapping.start_mark.index
    if mapping.flow_style:
        return Change(at + 1, at + 1, f"{line}, " if mapping.value else line)
    return Change(at, at, f"{line}{newline}{' ' * mapping.start_mark.column}")


def without_items(config: Config, entry: Entry, unwanted: Sequence[yaml.Node]) -> list[Change]:
    """A sequence without some of its items; if none is left, the whole entry goes."""
    assert isinstance(entry.value, yaml.SequenceNode)
    gone = set(map(id, unwanted))
    kept = [item for item in entry.value.value if id(item) not in gone]
    text = config.text
    if not kept:
        return [Change(entry.start, entry.end, "")]
    if entry.value.flow_style:
        inside = ", ".join(text[item.start_mark.index : item.end_mark.index] for item in kept)
        return [replaced(entry.value, f"[{inside}]")]
    return [Change(line_start(text, item.start_mark.index), line_end(text, item), "") for item in unwanted]


def above(config: Config, entry: Entry, marks: tuple[str, ...]) -> int:
    """Index of the comment right above an entry, or of the entry if there is none.

    Each line of the comment begins with one of `marks`, its first line with the first of them.
    """
    at = entry.start
    while at > 0:
        at = line_start(config.text, at - 1)
        if config.text.startswith(marks[0], at):
            return at
        if not config.text.startswith(marks, at):
            break
    return entry.start
