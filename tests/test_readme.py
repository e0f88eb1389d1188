"""The README is one page, and the two lines at its top are the ones to copy."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_it_is_one_page():
    """At most 200 lines of at most 120 characters; tables and commands may be longer."""
    lines = README.splitlines()
    assert len(lines) <= 200
    assert [line for line in lines if len(line) > 120 and not line.startswith(("|", "python3"))] == []


def test_two_commands_stand_at_the_top():
    """One runs the main job, one the tests; CI runs the latter as it stands."""
    first, second = re.findall(r"^python3 -m venv .*$", README, flags=re.MULTILINE)[:2]
    assert first.endswith("spectrum scan --demo --top 25")
    assert re.search(r"-m pytest( -n \d+ --dist loadfile)?$", second)
    assert README.index(second) < README.index("## Five minutes")


def test_the_caveat_stands_before_the_first_command():
    """That the default threshold is not the edge of noise."""
    assert README.index("*not* the edge of random noise") < README.index("```sh")


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*-versions.txt")), ids=lambda path: path.stem)
def test_versions_are_exact(path):
    """Every line of the constraints files pins one version."""
    lines = path.read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert "torch==2.13.0" in pins
    assert all(re.fullmatch(r"[\w-]+==[\w.]+(; python_version [<>=]+ \"[\d.]+\")?", pin) for pin in pins)
