"""Match a line of unfrozen_parameters against names as Axolotl does, in bounded time.

Axolotl uses `re`, which takes exponential time for patterns such as `(a+)+b`. The package `regex` gives the same
answers and has a timeout; the few expressions that it reads differently are refused.
"""

import re
import warnings
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from time import monotonic

import regex

from spectrum.errors import SelectionError
from spectrum.exporting.axolotl import ROWS, compile_as_axolotl

LONGEST_PATTERN = 1000  # characters; the longest parameter name of 118 architectures has under 200
SECONDS_PER_LINE = 1.0
SECONDS = 10.0  # for all lines of a config
MOST_MATCHES = 2_000_000  # names, over all lines of a config

_LITERAL = re.compile(r"\^?((?:[A-Za-z0-9_\-.](?![*+?{]))*)(\$?)")
# `regex` takes `{e<=1}` for approximate matching and `[[:alpha:]]` for a class; to `re` they are plain characters.
_READ_DIFFERENTLY = re.compile(r"\{(?![0-9]+(,[0-9]*)?\}|,[0-9]+\})|\[\[")


class IntricateError(SelectionError):
    """A pattern that is not matched here: its reason is half a sentence."""


@dataclass(frozen=True)
class Pattern:
    """What Axolotl makes of a line.

    Attributes:
        text: as it is in the config.
        rows: (first, after the last or None) of a range of rows; None if there is none.
        prefix: every match begins with it.
        exact: the match must end after the prefix.
        expression: matched from the start of a name; None if the prefix says everything.
    """

    text: str
    rows: tuple[int, int | None] | None
    prefix: str
    exact: bool
    expression: "regex.Pattern[str] | None"


class Budget:
    """Time and matches that are left for the lines of one config."""

    def __init__(self) -> None:
        self._end = monotonic() + SECONDS
        self._matches = MOST_MATCHES

    def seconds(self) -> float:
        """Time for one more line; 0 if there is none."""
        return max(0.0, min(SECONDS_PER_LINE, self._end - monotonic())) if self._matches > 0 else 0.0

    def spend(self, matches: int) -> None:
        """Count the matches of a line."""
        self._matches -= matches


def parse_pattern(text: str, budget: Budget) -> Pattern:
    """What Axolotl makes of a line.

    Raises:
        SelectionError: Axolotl would stop: not a regular expression, or an empty range of rows.
        IntricateError: too long, one that `regex` reads differently, or no time left to compile it.
    """
    if len(text) > LONGEST_PATTERN:
        raise IntricateError(f"it has {len(text)} characters, more than {LONGEST_PATTERN}")
    found = ROWS.match(text)
    rows = _rows(found[2], found[3]) if found else None
    name = found[1] if found else text
    literal = _LITERAL.match(name)
    assert literal is not None
    if literal.end() == len(name):
        return Pattern(text, rows, literal[1], exact=bool(literal[2]), expression=None)
    if not budget.seconds():
        raise IntricateError("with the lines before it, matching takes too long")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # `re` warns about `[[`; Axolotl logs that itself
        try:
            compiled = compile_as_axolotl(text)
            if _READ_DIFFERENTLY.search(compiled.pattern):
                raise IntricateError("it has '{' outside a repetition, or '[['")
            expression = regex.compile(compiled.pattern)
        except (re.error, regex.error, OverflowError, RecursionError) as error:
            raise SelectionError(str(error) or "it is nested too deeply") from error
    anywhere = "|" in compiled.pattern or "(?" in compiled.pattern  # a match may begin otherwise
    return Pattern(text, rows, "" if anywhere else literal[1], exact=False, expression=expression)


def matches(pattern: Pattern, names: Sequence[str], budget: Budget) -> Iterator[tuple[str, int]]:
    """(name, end of the match) for each of the sorted names that the pattern matches from its start.

    Raises:
        IntricateError: matching takes too long.
    """
    end = monotonic() + budget.seconds()
    for position in range(bisect_left(names, pattern.prefix), len(names)):
        name = names[position]
        if not name.startswith(pattern.prefix) or (pattern.exact and name != pattern.prefix):
            return
        left = end - monotonic()
        if left <= 0:
            raise IntricateError("matching takes too long")
        if pattern.expression is None:
            stop: int | None = len(pattern.prefix)
        else:
            stop = _stop(pattern.expression, name, left)
        if stop is not None:
            budget.spend(1)
            yield name, stop


def _stop(expression: "regex.Pattern[str]", name: str, seconds: float) -> int | None:
    try:
        match = expression.match(name, timeout=seconds)
    except TimeoutError as error:
        raise IntricateError("matching takes too long") from error
    return match.end() if match else None


def _rows(first: str, last: str | None) -> tuple[int, int | None]:
    # As in Axolotl 0.19.0, utils/freeze.py, LayerNamePattern._parse_pattern.
    if last is None and first:
        return int(first), int(first) + 1
    start, stop = int(first or 0), int(last) if last else None
    if stop is not None and start >= stop:
        raise SelectionError(f"its range of rows, {start} to {stop}, is empty")
    return start, stop
