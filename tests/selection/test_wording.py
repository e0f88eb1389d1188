"""Choices in words and in file names."""

import itertools
import re

import pytest

from spectrum.results import Settings
from spectrum.selection import Choice, Count, MaxWeights, MinSnr, PerType, TopPercent, describe, tag

_EXAMPLES = [
    (Choice(), "top25", "top 25 % of each module type by SNR (noise model iqr)"),
    (Choice(TopPercent(12.5)), "top12.5", "top 12.5 % of each module type by SNR (noise model iqr)"),
    (Choice(Count(3)), "count3", "the 3 best of each module type by SNR (noise model iqr)"),
    (
        Choice(Count(3), score="condition"),
        "count3-condition",
        "the 3 best of each module type by condition number, lowest first",
    ),
    (Choice(MinSnr(2.5)), "min-snr2.5", "every parameter with an SNR (noise model iqr) of at least 2.5"),
    (
        Choice(MaxWeights(limit=2_500_000_000)),
        "max-params2500000000",
        "top 20 % of each module type by SNR (noise model iqr), the most that trains at most 2,500,000,000 weights",
    ),
    (
        Choice(MaxWeights(model_percent=30), score="stable-rank"),
        "trainable30-stable-rank",
        "top 20 % of each module type by stable rank, the most that trains at most 30 % of all weights",
    ),
    (
        Choice(PerType((("mlp.*", 50), ("self_attn.?_proj", 25)), 10)),
        "per-type-all=10_mlp=50_self_attn__proj=25-5e4de0",
        "top 50 % of mlp.*, 25 % of self_attn.?_proj, 10 % of the others by SNR (noise model iqr)",
    ),
    (
        Choice(whole_layers=True, score="ratio"),
        "layers-top25-ratio",
        "top 25 % of the layers, whole, by ratio (noise model iqr)",
    ),
    (
        Choice(strategy="random", seed=7),
        "random25-seed7",
        "drawn at random (seed 7), in the numbers of: top 25 % of each module type by SNR (noise model iqr)",
    ),
    (
        Choice(Count(2), strategy="bottom"),
        "count2-bottom",
        "the lowest ranked, in the numbers of: the 2 best of each module type by SNR (noise model iqr)",
    ),
    (
        Choice(TopPercent(50), strategy="last", whole_layers=True),
        "layers-last50",
        "the last layers, in the numbers of: top 50 % of the layers, whole, by SNR (noise model iqr)",
    ),
]


@pytest.mark.parametrize(("choice", "name", "words"), _EXAMPLES, ids=[name for _, name, _ in _EXAMPLES])
def test_in_words_and_as_a_file_name(choice, name, words):
    """Both, whole."""
    assert tag(choice, Settings()) == name
    assert describe(choice, "iqr", percent=20.0) == words


def test_noise_model():
    """Another one is named, unless the score has no threshold."""
    assert tag(Choice(), Settings("mp")) == "top25-mp"
    assert tag(Choice(score="stable-rank"), Settings("mp")) == "top25-stable-rank"
    assert describe(Choice(), "mp").endswith("by SNR (noise model mp)")


def test_different_choices_have_different_file_names():
    """Patterns that look alike without their specials, too; every name is safe as a file name."""
    rules = [
        TopPercent(25),
        TopPercent(25.000001),
        Count(25),
        MinSnr(25),
        MaxWeights(limit=25),
        MaxWeights(model_percent=25),
    ]
    rules += [PerType(((pattern, 25),)) for pattern in ("mlp.*", "mlp.?", "mlp.[a-z]", "../x", "a" * 300)]
    rules += [PerType((("mlp.*", 25),), 10), PerType((("*", 10), ("mlp.?", 25)))]
    strategies = [("top", 0), ("bottom", 0), ("random", 0), ("random", 1), ("first", 0), ("last", 0)]
    choices = [
        Choice(rule, score=score, strategy=strategy, seed=seed)
        for rule, (strategy, seed), score in itertools.product(rules, strategies, ["snr", "stable-rank"])
        if score == "snr" or not isinstance(rule, MinSnr)
    ]
    tags = {tag(choice, Settings()) for choice in choices}
    assert len(tags) == len(choices)
    assert all(re.fullmatch(r"[A-Za-z0-9._=-]{1,110}", name) and ".." not in name for name in tags)
