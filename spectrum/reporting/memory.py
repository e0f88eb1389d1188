"""Tables of memory: a row per selection, or a row per part of one selection."""

from collections.abc import Mapping

from rich.table import Table

from spectrum.budget import Memory

_PARTS = {
    "weights": "all, trained and frozen",
    "master": "copies of the trained weights, for the optimizer",
    "gradients": "of the trained weights",
    "state": "of the optimizer",
    "activations": "an estimate",
    "total": "on the fullest GPU",
}


def _unit(largest_bytes: int) -> tuple[str, float]:
    return ("GB", 1e9) if largest_bytes >= 1e9 else ("MB", 1e6)


def memory_table(rows: Mapping[str, Memory]) -> Table:
    """A row per selection: trained weights, their share, and each part of the memory in GB, or in MB if small."""
    unit, scale = _unit(max(row.total for row in rows.values()))
    parts = [part for part in _PARTS if any(getattr(row, part) for row in rows.values())]
    table = Table(f"{unit} per GPU", box=None, pad_edge=False, header_style="bold")
    for heading in ("trainable", "share", *parts):
        table.add_column(heading, justify="right", no_wrap=True)
    for label, row in rows.items():
        share = f"{100 * row.trainable / (row.trainable + row.frozen):.1f} %"
        table.add_row(label, f"{row.trainable:,}", share, *(f"{getattr(row, part) / scale:.2f}" for part in parts))
    return table


def memory_parts(row: Memory) -> Table:
    """A row per part of one selection's memory, to the byte."""
    table = Table("per GPU", box=None, pad_edge=False, header_style="bold")
    unit, scale = _unit(row.total)
    for heading in ("bytes", unit):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("what")
    for part, meaning in _PARTS.items():
        size_bytes: int = getattr(row, part)
        if size_bytes:
            table.add_row(part, f"{size_bytes:,}", f"{size_bytes / scale:.2f}", meaning)
    return table
