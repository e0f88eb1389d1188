"""Configs that are anybody's text: a finding, never a traceback, never a wait."""

import os
import time
from pathlib import Path

import pytest
from checking.conftest import CONFIG, SCAN

from spectrum.checking.config import read_listed_config
from spectrum.exporting.config_text import LARGEST_BYTES

LIST = "unfrozen_parameters: [x]\n"


def _laughs(merge=""):
    rows = ["a0: &a0 {k: v}\n"]
    rows += [f"a{n}: &a{n} {{{merge}: [{', '.join([f'*a{n - 1}'] * 9)}]}}\n" for n in range(1, 12)]
    return "".join(rows) + LIST


HOSTILE = {
    "no_yaml": "a: b: c\n",
    "tab": "a:\n\t- b\n",
    "list": "- a\n",
    "scalar": "hello\n",
    "empty": "",
    "two_documents": "a: 1\n---\nb: 2\n",
    "billion_laughs": _laughs("k"),
    "merged_laughs": _laughs("<<"),
    "inside_itself": f"a: &a [*a]\n{LIST}",
    "deep": "a: " + "[" * 100_000,
    "deep_blocks": "".join(" " * n + "a:\n" for n in range(400)),
    "long_chain": "a0: &a0 [1]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}]\n" for n in range(1, 4000)) + LIST,
    "python_object": "a: !!python/object/apply:os.system [touch owned]\n" + LIST,
    "no_such_anchor": "a: *b\n",
    "bad_date": "a: 2024-13-45\n" + LIST,
    "base_60": f"a: 1{':1' * 400_000}\n" + LIST,
    "huge_number": f"a: {'9' * 10_000}\n" + LIST,
    "list_as_key": "? [a]\n: b\n" + LIST,
    "control_character": "a: \x07\n" + LIST,
    "too_large": "# " + "x" * LARGEST_BYTES,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_configs(tmp_path, name):
    """One finding, at once; nothing is executed."""
    Path(CONFIG).write_text(HOSTILE[name])
    begin = time.process_time()
    config, findings = read_listed_config(Path(CONFIG))
    assert (config, [item.code for item in findings]) == (None, ["SPC401"])
    assert findings[0].message.startswith(f"'{CONFIG}' ")
    assert len(findings[0].message) < 400
    assert time.process_time() - begin < 5
    assert not Path("owned").exists()


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"a: \x80\n"])
def test_bytes_that_are_no_text(tmp_path, content):
    """Not UTF-8."""
    Path(CONFIG).write_bytes(content)
    _, (item,) = read_listed_config(Path(CONFIG))
    assert item.message == f"'{CONFIG}' is not UTF-8 text."


@pytest.mark.parametrize("path", ["nowhere.yml", ".", "pipe"])
def test_no_file(tmp_path, path):
    """Missing, a folder, or a pipe, which is not waited for."""
    os.mkfifo("pipe")
    _, (item,) = read_listed_config(Path(path))
    assert (item.code, "cannot be read" in item.message) == ("SPC401", True)


@pytest.mark.parametrize(
    ("value", "line", "reason"),
    [
        ("^lm_head.weight$", 1, "it is text"),
        ("{a: b}", 1, "it is a mapping"),
        ("3", 1, "it is a number"),
        ("\n- a\n- 3", 3, "an entry is a number"),
        ("\n- a\n- b: c", 3, "an entry is a mapping"),
        ("\n- a\n-\n", 3, "an entry is empty"),
        ("\n- a\n- no\n", 3, "an entry is a truth value"),
    ],
)
def test_what_is_no_list_of_strings(tmp_path, value, line, reason):
    """Named, with its line."""
    Path(CONFIG).write_text(f"unfrozen_parameters: {value}")
    config, (item,) = read_listed_config(Path(CONFIG))
    assert (config.patterns, item.code, item.line) == (None, "SPC403", line)
    assert item.message.endswith(f"must be a list of strings, but {reason}.")


@pytest.mark.parametrize("text", ["a: 1\n", "a: 1\nunfrozen_parameters:\n", "a: 1\nunfrozen_parameters: []\n"])
def test_no_list_trains_everything(tmp_path, text):
    """Axolotl asks whether the list is truthy (train.py)."""
    Path(CONFIG).write_text(text)
    _, (item,) = read_listed_config(Path(CONFIG))
    assert (item.code, item.line) == ("SPC402", 2 if "unfrozen" in text else None)


def test_hostile_config_from_the_command_line(project, run):
    """The whole program: a finding on standard output, exit 1."""
    Path(CONFIG).write_text(HOSTILE["billion_laughs"])
    code, out, err = run("check", SCAN, "--config", CONFIG)
    assert (code, err, "error SPC401" in out) == (1, "", True)


def test_names_with_control_characters(project, run):
    """A pattern cannot start a second line in any format."""
    Path(CONFIG).write_text('unfrozen_parameters:\n- "^x\\n::error::y\\x1b[2J%$"\n')
    _, text, _ = run("check", SCAN, "--config", CONFIG)
    _, github, _ = run("check", SCAN, "--config", CONFIG, "--format", "github")
    assert all(re_line.startswith((CONFIG, SCAN, "    ")) for re_line in text.splitlines()[:-1])
    assert all(line.startswith("::error file=") for line in github.splitlines())
    assert "\x1b" not in text + github
