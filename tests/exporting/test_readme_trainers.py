"""The README's section on trainers: every format has its row, and the printed output is what the commands give."""

import re
import shlex
from pathlib import Path

from spectrum.cli.options import Format

README = (Path(__file__).parents[2] / "README.md").read_text()
SECTION = README.partition("\n## Trainers\n")[2].partition("\n## ")[0]


def test_every_format_has_a_row():
    """In the table's first column, and no others."""
    rows = re.findall(r"^\| (`.+?) \|", SECTION, flags=re.MULTILINE)
    named = {
        name for row in rows for name in re.findall(r"`([a-z-]+)`", row) if name in {each.value for each in Format}
    }
    assert named == {each.value for each in Format}


def test_the_output_is_as_printed(run):
    """The commands of the console block, on the demo."""
    run("scan", "--demo", "--quiet")
    (block,) = re.findall(r"```console\n(.*?)```", SECTION, flags=re.DOTALL)
    version = re.compile(r"transformers [\d.]+")
    for part in block.split("$ spectrum ")[1:]:
        command, printed = part.split("\n", 1)
        code, out, _ = run(*shlex.split(command))
        assert code == 0
        assert version.sub("", out) == version.sub("", printed)
