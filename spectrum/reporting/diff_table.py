"""Two scans compared, as tables."""

from rich.table import Table

from spectrum.reporting.score_table import add_row, new_table
from spectrum.selection.diff import Diff


def type_table(diff: Diff) -> Table:
    """One row per module type: parameters compared, Spearman's correlation, missing, new."""
    table = new_table("module type", "compared", "Spearman", "missing", "new")
    for change in diff.module_types:
        correlation = "-" if change.spearman is None else f"{change.spearman:.3f}"
        add_row(table, change.label, change.compared, correlation, change.missing, change.new)
    return table


def overlap_table(diff: Diff) -> Table:
    """One row per percentage: how many each scan selects, how many both."""
    table = new_table("selection", "A", "B", "both", "Jaccard")
    for item in diff.overlaps:
        add_row(table, f"top {item.percent:g} %", item.first, item.second, item.shared, f"{item.jaccard:.3f}")
    return table


def move_table(diff: Diff, count: int) -> Table:
    """The parameters whose rank within the module type changed most."""
    table = new_table("largest movers", "rank in A", "rank in B", "of")
    for move in diff.moves[:count]:
        add_row(table, move.name, move.first, move.second, move.compared)
    return table
