"""The structure: a module imports only what stands before it in the pipeline; proved from the syntax tree."""

import ast
import re
from pathlib import Path

import pytest

import spectrum

ROOT = Path(spectrum.__file__).parent

# In the order of DESIGN.md's pipeline. A module may import from its own stage and from earlier ones.
STAGES = [
    "errors", "untrusted", "checkpoint", "naming", "spectra", "results", "scanning", "selection", "exporting",
    "checking", "budget", "reporting", "bench", "demo", "api", "cli",
]  # fmt: skip
# And what looks like a later stage but stands beside the line, using what is above it only.
ENTRY_POINTS = {"__init__", "__main__"}

# Who may import what is expensive or has one home.
HOMES = {
    "torch": {"checkpoint", "naming", "spectra", "scanning", "bench", "demo", "results", "cli"},
    "transformers": {"naming"},
    "rich": {"reporting", "cli"},
    "typer": {"cli"},
    "huggingface_hub": {"checkpoint", "naming"},  # naming only switches it off
}


def _modules():
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        yield parts[0], path


def _imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert node.module is not None
            if node.module == "spectrum":
                yield from (f"spectrum.{alias.name}" for alias in node.names)
            else:
                yield node.module


def test_every_module_has_a_stage():
    """A new module must be given its place in the line."""
    assert {stage for stage, _ in _modules()} - ENTRY_POINTS <= set(STAGES)


def test_imports_point_backwards():
    """No import of a later stage, lazy ones included."""
    wrong = []
    for stage, path in _modules():
        if stage in ENTRY_POINTS:
            continue
        for name in _imports(path):
            home, _, rest = name.partition(".")
            target = rest.split(".")[0]
            if home == "spectrum" and target in STAGES and STAGES.index(target) > STAGES.index(stage):
                wrong.append(f"{path.relative_to(ROOT)} imports {name}")
    assert wrong == []


@pytest.mark.parametrize("library", HOMES)
def test_libraries_have_their_homes(library):
    """Each heavy library is imported only by the stages that need it."""
    users = {stage for stage, path in _modules() for name in _imports(path) if name.split(".")[0] == library}
    assert users <= HOMES[library]


def test_decompositions_have_one_caller():
    """spectra/ alone calls those of torch.linalg."""
    calls = re.compile(r"torch\.linalg\.(?!vector_norm)|torch\.(svd|qr|symeig)\b")
    assert {stage for stage, path in _modules() if calls.search(path.read_text())} == {
        "spectra",
        "bench",
    }  # the plain method it is compared with


def test_click_is_never_imported():
    """typer carries its own copy of it."""
    assert not [path for _, path in _modules() for name in _imports(path) if name.split(".")[0] == "click"]


def _patched(path):
    """Names that a test file replaces by setattr or delattr of a MonkeyPatch."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in PATCHES:
            yield from (word.value for word in node.args[:2] if isinstance(word, ast.Constant))


PATCHES = {"setattr", "delattr"}


def test_no_test_patches_a_private_name():
    """Neither ours nor a library's: such a test breaks when what it tests does not."""
    private = re.compile(r"(^|\.)_[^_][^.]*$")
    tests = sorted(Path(__file__).parent.rglob("*.py"))
    assert [(path.name, name) for path in tests for name in _patched(path) if private.search(str(name))] == []
