"""The lines of a config against the parameters of a scan: each must match, and together exactly the selection."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from spectrum.checking.config import Config
from spectrum.checking.findings import Finding, some
from spectrum.checking.patterns import (
    MOST_PATHS,
    IntricateError,
    Names,
    Pattern,
    candidates,
    matches,
    parse_pattern,
    paths,
    prepare_names,
)
from spectrum.errors import SelectionError
from spectrum.exporting.matching import expanded, runtime_names
from spectrum.naming import natural_key
from spectrum.results.scan import ParameterScore, Scan, Unscored
from spectrum.selection import Selection


@dataclass(frozen=True)
class Line:
    """A line and what it matches.

    Attributes:
        number: in the file.
        pattern: what Axolotl makes of it.
        matched: names, in the order of code points.
        cut: those of them whose match ends inside a word.
    """

    number: int
    pattern: Pattern
    matched: tuple[str, ...]
    cut: tuple[str, ...]


def check_lines(config: Config, scan: Scan, selection: Selection | None) -> tuple[list[Finding], list[Line]]:
    """Match the lines as Axolotl does.

    Returns:
        The findings, and the lines that could be matched.
    """
    members = runtime_names(scan)
    rows = _rows_of_parameters(scan, members)
    names = prepare_names(list(rows))
    lines, findings = _match(config.patterns or (), names)
    findings += [_unmatched(line, names, scan) for line in lines if not line.matched]
    findings += [finding for line in lines for finding in (*_cut(line), *_rows(line, rows))]
    findings += _doubled(config.patterns or ())
    if selection is not None:
        findings += _against_selection(lines, set(expanded(selection.names, members)), selection)
    return findings, lines


def _match(patterns: Sequence[tuple[int, str]], names: Names) -> tuple[list[Line], list[Finding]]:
    lines: list[Line] = []
    findings: list[Finding] = []
    budget = MOST_PATHS
    for number, text in patterns:
        outcome, budget = _match_line(number, text, names, budget)
        if isinstance(outcome, Line):
            lines.append(outcome)
        else:
            findings.append(outcome)
    return lines, findings


def _match_line(number: int, text: str, names: Names, budget: int) -> tuple[Line | Finding, int]:
    """The line matched, or why it is not; and what is left of the paths that a config may take."""
    try:
        pattern = parse_pattern(text)
        cost = paths(pattern, names) * max(1, len(candidates(pattern, names)))
    except IntricateError as error:
        return _intricate(number, text, str(error)), budget
    except SelectionError as error:
        message, remedy = f"Axolotl stops at '{text}': {error}.", "Write a regular expression; bare dots are literal."
        return Finding("SPC405", message, remedy, line=number), budget
    if cost > budget:
        return _intricate(number, text, "with the lines before it, matching would take too long"), budget
    found = list(matches(pattern, names))
    cut = tuple(each.string for each in found if _ends_inside_a_word(each.string, each.end()))
    return Line(number, pattern, tuple(each.string for each in found), cut), budget - cost


def _intricate(number: int, text: str, reason: str) -> Finding:
    message = f"'{text[:200]}' was not matched against the model: {reason}."
    remedy = "Write names, character classes and simple repetitions, as 'spectrum select' does."
    return Finding("SPC406", message, remedy, line=number)


def _ends_inside_a_word(name: str, end: int) -> bool:
    return 0 < end < len(name) and _is_word(name[end - 1]) and _is_word(name[end])


def _is_word(character: str) -> bool:
    return character.isalnum() or character == "_"


def _unmatched(line: Line, names: Names, scan: Scan) -> Finding:
    """Why a line matches nothing, as far as the scan can tell."""
    text = line.pattern.text
    if "\\." in text and _matches_any(text.replace("\\.", "."), names):
        message = f"'{text}' matches nothing: Axolotl escapes dots itself, so an escaped one matches a backslash only."
        return Finding("SPC408", message, f"Write '{text.replace(chr(92) + '.', '.')}'.", line=line.number)
    if _matches_any(text, prepare_names(_tied_heads(scan))):
        message = f"'{text}' matches nothing: this model ties its head to the embedding, which is one parameter."
        return Finding("SPC410", message, "Delete the line; the embedding's line trains both.", line=line.number)
    stored = {name for item in scan.parameters for name in item.tensors} | set(scan.skipped)
    if _matches_any(text, prepare_names(sorted(stored))):
        message = f"'{text}' matches names of the checkpoint only; the model that is trained has no such parameter."
        return Finding("SPC409", message, "Paste the list that 'spectrum select' prints.", line=line.number)
    if scan.settings.origin is not None:
        message = f"'{text}' matches nothing in the imported scan, which does not list every parameter."
        return Finding("SPC417", message, "Scan the model to make sure of it.", line=line.number)
    near = _near(text, names)
    remedy = f"Perhaps '^{near}$' is meant." if near else "Delete it, or paste the list that 'spectrum select' prints."
    return Finding("SPC407", f"'{text}' matches no parameter of the model.", remedy, line=line.number)


def _matches_any(text: str, names: Names) -> bool:
    try:
        pattern = parse_pattern(text)
        return paths(pattern, names) * len(names.ordered) <= MOST_PATHS and any(True for _ in matches(pattern, names))
    except SelectionError:
        return False


def _near(text: str, names: Names) -> str | None:
    """The shortest name with the same end: of a multimodal model, the one with its prefix."""
    tail = text.strip("^$").replace("\\.", ".").removeprefix("model.")
    found = [name for name in names.ordered if tail and name.endswith(f".{tail}")]
    return min(found, key=len, default=None)


def _tied_heads(scan: Scan) -> list[str]:
    entries = _entries(scan)
    kinds = {item.kind for item in entries}
    tied = "embedding" in kinds and "head" not in kinds
    aliases = [name for name, reason in scan.skipped.items() if reason.startswith("alias of ")]
    return [*aliases, *(["lm_head.weight"] if tied else [])]


def _cut(line: Line) -> Iterator[Finding]:
    if line.cut:
        message = f"'{line.pattern.text}' has no end and so matches {some(line.cut)} as well."
        yield Finding("SPC411", message, "End it with '$', after the parameter's whole name.", line=line.number)


def _rows(line: Line, rows: Mapping[str, int | None]) -> Iterator[Finding]:
    if line.pattern.rows is None or not line.matched:
        return
    start, stop = line.pattern.rows
    for name in line.matched:
        size = rows[name]
        if size is not None and not 0 <= start < (size if stop is None else stop) <= size:
            message = f"'{line.pattern.text}': '{name}' has {size} rows, so that Axolotl stops."
            yield Finding("SPC413", message, f"Give a range within 0 and {size}.", line=line.number)
            return
    message = (
        f"'{line.pattern.text}' trains a range of rows by zeroing gradients: weight decay still changes the others."
    )
    yield Finding("SPC414", message, "Set weight_decay to 0, or train the whole parameter.", line=line.number)


def _doubled(patterns: Sequence[tuple[int, str]]) -> Iterator[Finding]:
    first: dict[str, int] = {}
    for number, text in patterns:
        if text in first:
            message = f"'{text}' stands in line {first[text]} already."
            yield Finding("SPC412", message, "Delete one of them.", line=number)
        first.setdefault(text, number)


def _against_selection(lines: Sequence[Line], wanted: set[str], selection: Selection) -> Iterator[Finding]:
    matched: dict[str, int] = {}
    for line in lines:
        for name in line.matched:
            matched.setdefault(name, line.number)
    what = f"the selection '{selection.description}'"
    remedy = "Paste the list of 'spectrum select' again, or give check the options that it was made with."
    extra = sorted(matched.keys() - wanted, key=natural_key)
    if extra:
        message = f"The list trains {_counted(len(extra))} that {what} does not hold: {some(extra)}."
        yield Finding("SPC415", message, remedy, line=min(matched[name] for name in extra))
    missing = sorted(wanted - matched.keys(), key=natural_key)
    if missing:
        message = f"The list does not train {_counted(len(missing))} of {what}: {some(missing)}."
        yield Finding("SPC416", message, remedy)


def _counted(count: int) -> str:
    return "1 parameter" if count == 1 else f"{count} parameters"


def _entries(scan: Scan) -> tuple[ParameterScore | Unscored, ...]:
    return (*scan.parameters, *scan.unscored)


def _rows_of_parameters(scan: Scan, members: Mapping[str, Sequence[str]]) -> dict[str, int | None]:
    """Runtime name -> rows, len() of the parameter; None where the scan does not tell."""
    rows: dict[str, int | None] = {}
    for item in _entries(scan):
        shape = item.shape[1:] if item.shape and "*" in item.name else item.shape
        rows |= dict.fromkeys(members[item.name], shape[0] if shape else None)
    return rows
