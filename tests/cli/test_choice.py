"""The options that say what to select, on `select` and `scan`."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from selection.scans import layers, make_scan

from spectrum.results import read_scan, read_spectra, write_scan

SCAN = "snr_results/tiny-llama.json"
LAYER = 2 * 64 * 64 + 2 * 32 * 64 + 3 * 64 * 96  # weights of one layer's seven matrices
EMBEDDINGS = 2 * 80 * 64


def _listed(text):
    return {line[1:-1] for line in yaml.safe_load(text)["unfrozen_parameters"]}


@pytest.mark.parametrize(
    ("words", "first_line", "count"),
    [
        (["--count", "2"], "the 2 best of each module type by SNR (noise model iqr)", 14),
        (
            ["--max-params", "0.11M"],
            "top 25 % of each module type by SNR (noise model iqr), the most that trains at most 110,000 weights",
            21,
        ),
        (["--per-type", "mlp.*=50, self_attn.v_proj=0"], "top 50 % of mlp.*, 0 % of self_attn.v_proj by SNR", 18),
        (["--per-type", "mlp.*=50", "--top", "10"], "top 50 % of mlp.*, 10 % of the others by SNR", 22),
        (["--whole-layers", "--count", "1"], "the 1 best of the layers, whole, by SNR (noise model iqr)", 7),
        (
            ["--strategy", "random", "--seed", "7", "--top", "50"],
            "drawn at random (seed 7), in the numbers of: top 50 % of each module type by SNR",
            42,
        ),
        (["--score", "stable-rank"], "top 25 % of each module type by stable rank", 21),
    ],
)
def test_what_is_selected(scanned, run, words, first_line, count):
    """So many weights beside the two embeddings, said in the header and compared on stderr."""
    code, out, err = run("select", SCAN, *words)
    assert (code, out.startswith(f"# Spectrum: {first_line}")) == (0, True)
    assert len(_listed(out)) == 2 + count
    assert ("overlap with top " in err) == (words[0] != "--max-params")


def test_max_params_counts_all(scanned, run):
    """Three of twelve of everything and the embeddings fit to the weight, and with one less they do not."""
    room = 3 * LAYER + EMBEDDINGS
    for limit, trainable in ((room, room), (room - 1, 2 * LAYER + EMBEDDINGS)):
        _, out, _ = run("select", SCAN, "--max-params", limit, "--format", "json")
        assert json.loads(out)["trainable"] == trainable
    _, out, _ = run("select", SCAN, "--trainable", "100 %", "--format", "json")
    assert json.loads(out)["trainable"] == 12 * LAYER + EMBEDDINGS


def test_min_snr(scanned, run):
    """All at least as good as the fifth, and no others."""
    scores = {item.name: np.inf if item.snr is None else item.snr for item in read_scan(Path(SCAN)).parameters}
    least = sorted(scores.values())[-5]
    _, out, err = run("select", SCAN, "--min-snr", repr(least), "--embeddings", "freeze")
    assert _listed(out) == {name for name, score in scores.items() if score >= least}
    assert "# self_attn.o_proj: 0 of 12\n" in out
    assert "overlap with top 25 % of each module type by SNR (noise model iqr)" in err


def test_condition_numbers_from_the_spectra(scanned, run):
    """Lowest first, against the singular values of the file."""
    scan = read_scan(Path(SCAN))
    spectra = read_spectra(Path("snr_results/tiny-llama.spectra.safetensors"), fingerprint=scan.model.fingerprint)
    _, out, err = run("select", SCAN, "--score", "condition", "--count", "3", "--embeddings", "freeze")
    names = [item.name for item in scan.parameters if ".q_proj" in item.name]
    best = sorted(names, key=lambda name: spectra[name][0] / spectra[name][-1])[:3]
    assert {name for name in _listed(out) if ".q_proj" in name} == set(best)
    assert err.splitlines()[-1].startswith("rankings against those: Spearman ")
    Path("snr_results/tiny-llama.spectra.safetensors").unlink()
    assert "does not exist" in run("select", SCAN, "--score", "condition")[2]


def test_another_noise_model_is_compared_with_the_stored_one(scanned, run):
    """Both rankings, and both selections."""
    _, _, err = run("select", SCAN, "--noise-model", "mp", "--embeddings", "freeze", "--modules", "mlp.*")
    overlap, rankings = err.splitlines()[-2:]
    assert overlap.startswith("overlap with top 25 % of each module type by SNR (noise model iqr): ")
    assert rankings.startswith("rankings against those: Spearman ")
    assert "(mlp." in rankings
    assert "attn" not in rankings


def test_scan_names_the_file_after_the_choice(llama, run):
    """The plain selection stays; the table area holds the comparison, stdout as JSON does not."""
    run("scan", "--model", llama)
    plain = Path("snr_results/tiny-llama.top25.yaml").read_bytes()
    words = ["--noise-model", "mp"]
    _, out, _ = run("scan", "--model", llama, *words)
    *_, trainable, _, overlap, _, path = out.splitlines()
    assert trainable.startswith("trainable params: ")
    assert overlap.startswith("overlap with top 25 % of each module type by SNR (noise model iqr): ")
    assert path == "selection: snr_results/tiny-llama.top25-mp.yaml"
    _, out, err = run("scan", "--model", llama, *words, "--format", "json")
    assert json.loads(out)["description"] == "top 25 % of each module type by SNR (noise model mp)"
    assert overlap in err.splitlines()
    assert Path("snr_results/tiny-llama.top25.yaml").read_bytes() == plain


def test_the_same_options_everywhere(run):
    """`scan` and `select` word the options that both have alike."""
    helps = [run(command, "--help")[1] for command in ("scan", "select")]
    for option in ("--top", "--embeddings", "--norms", "--format", "--into", "--modules", "--exclude"):
        one, other = ([line.split() for line in text.splitlines() if line.strip().startswith(option)] for text in helps)
        assert len(one) == len(other) == 1, option


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--top", "5", "--count", "3"], 2, "Invalid value for --top: give --top or --count, not both."),
        (["--count", "3", "--min-snr", "3"], 2, "give --count or --min-snr, not both."),
        (["--max-params", "3M", "--trainable", "3"], 2, "give --max-params or --trainable, not both."),
        (["--per-type", "*=3", "--trainable", "3"], 2, "give --trainable or --per-type, not both."),
        (["--per-type", "*=3", "--whole-layers"], 2, "Whole layers have no SNR and no module type"),
        (["--per-type", "*=3", "--top", "9", "--whole-layers"], 2, "Whole layers have no SNR and no module type"),
        (["--min-snr", "3", "--whole-layers"], 2, "Invalid value: Whole layers have no SNR and no module type: choose"),
        (["--min-snr", "3", "--score", "ratio"], 2, "A lowest SNR cannot be combined with a ranking by ratio."),
        (["--seed", "3"], 2, "only --strategy random draws by a seed."),
        (["--count", "0"], 2, "Invalid value for '--count'"),
        (["--min-snr", "nan"], 2, "nan is not an SNR to choose by: give a finite number, 0 or more."),
        (["--min-snr", "-1"], 2, "-1 is not an SNR"),
        (["--min-snr", "1e9"], 1, "No parameter has an SNR of 1e+09 or more; the highest is "),
        (
            ["--max-params", "2.5Q"],
            2,
            "'2.5Q' is not a number of weights: give a whole number, or one such as 30k, 800M",
        ),
        (["--max-params", "0"], 2, "'0' is not a number of weights"),
        (["--max-params", "1.0005k"], 2, "'1.0005k' is not a number of weights"),
        (["--max-params", "-3"], 2, "'-3' is not a number of weights"),
        (["--max-params", "9" * 5000], 2, "is not a number of weights"),
        (
            ["--max-params", "31"],
            1,
            "Not even the smallest choice fits: one parameter of each module type and what is",
        ),
        (["--trainable", "0"], 2, "Invalid value for '--trainable': 0 is out of range: give more than 0, at most 100."),
        (["--trainable", "101%"], 2, "101 is out of range"),
        (["--trainable", "a third"], 2, "'a third' is not a percentage"),
        (["--per-type", "mlp.*"], 2, "'mlp.*' is not a rule: give PATTERN=PERCENT, as in 'mlp.*=50,self_attn.*=25'."),
        (["--per-type", "mlp.*=50,"], 2, "'' is not a rule"),
        (["--per-type", "mlp.*=x"], 2, "'x' is not a percentage: give a number such as 25 or 2.5%."),
        (["--per-type", "mlp.*=101%"], 2, "101 % of 'mlp.*': give 0 or more, at most 100."),
        (["--per-type", "mpl.*=50"], 1, "No module type matches 'mpl.*'. Near ones: mlp."),
        (["--score", "kappa"], 2, "Invalid value for '--score'"),
        (["--strategy", "worst"], 2, "Invalid value for '--strategy'"),
    ],
)
def test_wrong_input(run, words, code, message):
    """One line that names what is wrong; nothing on stdout."""
    write_scan(make_scan(layers([1, 2, 3], "mlp.up") + layers([3, 2, 1], "self_attn.q")), Path("m.json"))
    got, out, err = run("select", "m.json", *words)
    assert (got, out, err.count("\n")) == (code, "", 1), err
    assert message in err


@pytest.mark.parametrize(
    ("text", "number"),
    [("30k", 30_000), ("800M", 800 * 10**6), ("2.5B", 2_500_000_000), ("0.3b", 300_000_000), ("1.1T", 11 * 10**11),
     ("0.000000007B", 7), ("123456789", 123_456_789), ("4.35 M", 4_350_000)],
)  # fmt: skip
def test_numbers_are_exact(text, number):
    """2.5B is 2,500,000,000; 4.35M would be 4,349,999.999999999 in floats."""
    from spectrum.cli.choice import weights

    assert weights(text) == number


@pytest.mark.parametrize("words", [["--score", "ratio"], ["--score", "stable-rank"], ["--score", "condition"],
                                   ["--max-params", "5M"], ["--trainable", "30"]])  # fmt: skip
def test_imported_scans(run, words):
    """They hold SNR and nothing else: one line that says what to do."""
    numbers = {f"model.layers.{n}.mlp.up_proj": {"snr": n + 0.5, "type": "mlp.up_proj"} for n in range(4)}
    Path("old.json").write_text(json.dumps(numbers))
    _, path, _ = run("import", "old.json")
    assert run("select", path.strip(), "--whole-layers")[0] == 0
    code, out, err = run("select", path.strip(), *words)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert "can the model" in err or "Choose by --score snr, or scan the model." in err


@pytest.mark.parametrize("written", ["50%", "50 %", "50", "5e1"])
def test_top_with_its_sign(scanned, run, written):
    """A percentage is one with and without its sign."""
    assert run("select", SCAN, "--top", written)[1] == run("select", SCAN, "--top", "50.0")[1]
    assert "# Spectrum: top 50 % of each module type" in run("select", SCAN, "--top", written)[1]


def test_one_parameter_in_both(scanned, run):
    """The number and its noun agree."""
    _, _, err = run("select", SCAN, "--modules", "mlp.up_proj", "--count", "1")
    assert err.splitlines()[-1].startswith(
        "overlap with top 25 % of each module type by SNR (noise model iqr): 1 param"
    )
    assert ": 1 parameter in both, Jaccard 0.333" in err


def test_nothing_left_to_rank(scanned, run):
    """The options that leave nothing are named."""
    code, _, err = run("select", SCAN, "--exclude", "*")
    assert (code, err) == (
        1,
        (
            "spectrum: No scored weight matrix of 'tiny-llama' is left to rank. If --modules or --exclude was "
            "given, leave a module type in; 'spectrum show' lists them.\n"
        ),
    )
