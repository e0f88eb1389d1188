"""One line of unfrozen_parameters: what Axolotl makes of it, and whether matching it ends in bounded time.

A config is anybody's text, and `re` takes exponential time for patterns such as `(a+)+b`. So the parsed expression is
looked at first: the product of the choices that its parts leave bounds the paths a match can take.
"""

import importlib
import re
import sys
import warnings
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from spectrum.errors import SelectionError
from spectrum.exporting.axolotl import compile_as_axolotl

LONGEST_PATTERN = 1000  # characters; the longest parameter name of 118 architectures has under 200
# Paths over all names and lines of a config; a second or so. The 45,000 names of DeepSeek-V3 in a checkpoint against
# `model.layers.[0-9]+.mlp.experts.[0-9]+.[a-z_]+` are 10 million.
MOST_PATHS = 50_000_000

# Axolotl 0.19.0, utils/freeze.py, LayerNamePattern._parse_pattern.
_ROWS = re.compile(r"^(.+)\[([0-9]*)(?::([0-9]*))?\]$")
# re.sre_parse is deprecated since 3.11, in which its module got the name that it has now.
_parser = importlib.import_module("re._parser" if sys.version_info >= (3, 11) else "sre_parse")
_SINGLE = ("LITERAL", "NOT_LITERAL", "ANY", "IN")
_REPEATS = ("MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT")


class IntricateError(SelectionError):
    """A pattern whose matching cannot be bounded."""


@dataclass(frozen=True)
class Names:
    """Names to match against, with what bounds the work.

    Attributes:
        ordered: sorted by code point.
        longest: length of the longest.
        longest_number: digits of the longest number in any.
    """

    ordered: tuple[str, ...]
    longest: int
    longest_number: int


@dataclass(frozen=True)
class Pattern:
    """A line that can be matched.

    Attributes:
        text: as it stands in the config.
        expression: what Axolotl matches from the start of a name.
        prefix: what every match begins with.
        rows: (first, after the last or None) of a row range; None where there is none.
        tree: the parsed expression.
    """

    text: str
    expression: re.Pattern[str]
    prefix: str
    rows: tuple[int, int | None] | None
    tree: Any


def prepare_names(names: Sequence[str]) -> Names:
    """Sort and measure names."""
    numbers = (len(number) for name in names for number in re.findall(r"\d+", name))
    return Names(tuple(sorted(set(names))), max(map(len, names), default=0), max(numbers, default=0))


def parse_pattern(text: str) -> Pattern:
    """What Axolotl makes of a line.

    Raises:
        SelectionError: Axolotl would stop with an error: no regular expression, or an empty range of rows.
        IntricateError: too long to be looked at.
    """
    if len(text) > LONGEST_PATTERN:
        raise IntricateError(f"it has {len(text)} characters, more than {LONGEST_PATTERN}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what `re` says of `[[`; Axolotl's own log is the place for it
        try:
            expression = compile_as_axolotl(text)
            tree = _parser.parse(expression.pattern)
        except (re.error, OverflowError, RecursionError) as error:
            raise SelectionError(str(error) or "it is nested too deeply") from error
    return Pattern(text, expression, _prefix(expression, tree), _rows(text), tree)


def paths(pattern: Pattern, names: Names) -> int:
    """How many ways a match of one name can go, at most.

    Raises:
        IntricateError: nested repetition, look-around or back-references.
    """
    return _paths(pattern.tree, names)


def candidates(pattern: Pattern, names: Names) -> range:
    """Positions of the names that begin with the pattern's prefix."""
    start = bisect_left(names.ordered, pattern.prefix)
    stop = bisect_left(names.ordered, pattern.prefix + "\U0010ffff", start) if pattern.prefix else len(names.ordered)
    return range(start, stop)


def matches(pattern: Pattern, names: Names) -> Iterator[re.Match[str]]:
    """A match object for each name that the pattern matches from its start."""
    for position in candidates(pattern, names):
        match = pattern.expression.match(names.ordered[position])
        if match:
            yield match


def _rows(text: str) -> tuple[int, int | None] | None:
    found = _ROWS.match(text)
    if not found:
        return None
    _, first, last = found.groups()
    if last is None and first:
        return int(first), int(first) + 1
    start, stop = int(first or 0), int(last) if last else None
    if stop is not None and start >= stop:
        raise SelectionError(f"its range of rows, {start} to {stop}, is empty")
    return start, stop


def _prefix(expression: re.Pattern[str], tree: Any) -> str:
    """The literal characters a match begins with; those of a case-blind expression are none."""
    if expression.flags & (re.IGNORECASE | re.MULTILINE):
        return ""
    characters = []
    for operation, argument in tree:
        if str(operation) == "LITERAL":
            characters.append(chr(argument))
        elif str(operation) != "AT":
            break
    return "".join(characters)


def _paths(tree: Any, names: Names) -> int:
    product = 1
    for operation, argument in tree:
        product *= _choices(str(operation), argument, names)
    return product


def _choices(operation: str, argument: Any, names: Names) -> int:
    if operation == "AT" or operation in _SINGLE:
        return 1
    if operation == "SUBPATTERN":
        return _paths(argument[-1], names)
    if operation == "BRANCH":
        return sum(_paths(branch, names) for branch in argument[1])
    if operation in _REPEATS:
        return _repeats(*argument, names=names)
    raise IntricateError("it looks around or refers back")


def _repeats(least: int, most: int, body: Any, *, names: Names) -> int:
    inside = _paths(body, names)
    if most == 1:
        return 1 - least + inside
    if inside > 1:
        raise IntricateError("it repeats what can itself match in several ways")
    longest = names.longest_number if _is_digits(body) else names.longest
    return max(1, min(int(most), longest) - int(least) + 1)


def _is_digits(body: Any) -> bool:
    """Whether the repeated part is one digit, so that it can take no more characters than the longest number has."""
    if len(body) != 1 or str(body[0][0]) != "IN":
        return False
    return all(_is_digit(str(operation), argument) for operation, argument in body[0][1])


def _is_digit(operation: str, argument: Any) -> bool:
    if operation == "RANGE":
        return all(chr(end).isdecimal() and end < 128 for end in argument)
    return operation == "CATEGORY" and str(argument) == "CATEGORY_DIGIT"
