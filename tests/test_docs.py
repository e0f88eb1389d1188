"""README and docs/: what they print is what the commands print, and what follows from the code is up to date.

A console block is compared with what its commands print, an sh or python block is run. Each page runs in a folder of
its own, its blocks in order. A comment above a block says why it is not run here: `<!-- needs: network -->`, or
`<!-- tested: tests/... -->`. With SPECTRUM_UPDATE_DOCS=1 the pages are rewritten instead of compared.
"""

import importlib.util
import io
import json
import math
import os
import re
import shlex
import shutil
import subprocess
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import get_args

import pytest
from conftest import llama_config, tiny_llama, write_checkpoint

import spectrum
from spectrum.cli.commands import app
from spectrum.exporting import REFUSED, FormatName

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
GENERATED = {"commands.md", "findings.md", "api.md"}
WRITTEN = [page for page in PAGES if page.name not in GENERATED]
BLOCK = re.compile(r"(?:^<!-- ([^>]*) -->\n)?^```(\w+)\n(.*?)^```$", flags=re.MULTILINE | re.DOTALL)
NEEDS = {"network", "GPU", "Axolotl"}
VERSION = re.compile(r"transformers \d[\d.]*")


def _name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def _generator():
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def shared(tmp_path_factory) -> Path:
    """A folder for the demo's checkpoint and its scan, which is made once."""
    return tmp_path_factory.mktemp("demo")


def _spectrum(*words: object) -> tuple[int, str]:
    """Exit code, and output and messages in the order in which a terminal shows them."""
    printed = io.StringIO()
    with redirect_stdout(printed), redirect_stderr(printed), pytest.raises(SystemExit) as left:
        app([str(word) for word in words], prog_name="spectrum")
    return left.value.code or 0, printed.getvalue()


def _line(line: str, *, may_fail: bool = False) -> str:
    words = shlex.split(line, comments=True)
    if not words:
        return ""
    if words[0] == "spectrum":
        code, printed = _spectrum(*words[1:])
    else:
        done = subprocess.run(line, shell=True, capture_output=True, text=True, check=False)  # noqa: S602  our own page
        code, printed = done.returncode, done.stdout + done.stderr
    assert code == 0 or may_fail, f"{line}\n{printed}"
    return printed


def _console(text: str) -> str:
    """A console block with what its commands print now; only `check` may fail."""
    commands = re.findall(r"^\$ (.*)$", text, flags=re.MULTILINE)
    return "".join(f"$ {line}\n{_line(line, may_fail=' check ' in line)}" for line in commands)


def _block(match: re.Match[str]) -> str:
    """The block as it should read, after its commands were run."""
    mark, kind, text = match.groups()
    if mark is None and kind == "sh":
        for line in text.splitlines():
            _line(line)
    elif mark is None and kind == "python":
        with redirect_stdout(io.StringIO()):
            exec(compile(text, "page", "exec"), {})  # noqa: S102  the page's own example
    elif mark is None and kind == "console":
        return match[0].replace(text, _console(text))
    return match[0]


@pytest.mark.parametrize("page", WRITTEN, ids=_name)
def test_commands_run_and_print_what_the_page_says(page, shared, monkeypatch):
    """Every block that is not marked. The README begins with the scan of the demo; other pages find it in the store."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(shared / "cache"))
    if page.name == "README.md":
        shutil.rmtree(shared / "snr_results", ignore_errors=True)
        monkeypatch.chdir(shared)
    elif not (shared / "snr_results").exists():
        _spectrum("scan", "--demo", "--out", shared / "snr_results")
    if page.name != "README.md":
        shutil.copytree(shared / "snr_results", "snr_results")
    Path("configs").symlink_to(ROOT / "configs")
    write_checkpoint(Path("path/to/model"), {"": tiny_llama()}, config=llama_config(12))
    text = page.read_text()
    now = BLOCK.sub(_block, text)
    if os.environ.get("SPECTRUM_UPDATE_DOCS") == "1":
        page.write_text(now)
    else:
        assert VERSION.sub("transformers", now) == VERSION.sub("transformers", text)


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_a_mark_says_what_is_absent_or_what_runs_it(page):
    """Nothing else keeps a command from being run."""
    for mark, _, _ in BLOCK.findall(page.read_text()):
        if mark.startswith("needs: "):
            assert mark.removeprefix("needs: ") in NEEDS
        elif mark:
            assert (ROOT / mark.removeprefix("tested: ")).is_file()


@pytest.mark.parametrize("name", sorted(GENERATED))
def test_generated_pages_are_up_to_date(name):
    """Else run docs/generate.py."""
    module = _generator()
    assert (module.REFERENCE / name).read_text() == module.PAGES[name]()


def test_every_public_name_is_documented():
    """With a docstring of its own, under a heading."""
    page = (ROOT / "docs" / "reference" / "api.md").read_text()
    names = set(spectrum.__all__) - {"__version__"}
    assert set(re.findall(r"^## (\w+)$", page, flags=re.MULTILINE)) == names
    assert {name for name in names if not getattr(spectrum, name).__doc__} == set()


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_links_lead_to_files_and_headings(page):
    """Relative ones; `mkdocs build --strict` checks docs/ again, but not the README."""
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)", page.read_text()):
        path = (page.parent / target).resolve() if target else page
        assert path.is_file(), target
        if anchor:
            titles = re.findall(r"^#+ (.*)$", path.read_text(), flags=re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


def test_every_page_is_in_the_navigation():
    """And the navigation names no other."""
    config = (ROOT / "configs" / "mkdocs.yml").read_text()
    listed = re.findall(r"^ +- (\S+\.md)$", config, flags=re.MULTILINE)
    assert sorted(listed) == sorted(path.relative_to(ROOT / "docs").as_posix() for path in PAGES[1:])


def test_every_format_has_a_row():
    """In the guide to trainers; the table of the README has the most common ones."""
    guide = (ROOT / "docs" / "guides" / "trainers.md").read_text()
    rows = "\n".join(re.findall(r"^\|.*", guide, flags=re.MULTILINE))
    named = set(re.findall(r"--format ([\w-]+)", rows))
    assert set(get_args(FormatName)) <= named <= {*get_args(FormatName), *REFUSED}


def test_table_of_the_published_files(published):
    """Numbers of scores and of infinities, as the page on the score states them."""
    page = (ROOT / "docs" / "explanation" / "score.md").read_text()
    for path in published.glob("*.json"):
        text = path.read_text().strip()
        values = [
            entry["snr"] if "snr" in group else entry
            for group in json.loads(text or "{}").values()
            for entry in ([group] if "snr" in group else group.values())
        ]
        infinite = sum(math.isinf(value) for value in values)
        (row,) = [line for line in page.splitlines() if line.startswith("|") and _slug(line) in path.stem]
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        assert cells[2] == f"{len(values):,}"
        assert re.match(r"\d*", cells[3])[0] == (str(infinite) if infinite else "")


def _slug(line: str) -> str:
    found = re.match(r"\| `([\w.-]+)` \|", line)
    return f"-{found[1]}" if found else "nothing"
