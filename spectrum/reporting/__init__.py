"""Scores as a person reads them."""

from spectrum.reporting.diff_table import move_table, overlap_table, type_table
from spectrum.reporting.heatmap import heatmap
from spectrum.reporting.memory_table import memory_parts, memory_table
from spectrum.reporting.score_table import (
    COLUMNS,
    parameter_table,
    selection_table,
    show_number,
    trainable_lines,
    type_summary,
)

__all__ = [
    "COLUMNS", "heatmap", "memory_parts", "memory_table", "move_table", "overlap_table", "parameter_table",
    "selection_table", "show_number", "trainable_lines", "type_summary", "type_table",
]  # fmt: skip
