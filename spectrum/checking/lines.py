"""The lines of a config against the parameters of a scan: each must match, and together exactly the selection."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from spectrum.checking.findings import Finding, some
from spectrum.checking.patterns import Budget, IntricateError, Pattern, matches, parse_pattern
from spectrum.errors import SelectionError
from spectrum.exporting.matching import expanded, runtime_names
from spectrum.naming import natural_key
from spectrum.results.scan import Scan
from spectrum.selection import Selection

Patterns = Sequence[tuple[int | None, str]]
LONGEST_SHOWN = 200
_INSIDE_A_WORD = re.compile(r"\w\w")


@dataclass(frozen=True)
class Line:
    """A line and the names that it matches.

    Attributes:
        number: in the file; None if the list comes from an anchor.
        pattern: what Axolotl makes of the line.
        matched: sorted by code points.
        cut: those of `matched` whose match ends inside a word.
    """

    number: int | None
    pattern: Pattern
    matched: tuple[str, ...]
    cut: tuple[str, ...]

    @property
    def shown(self) -> str:
        """The text, for a message."""
        return self.pattern.text[:LONGEST_SHOWN]


@dataclass(frozen=True)
class Vocabulary:
    """Every name that a line may mean; `rows` is the number of rows of each parameter, None if it is not known."""

    scan: Scan
    rows: Mapping[str, int | None]

    @cached_property
    def names(self) -> Sequence[str]:
        """The parameters, sorted."""
        return sorted(self.rows)

    @cached_property
    def tied_heads(self) -> Sequence[str]:
        """Other names of a parameter, and of the head if it is tied to the embedding."""
        kinds = {item.kind for item in self.scan.entries}
        tied = "embedding" in kinds and "head" not in kinds
        aliases = [name for name, reason in self.scan.skipped.items() if reason.startswith("alias of ")]
        return sorted([*aliases, *(["lm_head.weight"] if tied else [])])

    @cached_property
    def stored(self) -> Sequence[str]:
        """Names of tensors, as in the checkpoint."""
        return sorted({name for item in self.scan.parameters for name in item.tensors} | set(self.scan.skipped))

    @cached_property
    def _by_end(self) -> Mapping[str, str]:
        """What follows any dot of a name -> the shortest such name."""
        found: dict[str, str] = {}
        for name in sorted(self.names, key=len, reverse=True):
            rest = name
            while rest := rest.partition(".")[2]:
                found[rest] = name
        return found

    def near(self, text: str) -> str | None:
        """The shortest name with the same end, such as the one with the prefix of a multimodal model."""
        return self._by_end.get(text.strip("^$").replace("\\.", ".").removeprefix("model."))


def check_lines(patterns: Patterns, scan: Scan, selection: Selection | None) -> tuple[list[Finding], list[Line]]:
    """Match the lines as Axolotl does; returned are the findings and the lines that could be matched."""
    members = runtime_names(scan)
    vocabulary = Vocabulary(scan, _rows_of_parameters(scan, members))
    budget = Budget()
    outcomes = [_match_line(number, text, vocabulary.names, budget) for number, text in patterns]
    lines = [each for each in outcomes if isinstance(each, Line)]
    findings = [each for each in outcomes if isinstance(each, Finding)]
    findings += [_unmatched(line, vocabulary, budget) for line in lines if not line.matched]
    findings += [finding for line in lines for finding in (*_cut(line), *_rows(line, vocabulary.rows))]
    if selection is not None:
        findings += _against_selection(lines, set(expanded(selection.names, members)), selection)
    return findings, lines


def _match_line(number: int | None, text: str, names: Sequence[str], budget: Budget) -> Line | Finding:
    """The line matched, or why it is not."""
    try:
        pattern = parse_pattern(text, budget)
        found = list(matches(pattern, names, budget))
    except IntricateError as error:
        message = f"'{text[:LONGEST_SHOWN]}' was not matched against the model: {error}."
        remedy = "Write names, character classes and simple repetitions, as 'spectrum select' does."
        return Finding("SPC406", message, remedy, line=number)
    except SelectionError as error:
        message = f"Axolotl stops at '{text[:LONGEST_SHOWN]}': {error}."
        return Finding("SPC405", message, "Write a regular expression; a bare dot is literal.", line=number)
    cut = tuple(name for name, end in found if end and _INSIDE_A_WORD.match(name, end - 1))
    return Line(number, pattern, tuple(name for name, _ in found), cut)


def _unmatched(line: Line, vocabulary: Vocabulary, budget: Budget) -> Finding:
    """Why a line matches nothing, as far as the scan tells."""
    text, shown = line.pattern.text, line.shown
    if "\\." in text and _matches_text(text.replace("\\.", "."), vocabulary.names, budget):
        message = f"'{shown}' matches nothing: Axolotl escapes dots itself, so an escaped one matches a backslash only."
        return Finding("SPC408", message, f"Write '{shown.replace(chr(92) + '.', '.')}'.", line=line.number)
    if _matches_any(line.pattern, vocabulary.tied_heads, budget):
        message = f"'{shown}' matches nothing: this model ties its head to the embedding, so they are one parameter."
        return Finding("SPC410", message, "Delete the line; the embedding's line trains both.", line=line.number)
    if _matches_any(line.pattern, vocabulary.stored, budget):
        message = f"'{shown}' matches names of the checkpoint only; the model that is trained has no such parameter."
        return Finding("SPC409", message, "Paste the list that 'spectrum select' prints.", line=line.number)
    if vocabulary.scan.settings.origin is not None:
        message = f"'{shown}' matches nothing in the imported scan, which does not list every parameter."
        return Finding("SPC417", message, "Scan the model to make sure.", line=line.number)
    near = vocabulary.near(text)
    remedy = f"Did you mean '^{near}$'?" if near else "Delete it, or paste the list that 'spectrum select' prints."
    return Finding("SPC407", f"'{shown}' matches no parameter of the model.", remedy, line=line.number)


def _matches_text(text: str, names: Sequence[str], budget: Budget) -> bool:
    try:
        return _matches_any(parse_pattern(text, budget), names, budget)
    except SelectionError:
        return False


def _matches_any(pattern: Pattern, names: Sequence[str], budget: Budget) -> bool:
    try:
        return any(True for _ in matches(pattern, names, budget))
    except IntricateError:
        return False


def _cut(line: Line) -> Iterator[Finding]:
    if line.cut:
        message = f"'{line.shown}' has no end, so it also matches {some(line.cut)}."
        yield Finding("SPC411", message, "End it with '$' after the whole name of the parameter.", line=line.number)


def _rows(line: Line, rows: Mapping[str, int | None]) -> Iterator[Finding]:
    if line.pattern.rows is None or not line.matched:
        return
    start, stop = line.pattern.rows
    for name in line.matched:
        size = rows[name]
        if size is not None and not 0 <= start < (size if stop is None else stop) <= size:
            message = f"'{line.shown}': '{name}' has {size} rows, so Axolotl stops."
            yield Finding("SPC413", message, f"Give a range within 0 and {size}.", line=line.number)
            return
    message = f"'{line.shown}' trains a range of rows by zeroing gradients: weight decay still changes the others."
    yield Finding("SPC414", message, "Set weight_decay to 0, or train the whole parameter.", line=line.number)


def _against_selection(lines: Sequence[Line], wanted: set[str], selection: Selection) -> Iterator[Finding]:
    matched: dict[str, int | None] = {}
    for line in lines:
        for name in line.matched:
            matched.setdefault(name, line.number)
    what = f"the selection '{selection.description}'"
    remedy = "Paste the list of 'spectrum select' again, or give check the options that it was made with."
    extra = sorted(matched.keys() - wanted, key=natural_key)
    if extra:
        message = f"The list trains {_counted(len(extra))} that {what} does not hold: {some(extra)}."
        yield Finding("SPC415", message, remedy, line=min(matched[name] or 0 for name in extra) or None)
    missing = sorted(wanted - matched.keys(), key=natural_key)
    if missing:
        message = f"The list does not train {_counted(len(missing))} of {what}: {some(missing)}."
        yield Finding("SPC416", message, remedy)


def _counted(count: int) -> str:
    return "1 parameter" if count == 1 else f"{count} parameters"


def _rows_of_parameters(scan: Scan, members: Mapping[str, Sequence[str]]) -> dict[str, int | None]:
    """Rows, the length of the parameter, by runtime name; None if the scan does not hold the shape."""
    rows: dict[str, int | None] = {}
    for item in scan.entries:
        shape = item.shape[1:] if item.shape and "*" in item.name else item.shape
        rows |= dict.fromkeys(members[item.name], shape[0] if shape else None)
    return rows
