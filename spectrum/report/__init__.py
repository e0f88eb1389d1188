"""Scores as a person reads them."""

from spectrum.report.diff_table import move_table, overlap_table, type_table
from spectrum.report.heatmap import heatmap
from spectrum.report.memory import memory_parts, memory_table
from spectrum.report.table import parameter_table, selection_table, show_number, trainable_line

__all__ = [
    "heatmap", "memory_parts", "memory_table", "move_table", "overlap_table", "parameter_table", "selection_table",
    "show_number", "trainable_line", "type_table",
]  # fmt: skip
