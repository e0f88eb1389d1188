"""Groups of options: one dataclass, the same options in every command that takes it."""

import re
from dataclasses import dataclass
from inspect import signature
from typing import Annotated

import pytest
import typer

from spectrum.cli.groups import expanded


@dataclass(frozen=True)
class _Size:
    width: Annotated[int, typer.Option("--width")] = 1
    height: Annotated[int, typer.Option("--height")] = 2


def test_a_group_becomes_options_and_arrives_as_one_value():
    """Each field is an option with its own default; the command sees the dataclass."""
    seen = []

    def draw(name: str, size: _Size, *, fast: bool = False) -> None:
        seen.append((name, size, fast))

    command = expanded(draw)
    assert list(signature(command).parameters) == ["name", "width", "height", "fast"]
    command(name="a", width=3, height=2, fast=True)
    assert seen == [("a", _Size(3, 2), True)]


@pytest.mark.parametrize("command", ["select", "check", "show", "diff", "budget", "import", "bench"])
def test_help_is_in_groups_with_one_example(run, command):
    """A screen and a half of 50 lines at most, an example that is one line to copy."""
    code, out, _ = run(command, "--help")
    assert code == 0
    assert out.count("\n") <= 75
    example = re.search(r"\nExample:\n  (spectrum \S.*)\n$", out)
    assert example
    assert f" {command} " in example[1]


def test_the_same_words_everywhere(run):
    """An option of a group reads alike in all commands that take it."""
    helps = [run(name, "--help")[1] for name in ("scan", "select", "show", "diff", "check", "budget")]
    assert {" ".join(text.split()).count("--exclude PATTERN Leave out module types that match.") for text in helps} == {
        1
    }
