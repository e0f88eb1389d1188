"""The header above a list: the choice that made it is read from it, whatever it was."""

import json
from pathlib import Path

import pytest
from checking.conftest import CONFIG, SCAN

from spectrum.checking.config import last_header
from spectrum.errors import SelectionError
from spectrum.selection import Choice, Count, MaxWeights, MinSnr, PerType, TopPercent
from spectrum.selection.reading import arguments, read_arguments

# Options of select.
CHOICES = [
    "--top 25", "--top 33.333333333333336", "--top 100 --noise-model mp", "--count 1",
    "--count 3 --score ratio", "--count 2 --score condition", "--top 50 --score stable-rank", "--min-snr 0.25",
    "--max-params 60k", "--trainable 40%", "--trainable 41.5", "--per-type mlp.*=50,self_attn.q_proj=25",
    "--per-type mlp.*=50 --top 75", "--whole-layers --top 50", "--whole-layers --count 1 --score ratio",
    "--whole-layers --max-params 100000", "--top 50 --strategy bottom", "--top 75 --strategy random --seed 7",
    "--count 1 --strategy first", "--min-snr 0.25 --strategy last", "--whole-layers --top 50 --strategy random",
    "--count 1 --noise-model mp", "--top 50 --modules mlp.*,self_attn.q_proj --exclude mlp.up_proj",
    "--top 50 --embeddings freeze", "--top 50 --norms train",
]  # fmt: skip


def checked(run, *words):
    """[(code, remedy)] of a check of the config."""
    _, out, err = run("check", SCAN, "--config", CONFIG, *words, "--format", "json")
    assert err == ""
    return [(item["code"], item["remedy"]) for item in json.loads(out)["findings"] if item["code"] != "SPC601"]


@pytest.mark.parametrize("choice", CHOICES)
def test_every_choice_is_checked_without_options(project, run, choice):
    """The header is enough, the options that made the list are too, and a line too many is found."""
    words = choice.split()
    code, listed, err = run("select", SCAN, *words)
    assert code == 0, err
    Path(CONFIG).write_text(listed)
    assert checked(run) == checked(run, *words) == []
    Path(CONFIG).write_text(listed + "- ^model.layers.0.self_attn.rotary$\n")
    assert [code for code, _ in checked(run)] == ["SPC407"]


@pytest.mark.parametrize(
    "choice",
    [
        Choice(),
        Choice(TopPercent(0.1), embeddings="freeze", norms="train"),
        Choice(Count(3), score="condition", strategy="random", seed=5),
        Choice(MinSnr(0.5), modules=("mlp.*",), exclude=("a b", "x[0-9]")),
        Choice(MaxWeights(limit=10**12), whole_layers=True),
        Choice(MaxWeights(model_percent=12.5), strategy="bottom"),
        Choice(PerType((("mlp.*", 50.0), ("a=b", 0.0)))),
        Choice(PerType((("*", 1e-5),), otherwise=75.0)),
    ],
)
@pytest.mark.parametrize("noise_model", ["iqr", "mp"])
def test_options_read_back(choice, noise_model):
    """Word for word."""
    assert read_arguments(arguments(choice, noise_model)) == (choice, noise_model)


@pytest.mark.parametrize(
    "words",
    ["--top x", "--top 0", "--top 101", "--count 0", "--top 5 --count 5", "--tops 5", "x", "--score mystery", "--top",
     "--per-type a", "--min-snr 1 --whole-layers", "--noise-model magic"],
)  # fmt: skip
def test_options_that_are_none(words):
    """Anybody may write a comment: it is an error of its own, and no list is compared with it."""
    with pytest.raises(SelectionError):
        read_arguments(words.split())
    header = last_header(f"# Spectrum: x\n# options: {words}\n", above=3)
    assert (header.choice, header.reason[:32]) == (None, "has options that cannot be read:")


def test_a_list_of_an_earlier_release(project, run):
    """Its header has no options: it is not compared until they are given, and the report does not claim it."""
    _, listed, _ = run("select", SCAN, "--count", "2")
    Path(CONFIG).write_text("".join(line for line in listed.splitlines(keepends=True) if "# options" not in line))
    code, out, _ = run("check", SCAN, "--config", CONFIG)
    assert (code, "warning SPC418: The list was not compared with the scan" in out) == (0, True)
    assert out.splitlines()[-1] == "0 errors, 1 warning, 0 notes; looked at: scan, names, config, trainer"
    assert run("check", SCAN, "--config", CONFIG, "--strict")[0] == 1
    assert checked(run, "--count", "2") == []


def test_the_header_is_the_one_above_the_list(project, run):
    """An older one further above, and one of something else below, do not count."""
    _, listed, _ = run("select", SCAN, "--top", "75")
    other = "# Spectrum: x\n# options: --count 1\n"
    Path(CONFIG).write_text(f"{other}a: 1\n{listed}{other}b: 2\n")
    assert checked(run) == []


@pytest.mark.parametrize("words", [["--count", "1"], ["--norms", "train"], ["--modules", "mlp.*"], ["--top", "75"]])
def test_options_take_the_headers_place(project, run, words):
    """Any of those that choose; the noise model stays that of the header."""
    _, listed, _ = run("select", SCAN, "--top", "50", "--noise-model", "std")
    _, other, _ = run("select", SCAN, *words, "--noise-model", "std")
    names = [line for line in other.splitlines() if line.startswith("- ")]
    Path(CONFIG).write_text("\n".join([*listed.splitlines()[:4], "unfrozen_parameters:", *names]))
    assert {code for code, _ in checked(run)} <= {"SPC415", "SPC416"} != set()
    assert checked(run) != []
    assert checked(run, *words) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--top", "5", "--count", "5"], "give --top or --count, not both."),
        (["--seed", "5"], "only --strategy random draws by a seed."),
        (["--revision", "main"], "they belong to --model."),
        (["--token", "x"], "they belong to --model."),
    ],
)
def test_wrong_usage(project, run, words, message):
    """As for select: exit 2 and one line."""
    code, out, err = run("check", SCAN, *words)
    assert (code, out, err.count("\n"), message in err) == (2, "", 1, True)
