"""The example workflow and hook: parsed, and their command lines run as they stand."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from checking.conftest import CONFIG, SCAN

CONFIGS = Path(__file__).parents[2] / "configs"
WORKFLOW = yaml.safe_load((CONFIGS / "github-actions.yml").read_text())
HOOK = yaml.safe_load((CONFIGS / "pre-commit-config.yaml").read_text())["repos"][0]["hooks"][0]
STEPS = [step["run"] for step in WORKFLOW["jobs"]["check"]["steps"] if "run" in step]


def _commands():
    lines = [line for step in STEPS for line in step.splitlines()] + [HOOK["entry"]]
    return [shlex.split(line)[1:] for line in lines if line.startswith("spectrum ")]


@pytest.mark.parametrize("words", _commands(), ids=" ".join)
def test_commands_are_accepted(project, run, words):
    """Each passes a sound project and fails one whose list was altered."""
    for path in Path("snr_results").iterdir():
        shutil.copy(path, str(path).replace("tiny-llama", "Meta-Llama-3-8B"))
    assert words[1] == "snr_results/Meta-Llama-3-8B.json"
    code, out, err = run(*words)
    assert (code, err) == (0, "")
    assert "SPC303" in out  # the trainer of the example is not the one installed here
    Path(CONFIG).write_text(Path(CONFIG).read_text() + "- ^model.norm.weight$\n")
    code, out, _ = run(*words)
    assert (code, "SPC415" in out) == (1, True)


def test_there_are_commands():
    """One in the workflow, one in the hook."""
    assert len(_commands()) == 2


def test_nothing_is_installed_by_a_name_that_may_not_exist():
    """Spectrum comes from a repository, whose place nobody can take for a real one."""
    texts = [(CONFIGS / name).read_text() for name in ("github-actions.yml", "pre-commit-config.yaml")]
    for text in texts:
        assert re.findall(r"pip install [^\n]*spectrum-snr([^\n]{0,40})", text)[0].startswith(
            " @ git+https://github.com/OWNER/REPO"
        )
    assert "replace OWNER/REPO" in texts[0]


def test_workflow_has_what_github_wants():
    """Triggers (YAML 1.1 reads `on` as true), a runner, and steps that use or run something."""
    assert set(WORKFLOW[True]) == {"push", "pull_request"}
    job = WORKFLOW["jobs"]["check"]
    assert job["runs-on"] == "ubuntu-latest"
    assert all(("uses" in step) != ("run" in step) for step in job["steps"])


def test_hook_has_what_pre_commit_wants():
    """The keys of a local hook; it starts for the config and for the scan, and for nothing else."""
    assert {"id", "name", "entry", "language"} <= set(HOOK)
    assert [path for path in (CONFIG, SCAN, "axolotl.yml.bak", "README.md") if re.search(HOOK["files"], path)] == [
        CONFIG,
        SCAN,
    ]


_ALONE = """
import importlib.abc, importlib.metadata, sys
allowed = set(sys.argv.pop(1).split())
owned = set(importlib.metadata.packages_distributions())

class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in owned - allowed:
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Absent())
from spectrum.cli.commands import app
app(sys.argv[1:], prog_name="spectrum")
"""


def test_what_the_workflow_installs_is_enough(project):
    """With every other installed package out of reach, the check still runs."""
    (line,) = [line for step in STEPS for line in step.splitlines() if line.startswith("pip install filelock")]
    assert line.split()[2:] == ["filelock", "numpy", "pyyaml", "regex", "safetensors", "typer"]
    allowed = "spectrum filelock numpy yaml _yaml regex safetensors typer"
    needed_by_typer = "click shellingham rich typing_extensions annotated_doc pydantic pydantic_core annotated_types"
    needed_by_typer += " typing_inspection"
    words = ["check", SCAN, "--config", CONFIG, "--transformers", "5.16.1"]
    command = [sys.executable, "-c", _ALONE, f"{allowed} {needed_by_typer}", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "0 errors, 1 warning" in done.stdout
