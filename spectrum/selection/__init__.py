"""Which parameters to train: the best of each module type, and what goes with them."""

from spectrum.selection.choice import (
    Choice,
    Count,
    MaxWeights,
    MinSnr,
    PerType,
    Rule,
    Strategy,
    TopPercent,
    Treatment,
)
from spectrum.selection.choosing import select, select_top
from spectrum.selection.companions import embedding_size
from spectrum.selection.conditions import read_conditions
from spectrum.selection.overlap import Overlap, correlations, overlap
from spectrum.selection.ranking import ScoreName, condition_numbers, rank, score_keys
from spectrum.selection.types import Group, Selection
from spectrum.selection.wording import arguments, describe, number, tag

__all__ = [
    "Choice", "Count", "Group", "MaxWeights", "MinSnr", "Overlap", "PerType", "Rule", "ScoreName", "Selection",
    "Strategy", "TopPercent", "Treatment", "arguments", "condition_numbers", "correlations", "describe",
    "embedding_size", "number", "overlap", "rank", "read_conditions", "score_keys", "select", "select_top", "tag",
]  # fmt: skip
