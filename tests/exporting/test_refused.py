"""Trainers that cannot be told."""

import pytest


@pytest.mark.parametrize(
    ("target", "instead"),
    [("llama-factory", "lora_target, separated by commas"), ("torchtune", "Take --format axolotl or swift")],
)
def test_refused_at_once(run, llama, target, instead):
    """One line with the way out, before anything is scanned."""
    code, out, err = run("scan", "--model", llama, "--format", target)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert instead in err
    assert "Scanning" not in err
