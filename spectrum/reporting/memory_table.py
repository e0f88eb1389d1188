"""Tables of memory: a row per selection, or a row per part of one selection."""

from collections.abc import Mapping

from rich.table import Table

from spectrum.budget import Memory
from spectrum.budget.sizes import unit
from spectrum.reporting.score_table import add_row, new_table

_PARTS = {
    "weights": "all, trained and frozen",
    "master": "copies of the trained weights, for the optimizer",
    "gradients": "of the trained weights",
    "state": "of the optimizer",
    "activations": "an estimate",
    "total": "on the fullest GPU",
}


def memory_table(rows: Mapping[str, Memory]) -> Table:
    """A row per selection: trained weights, their share, and each part of the memory in GB, or in MB if small."""
    name, scale = unit(max(row.total for row in rows.values()))
    parts = [part for part in _PARTS if any(getattr(row, part) for row in rows.values())]
    table = new_table(f"{name} per GPU", "trainable", "share", *parts)
    for label, row in rows.items():
        share = f"{100 * row.trainable / (row.trainable + row.frozen):.1f} %"
        add_row(table, label, f"{row.trainable:,}", share, *(f"{getattr(row, part) / scale:.2f}" for part in parts))
    return table


def memory_parts(row: Memory) -> Table:
    """A row per part of one selection's memory, to the byte."""
    name, scale = unit(row.total)
    table = new_table("per GPU", "bytes", name)
    table.add_column("what")
    for part, meaning in _PARTS.items():
        size_bytes: int = getattr(row, part)
        if size_bytes:
            add_row(table, part, f"{size_bytes:,}", f"{size_bytes / scale:.2f}", meaning)
    return table
