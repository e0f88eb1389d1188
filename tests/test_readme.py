"""The README tells what is there: commands, options, and the two lines at its top."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
COMMANDS = ["bench", "budget", "check", "diff", "scan", "select", "show", "import"]


def _help(*words):
    return subprocess.run(
        [sys.executable, "-m", "spectrum", *words, "--help"], capture_output=True, text=True, check=True
    ).stdout


def test_every_command_is_documented():
    """The commands that --help lists stand in the README's table, and no others."""
    listed = re.findall(r"^  (\w+) ", _help().split("Commands:")[1], flags=re.MULTILINE)
    assert sorted(listed) == sorted(COMMANDS)
    assert sorted(set(re.findall(r"^\| `spectrum (\w+)", README, flags=re.MULTILINE))) == sorted(listed)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_is_documented(command):
    """Each long option of each command is named somewhere in the README."""
    options = set(re.findall(r"--[a-z][a-z-]+", _help(command))) - {"--help"}
    assert {option for option in options if option not in README} == set()


def test_two_commands_stand_at_the_top():
    """One runs the main job, one the tests; CI runs the latter as it stands."""
    first, second = re.findall(r"^python3 -m venv .*$", README, flags=re.MULTILINE)[:2]
    assert first.endswith("spectrum scan --demo --top 25")
    assert second.endswith("-m pytest")
    assert README.index(second) < README.index("## Use")


def test_python_example_runs(llama):
    """The example of the Python interface is executed as printed."""
    (code,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    code = code.replace("path/to/model", str(llama))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "unfrozen_parameters:\n- ^lm_head.weight$\n" in done.stdout


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*-versions.txt")), ids=lambda path: path.stem)
def test_versions_are_exact(path):
    """Every line of the constraints files pins one version."""
    lines = path.read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert "torch==2.13.0" in pins
    assert all(re.fullmatch(r"[\w-]+==[\w.]+(; python_version [<>=]+ \"[\d.]+\")?", pin) for pin in pins)


def test_demo_output_is_as_printed():
    """The table and the beginning of the YAML in the README are what the demo gives."""
    command = [sys.executable, "-m", "spectrum", "scan", "--demo", "--top", "25"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout in README
    (printed,) = re.findall(r"```yaml\n(# Spectrum.*?)```", README, flags=re.DOTALL)
    written = Path("snr_results/spectrum-demo.top25.yaml").read_text()
    version = re.compile(r"transformers [\d.]+")
    assert version.sub("", written).startswith(version.sub("", printed))


def test_choosing_and_comparing_are_as_printed(run):
    """The commands of those two sections, with all that they print to a terminal."""
    run("scan", "--demo", "--quiet")
    for section in ("Choosing", "Comparing scans"):
        text = README.split(f"\n## {section}\n")[1].split("\n## ")[0]
        (example,) = re.findall(r"```console\n(.*?)```", text, flags=re.DOTALL)
        for command, printed in re.findall(r"^\$ (.*)\n([^$]*)", example, flags=re.MULTILINE):
            if command.startswith("head"):
                number, path = re.fullmatch(r"head -(\d+) (.*)", command).groups()
                given = "".join(Path(path).read_text().splitlines(keepends=True)[: int(number)])
            else:
                _, out, err = run(*command.split()[1:])
                given = out + err
            version = re.compile(r"transformers [\d.]+")
            assert version.sub("", given) == version.sub("", printed)


def test_links_lead_to_sections():
    """Each link within the README names a heading, as GitHub writes its anchor, and the contents name every section."""
    titles = re.findall(r"^## (.*)$", README, flags=re.MULTILINE)
    anchors = [re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles]
    links = re.findall(r"\]\(#([^)]+)\)", README)
    assert set(links) <= set(anchors)
    contents = README.split("\nContents: ")[1].split("\n\n")[0]
    assert re.findall(r"\]\(#([^)]+)\)", contents) == anchors


def test_from_a_model_to_a_config(llama, run):
    """The four commands that the section on use begins with go through, on a small model of that name."""
    llama.rename("Meta-Llama-3-8B")
    Path("axolotl.yml").write_text("base_model: ./Meta-Llama-3-8B\nlearning_rate: 1e-5  # kept\n")
    block = README.split("\n## Use\n")[1].split("```sh\n")[1].split("```")[0]
    commands = [line.partition("#")[0].split()[1:] for line in block.splitlines()]
    assert [words[0] for words in commands] == ["scan", "select", "budget", "check"]
    assert [run(*words)[0] for words in commands] == [0, 0, 0, 0]
    text = Path("axolotl.yml").read_text()
    assert "learning_rate: 1e-5  # kept\n" in text
    assert text.count("# Spectrum: top 40 % of each module type") == 1
