"""The words of the program: plain English, and errors that fit on a line."""

import ast
import re
import shutil
from functools import cache
from pathlib import Path

import pytest

import spectrum
from spectrum.cli.output import hint, warn

ROOT = Path(spectrum.__file__).parent

# Odd form -> what to write.
ODD = {
    r"(?<![Tt]here )\b(is|are|was|were) no (?!longer|more)": "is not a",
    r"\bbut for\b": "except",
    r"\b(is|are) told\b|\btold apart\b": "is reported, is distinguished",
    r"\bdearest\b": "most expensive",
    r"\bstands? for more\b": "expands to",
    r", for (an?|the|whole|it|they)\b[^.;]*\b(is|are|has|have|holds?)\b": "because",
    r"\bonly where\b|\bdiffer where\b": "if",
    r"^'? were removed": "Removed ...",
    r"\bis a (str|NoneType|dict)\b": "a text, empty, a mapping",
}


def _literals(path):
    """(line, text) of every string that is not a docstring; an f-string as one text, its values as X."""
    tree = ast.parse(path.read_text())
    inner = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    inner |= {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}  # docstrings
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inner:
            yield node.lineno, node.value
        elif isinstance(node, ast.JoinedStr):
            parts = (part.value if isinstance(part, ast.Constant) else "X" for part in node.values)
            yield node.lineno, "".join(map(str, parts))


@cache
def _all_literals():
    paths = sorted(ROOT.rglob("*.py"))
    return [(f"{path.relative_to(ROOT)}:{line}", text) for path in paths for line, text in _literals(path)]


@pytest.mark.parametrize("odd", ODD)
def test_plain_english(odd):
    """Forms over which readers stumble do not come back."""
    found = [f"{place}: {text!r}; write: {ODD[odd]}" for place, text in _all_literals() if re.search(odd, text)]
    assert found == []


HOSTILE = ["x" * 5_000, "nowhere/../" * 500, "\u202e\x1b[2J a," * 500, "9" * 4_000]
# {} is the hostile value, S a stored scan.
PLACES = [
    "scan --model {}", "scan {}", "scan --demo --modules {}", "scan --demo --exclude {}", "scan --demo --format {}",
    "scan --demo --into {}", "scan --demo --out {}", "scan --demo --top {}", "scan --demo --device {}",
    "scan --demo --noise-model {}", "select {}", "select {}.json", "select S --top {}", "select S --count {}",
    "select S --max-params {}", "select S --trainable {}", "select S --min-snr {}", "select S --per-type {}",
    "select S --score {}", "select S --format {}", "select S --out {}", "select S --into {}", "show {}",
    "show S --sort {}", "diff {} {}", "diff S S --at {}", "diff S S --fail-below {}", "budget {}", "budget --model {}",
    "budget S --memory {}", "budget S --optimizer {}", "budget S --memory 1GB --reserve {}", "check {}",
    "check S --config {}", "import {}", "bench --like {}", "bench --device {}", "{}", "show --{}",
]  # fmt: skip


@pytest.mark.parametrize("place", PLACES)
def test_an_error_is_one_short_line(place, run, monkeypatch):
    """Whatever is quoted, of whatever length, every line on stderr has under 400 characters and is printable."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    shutil.copy(Path(__file__).parent / "results" / "release-0.1.0" / "old.json", "S")
    for hostile in HOSTILE:
        code, _, err = run(*[word.replace("{}", hostile) for word in place.split()])
        assert code in (0, 1, 2), (place, hostile[:20])
        for line in err.splitlines():
            assert len(line) < 400, (place, hostile[:20], line)
            assert line.isprintable()


def test_notes_and_warnings_are_short_lines(capsys):
    """A note or a warning that quotes a long error keeps its beginning and its end, in under 400 characters."""
    for write, prefix in ((hint, "note: "), (warn, "warning: ")):
        write(f"{'note: ' if write is hint else ''}C cannot be built: {'x' * 5_000}. Compare them with the trainer's.")
        line = capsys.readouterr().err
        assert line.startswith(f"{prefix}C cannot be built: x")
        assert line.endswith(". Compare them with the trainer's.\n")
        assert len(line) < 400
