"""What is scored, and what is said if that is nothing."""

import re

import pytest
import torch
from conftest import write_checkpoint

from spectrum.checkpoint import open_checkpoint
from spectrum.errors import CheckpointError
from spectrum.results import Settings
from spectrum.scanning.plan import plan_scan

SHAPES = {
    "model.embed_tokens.weight": (80, 16), "model.norm.weight": (16,), "lm_head.weight": (80, 16),
    "model.layers.0.mlp.up_proj.weight": (24, 16), "model.layers.0.mlp.up_proj.bias": (24,),
    "model.layers.1.mlp.up_proj.weight": (24, 16), "model.layers.1.mlp.gate.weight": (4, 16),
    "model.layers.1.conv.weight": (4, 4, 3), "model.layers.1.experts.0.w1.weight": (24, 16),
    "model.layers.1.experts.1.w1.weight": (24, 16), "wpe.weight": (40, 40), "proj.weight": (40, 40),
}  # fmt: skip


def test_the_counts_of_unscored_parameters_add_up(tmp_path):
    """Nothing to score: each parameter is counted once, under one reason; the experts of a layer are one."""
    tensors = {name: torch.ones(shape) for name, shape in SHAPES.items()}
    folder = write_checkpoint(tmp_path / "m", {"_": tensors})
    with open_checkpoint(str(folder)) as checkpoint, pytest.raises(CheckpointError) as error:
        plan_scan(checkpoint, Settings())
    total, counts = re.search(r"among its (\d+) parameters: (.*?)\. Param", str(error.value)).groups()
    assert int(total) == len(SHAPES) - 1
    assert sum(int(count) for count in re.findall(r"(\d+) x ", counts)) == int(total)
