"""Scores and selections as tables, for a terminal or a pipe."""

import math
from collections import defaultdict
from collections.abc import Sequence
from statistics import median

from rich.table import Table
from rich.text import Text

from spectrum.errors import one_line
from spectrum.exporting import ADAPTERS, adapted_words, trainable_words
from spectrum.naming import common_prefix, natural_key
from spectrum.results.scan import ParameterScore, Scan
from spectrum.selection import Selection, embedding_size, rank

# Columns of numbers -> fields of a score.
_FIELDS = {
    "ratio": "ratio",
    "sigma_max": "sigma_max",
    "threshold": "threshold",
    "signal": "signal_count",
    "stable rank": "stable_rank",
}
COLUMNS = ("module type", "layer", "SNR", *_FIELDS, "shape")


def selection_table(selection: Selection) -> Table:
    """One row per module type: parameters, lowest, median and highest SNR, saturated, selected."""
    table = new_table("module type", "parameters", "lowest", "median", "highest", "saturated", "selected")
    for group in selection.groups:
        add_row(table, group.label, len(group.ranked), *_spread(group.ranked), group.saturated, group.count)
    return table


def parameter_table(scan: Scan, by: str | None = None) -> Table:
    """One row per scored parameter: module type by module type, best first; or ordered by one of `COLUMNS`."""
    table = new_table(*COLUMNS)
    prefix = common_prefix(item.module_type for item in scan.parameters)
    for item in _sorted(scan, by):
        add_row(table, item.module_type.removeprefix(prefix), "-" if item.layer is None else item.layer, *_facts(item))
    return table


def type_summary(scan: Scan) -> Table:
    """One row per module type: parameters, lowest, median and highest SNR, saturated parameters."""
    table = new_table("module type", "parameters", "lowest", "median", "highest", "saturated")
    prefix = common_prefix(item.module_type for item in scan.parameters)
    members: dict[str, list[ParameterScore]] = defaultdict(list)
    for item in scan.parameters:
        members[item.module_type].append(item)
    for name in sorted(members, key=natural_key):
        saturated = sum(item.saturated for item in members[name])
        add_row(table, name.removeprefix(prefix), len(members[name]), *_spread(members[name]), saturated)
    return table


def trainable_lines(selection: Selection, scan: Scan, format: str = "axolotl") -> list[str]:  # noqa: A002
    """How much is trained, and how much of that is embedding and head if they are trained."""
    lines = [adapted_words(selection, scan) if format in ADAPTERS else trainable_words(selection, scan)]
    size = embedding_size(selection, scan)
    if selection.embeddings:
        amount = "" if size is None or not scan.model.parameters else f": {size:,}, {_share(size, scan)} of the model"
        lines.append(f"of these, embedding and head{amount}; --embeddings freeze leaves them out")
    return lines


def _share(size: int, scan: Scan) -> str:
    return f"{100 * size / (scan.model.parameters or size):.1f} %"


def show_number(number: float | None) -> str:
    """Four significant digits, without an exponent where that is readable; a saturated score by its word."""
    if number is None:
        return "saturated"
    return f"{number:.4g}" if number < 1e6 else f"{number:.3e}"


def _sorted(scan: Scan, by: str | None) -> list[ParameterScore]:
    """The parameters by a column, ties best first: names and layers ascending, numbers descending."""
    best_first = rank(scan.parameters)
    if by in (None, "module type"):
        return sorted(best_first, key=lambda item: natural_key(item.module_type))
    if by == "layer":
        return sorted(best_first, key=lambda item: float("inf") if item.layer is None else item.layer)
    return sorted(best_first, key=lambda item: -_number(item, by or ""))


def _number(item: ParameterScore, column: str) -> float:
    """A column as a number to sort by: saturated scores first, unknown numbers last."""
    if column == "SNR":
        return float("inf") if item.snr is None else item.snr
    if column == "shape":
        return math.prod(item.shape) if item.shape else -1
    value = getattr(item.score, _FIELDS[column], None)
    if value is None:
        return float("inf") if column == "ratio" and item.saturated else -1
    return float(value)


def _facts(item: ParameterScore) -> tuple[str, ...]:
    shape = "unknown" if item.shape is None else " x ".join(map(str, item.shape))
    if item.score is None:
        return (show_number(item.snr), "-", "-", "-", "-", "-", shape)
    numbers = (item.snr, *(getattr(item.score, field) for field in _FIELDS.values()))
    return (*map(show_number, numbers), shape)


def _spread(members: Sequence[ParameterScore]) -> tuple[str, str, str]:
    scores = [float("inf") if item.snr is None else item.snr for item in members]
    numbers = (min(scores), median(scores), max(scores))
    return tuple(show_number(None if number == float("inf") else number) for number in numbers)  # type: ignore[return-value]


def new_table(first: str, *columns: str) -> Table:
    """An empty table: its first column to the left, numbers to the right, nothing wrapped."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(first, no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def add_row(table: Table, *cells: object) -> None:
    """Add a row of anything that can be shown on one line."""
    table.add_row(*[Text(one_line(str(cell))) for cell in cells])  # Text: rich would read [b] in a name as markup
