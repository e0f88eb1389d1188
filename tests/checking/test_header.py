"""The header above a list: the plain choice is taken from it, of any other it is told how to repeat it."""

import json
import shlex
from pathlib import Path

import pytest
from checking.conftest import CONFIG, SCAN

from spectrum.checking.header import choosing_options, read_header

# Options of select, and those that check asks for.
CHOICES = {
    "--count 1": None,
    "--count 3 --score ratio": None,
    "--count 2 --score condition": None,
    "--top 50 --score stable-rank": None,
    "--min-snr 0.25": None,
    "--max-params 60k": "--max-params 60000",
    "--trainable 40%": "--trainable 40.0%",
    "--trainable 41.5": "--trainable 41.5%",
    "--per-type mlp.*=50,self_attn.q_proj=25": "--per-type 'mlp.*=50,self_attn.q_proj=25'",
    "--per-type mlp.*=50 --top 75": "--per-type 'mlp.*=50' --top 75",
    "--whole-layers --top 50": None,
    "--whole-layers --count 1 --score ratio": None,
    "--whole-layers --max-params 100000": None,
    "--top 50 --strategy bottom": None,
    "--top 75 --strategy random --seed 7": None,
    "--count 1 --strategy first": None,
    "--min-snr 0.25 --strategy last": None,
    "--whole-layers --top 50 --strategy random --seed 0": None,
    "--count 1 --noise-model mp": "--count 1",
}


def checked(run, *words):
    """[(code, remedy)] of a check of the config."""
    _, out, err = run("check", SCAN, "--config", CONFIG, *words, "--format", "json")
    assert err == ""
    return [(item["code"], item["remedy"]) for item in json.loads(out)["findings"] if item["code"] != "SPC601"]


@pytest.mark.parametrize("choice", CHOICES)
def test_every_choice_can_be_checked(project, run, choice):
    """Without options it is told which; with those, and with the ones that it was made with, the list is exact."""
    words = choice.split()
    code, listed, err = run("select", SCAN, *words)
    assert code == 0, err
    Path(CONFIG).write_text(listed)
    ((found, remedy),) = checked(run)
    assert found == "SPC418"
    asked = remedy.removeprefix("Give check the options that chose it: ").removesuffix(".")
    assert sorted(shlex.split(asked)) == sorted(shlex.split((CHOICES[choice] or choice).replace("40.0", "40")))
    assert checked(run, *shlex.split(asked)) == checked(run, *words) == []
    Path(CONFIG).write_text(listed + "- ^model.norm.weight$\n")
    assert [code for code, _ in checked(run, *words)] == ["SPC415"]


@pytest.mark.parametrize("percent", ["25", "7.5", "0.00001", "33.333333333333336", "100"])
@pytest.mark.parametrize("noise_model", ["iqr", "mp"])
def test_the_plain_choice_needs_no_options(project, run, percent, noise_model):
    """Whatever its number looks like."""
    _, listed, _ = run("select", SCAN, "--top", percent, "--noise-model", noise_model)
    Path(CONFIG).write_text(listed)
    assert checked(run) == []
    header = read_header(listed, above=5)
    assert (header.line, header.top_percent, header.noise_model) == (1, float(percent), noise_model)


@pytest.mark.parametrize(
    "words",
    [
        "top 25 % of each module type by SNR (noise model iqr) ",
        "top 25 % of each module type by SNR (noise model iqr), the most that trains at most 5 weights",
        "top 25 % of each module type by SNR (noise model iqr) and more",
        "top 25 % of each module type by ratio (noise model iqr)",
        "top 25 % of each module type by stable rank",
        "top 25 % of the layers, whole, by SNR (noise model iqr)",
        "the lowest ranked, in the numbers of: top 25 % of each module type by SNR (noise model iqr)",
        "top 25.0 % of each module type by SNR (noise model iqr)",
        "top 25 % of each module type by SNR",
        "top 25 % of mlp.* by SNR (noise model iqr)",
    ],
)
def test_only_the_plain_choice_is_taken(words):
    """Word by word, but for blanks at the end."""
    header = read_header(f"# Spectrum: {words}\n", above=2)
    assert (header.top_percent == 25) == words.endswith(" ")


def test_the_header_is_the_one_above_the_list(project, run):
    """An older one further above, and one of something else below, say nothing of it."""
    _, listed, _ = run("select", SCAN, "--top", "75")
    other = "# Spectrum: the 1 best of each module type by SNR (noise model iqr)\n"
    Path(CONFIG).write_text(f"{other}a: 1\n{listed}{other}b: 2\n")
    assert checked(run) == []


def test_options_overrule_the_header(project, run):
    """Any of those that choose; the noise model stays that of the header."""
    _, listed, _ = run("select", SCAN, "--top", "75", "--noise-model", "std")
    _, counted, _ = run("select", SCAN, "--count", "2", "--noise-model", "std")
    names = [line for line in counted.splitlines() if line.startswith("- ")]
    Path(CONFIG).write_text("\n".join([*listed.splitlines()[:3], "unfrozen_parameters:", *names]))
    assert {code for code, _ in checked(run)} == {"SPC416"}
    assert checked(run, "--count", "2") == []
    assert checked(run, "--strategy", "bottom", "--count", "2") != []


@pytest.mark.parametrize(
    "words",
    [
        "--top 25", "--count 1", "--min-snr 0.1", "--max-params 90k", "--trainable 50%", "--per-type *=50",
        "--whole-layers", "--score ratio", "--strategy last", "--strategy random --seed 1",
    ],
)  # fmt: skip
def test_any_option_that_chooses_is_a_choice(project, run, words):
    """Each alone takes the place of what the header says; those that do not choose leave it unclear."""
    _, listed, _ = run("select", SCAN, "--count", "2")
    Path(CONFIG).write_text(listed)
    assert {code for code, _ in checked(run, *words.split())} <= {"SPC415", "SPC416"}
    for others in (["--norms", "train"], ["--noise-model", "mp"], ["--modules", "mlp.*"]):
        assert [code for code, _ in checked(run, *others)] == ["SPC418"]


def test_what_was_not_compared_is_not_looked_at(project, run):
    """The last line of the report does not claim it."""
    _, listed, _ = run("select", SCAN, "--count", "2")
    Path(CONFIG).write_text(listed)
    code, out, _ = run("check", SCAN, "--config", CONFIG)
    assert (code, out.splitlines()[-1]) == (
        0, "0 errors, 1 warning, 0 notes; looked at: scan, names, config, trainer",
    )  # fmt: skip
    assert run("check", SCAN, "--config", CONFIG, "--strict")[0] == 1


@pytest.mark.parametrize(
    "words",
    ["", "x", "top", "top 25 % of", "the 3 best", "top x by y", "(noise model iqr)", "top % of a by SNR" * 9999],
)
def test_headers_that_are_no_choice(words):
    """Anybody may write a comment."""
    assert choosing_options(words) is None


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
