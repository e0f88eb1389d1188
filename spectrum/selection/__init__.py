"""Which parameters to train: the best of each module type, and what goes with them."""

from spectrum.selection.choice import (
    Choice,
    Count,
    Group,
    MaxWeights,
    MinSnr,
    PerType,
    Rule,
    ScoreName,
    Selection,
    Strategy,
    TopPercent,
    Treatment,
    with_biases,
)
from spectrum.selection.choosing import select, select_top
from spectrum.selection.companions import embedding_size
from spectrum.selection.diff import Overlap, overlap
from spectrum.selection.ranking import condition_numbers, rank, read_conditions, score_keys
from spectrum.selection.wording import describe, tag

__all__ = [
    "Choice", "Count", "Group", "MaxWeights", "MinSnr", "Overlap", "PerType", "Rule", "ScoreName", "Selection",
    "Strategy", "TopPercent", "Treatment", "condition_numbers", "describe", "embedding_size", "overlap", "rank",
    "read_conditions", "score_keys", "select", "select_top", "tag",
    "with_biases",
]  # fmt: skip
