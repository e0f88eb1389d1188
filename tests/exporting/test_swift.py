"""The YAML for ms-swift, and its expression applied the way ms-swift applies it."""

import re
from pathlib import Path

import pytest
import yaml
from exporting.models import example, golden, model_of, renamed, scan_of

from spectrum.errors import SelectionError
from spectrum.exporting import to_swift
from spectrum.selection import select_top

CONFIG = Path(__file__).parents[2] / "configs" / "ms-swift.yaml"


def _trained(model, arguments):
    """What is trainable after swift/utils/transformers_utils.py of ms-swift 4.6, in our own words."""
    assert arguments["freeze_parameters_ratio"] == 1
    compiled = re.compile(arguments["trainable_parameters_regex"])
    return {name for name, _ in model.named_parameters() if compiled.search(name)}


def test_golden():
    """The whole text."""
    scan = example()
    assert to_swift(select_top(scan, 50), scan) == golden("swift.yaml")


@pytest.mark.parametrize("name", ["llama-tied", "qwen2_vl", "mixtral", "gpt_oss"])
def test_exactly_the_selection_is_trainable(name):
    """Also beside gpt_oss's `gate_up_proj_bias`, which a prefix `gate_up_proj` would train."""
    scan = scan_of(name)
    selection = select_top(scan, 30)
    arguments = yaml.safe_load(to_swift(selection, scan))
    assert _trained(model_of(name), arguments) == set(selection.names)


def test_quotes_survive():
    """A name with a quote, read back by a YAML parser."""
    scan = renamed(example(), "down_proj", "do'wn: #x")
    text = yaml.safe_load(to_swift(select_top(scan, 50), scan))["trainable_parameters_regex"]
    assert re.search(text, "model.layers.1.mlp.do'wn: #x.weight")


def test_too_long_for_an_argument():
    """An expression that no process could be started with is refused."""
    scan = renamed(example(), "down_proj", "x" * 140_000)
    with pytest.raises(SelectionError, match="Linux takes 128 KiB as one argument"):
        to_swift(select_top(scan, 50), scan)


def test_the_example_config():
    """Every value is one that ms-swift's own reader can make an argument of: no mapping, no nested list."""
    values = yaml.safe_load(CONFIG.read_text())
    assert all(isinstance(value, str | int | float) for value in values.values())
    assert (values["tuner_type"], values["freeze_parameters_ratio"]) == ("full", 1)
    assert re.search(values["trainable_parameters_regex"], "model.layers.1.mlp.down_proj.weight")
