"""`unfrozen_parameters` for Axolotl.

How Axolotl reads it (axolotl 0.19.0, utils/freeze.py): a final `[a:b]` is a range of rows; every dot is escaped unless
a `+` follows; the pattern is matched from the start of the parameter's name. So the dots of a name are left bare (an
escaped one would match a backslash) and every other special character of `re` is escaped.
"""

import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence

from spectrum.exporting.header import comment, header, refuse_control, scalar
from spectrum.exporting.matching import ANY_EXPERT, confirm, expanded, runtime_names
from spectrum.results.scan import Scan
from spectrum.selection import Group, Selection, rank, with_biases

# utils/freeze.py, LayerNamePattern._parse_pattern: the pattern of the name, and the range.
ROWS = re.compile(r"^(.+)\[([0-9]*)(?::([0-9]*))?\]$")
_SPECIAL = re.compile(r"[\\^$*+?{}\[\]|()]")


def to_axolotl(selection: Selection, scan: Scan) -> str:
    """The selection as YAML to paste into an Axolotl config.

    Raises:
        SelectionError: a name that no pattern can express, or patterns that do not match exactly the selection.
    """
    check_patterns([pattern(name) for name in selection.names], selection, scan)
    return "\n".join([*header(selection, scan), "unfrozen_parameters:", *_body(selection)]) + "\n"


def pattern(name: str) -> str:
    """The anchored pattern that matches this parameter only; `*` in a name is every expert's number.

    Raises:
        SelectionError: the name holds a control character.
    """
    refuse_control(name)
    escaped = [_SPECIAL.sub(r"\\\g<0>", part) for part in name.split("*")]
    return f"^{ANY_EXPERT.join(escaped)}$"


def compile_as_axolotl(text: str) -> re.Pattern[str]:
    """The regular expression that Axolotl makes of a pattern, for matching from the start of a name."""
    rows = ROWS.match(text)
    return re.compile(re.sub(r"\.(?!\+)", r"\\.", rows[1] if rows else text))


def check_patterns(patterns: Sequence[str], selection: Selection, scan: Scan) -> None:
    """Match the patterns back, as Axolotl does, against all parameters of the model.

    Raises:
        SelectionError: they do not match exactly the selection.
    """
    members = runtime_names(scan)
    every = sorted(name for group in members.values() for name in group)
    matched = {name for text in patterns for name in _matches(text, every)}
    confirm(matched, expanded(selection.names, members), "Axolotl")


def _matches(text: str, names: Sequence[str]) -> Iterator[str]:
    """Of sorted names those that a pattern matches."""
    compiled = compile_as_axolotl(text)
    literal = re.match(r"\^?([A-Za-z0-9_.\-]*)", text)
    assert literal is not None
    # Only names that begin with the literal part of the pattern can match: thousands of patterns meet as many names.
    for position in range(bisect_left(names, literal[1]), len(names)):
        if not names[position].startswith(literal[1]):
            return
        if compiled.match(names[position]):
            yield names[position]


def _body(selection: Selection) -> Iterator[str]:
    def items(names: Sequence[str]) -> Iterator[str]:
        yield from (f"- {scalar(pattern(name))}" for name in with_biases(names, selection.biases))

    yield from items(selection.embeddings)
    if selection.norms:
        yield f"# norms: all {len(selection.norms)}"
        yield from items(selection.norms)
    for group in selection.groups:
        yield comment(f"{group.label}: {group.count} of {len(group.ranked)}{_range(group)}")
        yield from items([item.name for item in group.selected])


def _range(group: Group) -> str:
    """Highest and lowest SNR of the selected ones, whatever they were chosen by."""
    by_snr = rank(group.selected)
    shown = ["saturated" if item.snr is None else f"{item.snr:.4g}" for item in (*by_snr[:1], *by_snr[1:][-1:])]
    return f", SNR {' to '.join(shown)}" if shown else ""
