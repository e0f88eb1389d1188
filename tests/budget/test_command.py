"""The command, the largest selection that fits, sizes, and the figures of the guide."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from spectrum.budget import (
    Limit,
    Setup,
    activation_bytes,
    all_names,
    dimensions,
    largest_that_fits,
    make_report,
    memory,
    model_weights,
    parse_size,
)
from spectrum.results import read_scan
from spectrum.selection import select_top

GUIDE = (Path(__file__).parents[2] / "docs" / "guides" / "memory.md").read_text()
SCAN = "Meta-Llama-3-8B.json"
ZERO3 = ("--gpus", "8", "--sharding", "zero3", "--precision", "fp32-master")


@pytest.fixture
def scanned(llama_3_8b, tmp_path):
    for path in llama_3_8b.iterdir():
        shutil.copy(path, tmp_path)
    return read_scan(Path(SCAN))


def test_table_of_the_guide(scanned, run):
    """The command and its output as printed."""
    words = re.search(r"\$ spectrum (budget .*)\n", GUIDE)[1].split()
    code, out, err = run(*words)
    assert (code, err) == (0, "")
    assert f"$ spectrum {' '.join(words)}\n{out}```" in GUIDE


def _gb(scan, setup, top, *, embeddings_in_8_bits=False):
    names = all_names(scan) if top is None else select_top(scan, top).names
    weights = model_weights(scan, names)
    if embeddings_in_8_bits:
        weights = [replace(weight, kind="head") for weight in weights]
    return f"{memory(weights, setup).total / 1e9:.2f}"


def test_beside_the_paper(scanned):
    """The model state that the guide sets beside the paper's tables, and what is left over."""
    rows = {
        "| `--gpus 8 --sharding zero3 --precision fp32-master` |": (
            Setup("paged-adamw-8bit", "fp32-master", "zero3", 8), False
        ),
        "| `--precision bf16` |": (Setup("paged-adamw-8bit"), False),
        "| the same, the embedding's state in 8 bits, too |": (Setup("paged-adamw-8bit"), True),
    }  # fmt: skip
    for start, (setup, eight) in rows.items():
        figures = [_gb(scanned, setup, top, embeddings_in_8_bits=eight) for top in (None, 50, 25)]
        assert f"\n{start} {' | '.join(figures)} |\n" in GUIDE
    measured = (24.92, 20.50, 19.18)
    for optimizer, form in (("paged-adamw-8bit", "| left over | {} | {} | {} |"), ("adamw", "be {}, {} and {}")):
        setup = Setup(optimizer, "fp32-master", "zero3", 8)
        left = [
            f"{paper - float(_gb(scanned, setup, top)):.2f}"
            for paper, top in zip(measured, (None, 50, 25), strict=True)
        ]
        assert form.format(*left) in GUIDE.replace("\n", " ")
    sizes = dimensions(json.loads(Path("config.json").read_text()), "config.json")
    estimate = activation_bytes(sizes, sequence_length=8192, micro_batch=1, checkpointing=True)
    assert f"is estimated at {estimate / 1e9:.2f} GB" in GUIDE.replace("\n", " ")


def test_one_selection(scanned, run):
    """--top: every part to the byte, written out for ZeRO-3 on 8 GPUs."""
    code, out, _ = run("budget", SCAN, *ZERO3, "--top", "25")
    trained = 2 * 128256 * 4096 + 8 * (2 * 4096 * 4096 + 2 * 1024 * 4096 + 3 * 4096 * 14336)
    assert code == 0
    assert out.splitlines()[:2] == [
        "Assumed: adamw, fp32-master, 8 GPUs, sharding zero3, frozen weights in bf16, activations not counted.",
        f"top 25 % of Meta-Llama-3-8B: {trained:,} weights trained, {8_030_261_248 - trained:,} frozen",
    ]
    expected = {
        "weights": 2 * 8_030_261_248 // 8 + 2 * 65 * 4096, "master": trained // 2, "gradients": trained // 4,
        "state": trained + 4,
    }  # fmt: skip
    expected["total"] = sum(expected.values())
    found = {words[0]: words[1] for words in map(str.split, out.splitlines()[3:-1])}
    assert found == {part: f"{size:,}" for part, size in expected.items()}


def test_json(scanned, run):
    """All rows in bytes; with --memory the largest that fits into what the reserve leaves."""
    words = "--json --memory 64GiB --reserve 50% --lora-rank 8 --optimizer sgd"
    _, out, err = run("budget", SCAN, *ZERO3, *words.split())
    document = json.loads(out)
    assert err == ""
    assert list(document["selections"])[-3:] == ["top 100 %", "full", "LoRA, rank 8"]
    assert document["setup"]["sharding"] == "zero3"
    lora = document["selections"]["LoRA, rank 8"]
    per_layer = 8 * (2 * (4096 + 4096) + 2 * (4096 + 1024) + 3 * (4096 + 14336))
    assert (lora["trainable"], lora["frozen"]) == (32 * per_layer, 8_030_261_248)
    for row in document["selections"].values():
        assert row["total"] == sum(row[part] for part in ("weights", "master", "gradients", "state"))
    fits = document["fits"]
    assert (fits["memory"], fits["reserve_percent"], fits["usable"]) == (64 * 2**30, 50, 32 * 2**30)
    assert fits["usable"] >= fits["total"]


def test_the_report_is_what_is_printed(scanned, run):
    """Made in Python from plain values, without a file or an option: the same document, first and last lines."""
    report = make_report(scanned, Setup("sgd", gpus=8, sharding="zero3"), top=25, limit=Limit(48 * 10**9, 15))
    words = ["--gpus", "8", "--sharding", "zero3", "--optimizer", "sgd", "--memory", "48GB"]
    _, out, _ = run("budget", SCAN, *words)
    assert [out.splitlines()[0], *out.splitlines()[-2:]] == [report.assumed(scored=True), *report.remarks()]
    printed = json.loads(run("budget", SCAN, *words, "--json")[1])
    rows = {label: printed["selections"][label] for label in ("top 25 %", "full", "LoRA, rank 16")}
    assert report.document == printed | {"selections": rows}


@pytest.mark.parametrize(
    ("reserve", "usable"), [([], "6.80"), (["--reserve", "0"], "8.00"), (["--reserve", "25%"], "6.00")]
)
def test_the_reserve_is_kept_free(scanned, run, reserve, usable):
    """The largest selection does not fill the card; the line names the reserve, its option and what remains."""
    _, out, _ = run("budget", SCAN, *ZERO3, "--memory", "8GB", *reserve)
    line = out.splitlines()[-2]
    percent = reserve[1].strip("%") if reserve else "15"
    start = f"8.00 GB, of which {percent} % stay free (--reserve): the largest selection within {usable} GB is top "
    assert line.startswith(start)
    assert float(line.split()[-4]) <= float(usable)


def test_before_a_scan_as_after_it(llama, run):
    """--model reads headers alone and counts the same bytes; the first line says that scores are not known."""
    code, out, err = run("budget", "--model", llama)
    assert (code, err) == (0, "")
    assert "equal scores in all layers (no scan)" in out.splitlines()[0]
    assert not Path("snr_results").exists()
    assert run("scan", "--model", llama, "--quiet")[0] == 0
    for words in ([], ["--top", "40"], ["--modules", "mlp.*"], ["--embeddings", "freeze", "--norms", "train"]):
        _, before, _ = run("budget", "--model", llama, *words)
        _, after, _ = run("budget", "snr_results/tiny-llama.json", *words)
        assert before.splitlines()[1:] == after.splitlines()[1:], words


def test_before_a_scan_from_the_hub(hub, llama, run):
    """Shapes of a model on the Hub: its headers are fetched, its weights are not."""
    hub.push("o/tiny", llama)
    code, out, _ = run("budget", "--model", "o/tiny", "--top", "25", "--json")
    assert code == 0
    here = json.loads(run("budget", "--model", llama, "--top", "25", "--json")[1])
    assert json.loads(out)["selections"] == here["selections"]


def test_activations_from_the_config_of_the_model(llama, run):
    """--sequence-length adds the same estimate to every row."""
    sizes = dimensions(json.loads((llama / "config.json").read_text()), "c")
    words = ("budget", "--model", llama, "--json", "--sequence-length", "512")
    for more, options in (((), {}), (("--micro-batch", "4"), {"micro_batch": 4})):
        expected = activation_bytes(sizes, sequence_length=512, **{"micro_batch": 1, "checkpointing": True} | options)
        rows = json.loads(run(*words, *more)[1])["selections"].values()
        assert {row["activations"] for row in rows} == {expected}
    expected = activation_bytes(sizes, sequence_length=512, micro_batch=1, checkpointing=False)
    rows = json.loads(run(*words, "--no-checkpointing")[1])["selections"].values()
    assert {row["activations"] for row in rows} == {expected}


def test_options_of_the_selection(scanned, run):
    """Modules, embeddings and norms change what is trained, as they do for select."""

    def trainable(*words):
        _, out, _ = run("budget", SCAN, "--top", "25", "--json", *words)
        return json.loads(out)["selections"]["top 25 %"]["trainable"]

    outer = 2 * 128256 * 4096
    mlp = 8 * 3 * 4096 * 14336
    assert trainable("--modules", "mlp.*") == outer + mlp
    assert trainable("--modules", "mlp.*", "--embeddings", "freeze") == mlp
    assert trainable("--modules", "mlp.*", "--norms", "train") == outer + mlp + 65 * 4096
    assert trainable("--exclude", "self_attn.*") == outer + mlp


@pytest.mark.parametrize("limit", ["6GB", "8GB", "16.0600GB", "999GB"])
def test_largest_that_fits(scanned, limit):
    """It fits, and a tenth of a percent more does not, found by trying all of them."""
    setup = Setup("adamw", "fp32-master", "zero3", 8)

    def needed(top):
        return memory(model_weights(scanned, select_top(scanned, top).names), setup)

    top, found = largest_that_fits(needed, parse_size(limit))
    assert found == needed(top)
    assert found.total <= parse_size(limit)
    assert top == 100 or needed(round(top + 0.1, 1)).total > parse_size(limit)


def test_a_limit_met_to_the_byte(scanned):
    """What takes exactly the limit fits; a byte less does not hold it."""

    def needed(top):
        return memory(model_weights(scanned, select_top(scanned, top).names), Setup())

    limit = needed(50).total
    assert largest_that_fits(needed, limit)[1].total == limit
    assert largest_that_fits(needed, limit - 1)[1].total < limit


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("48GB", 48_000_000_000), ("48GiB", 51_539_607_552), ("80G", 80_000_000_000), ("1.5 gib", 1_610_612_736),
        ("0.1TB", 100_000_000_000), ("640k", 640_000), ("512MiB", 536_870_912), ("24gi", 25_769_803_776),
    ],
)  # fmt: skip
def test_sizes(text, size):
    """Powers of ten without an i, of two with it; exact."""
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "48", "GB", "-1GB", "0GB", "48GBit", "48 G B", "1e3GB", "48,5GB", "nanGB", "٤GB"])
def test_no_sizes(text):
    """Everything else is refused, what stands there quoted."""
    with pytest.raises(ValueError, match="is not a size of memory"):
        parse_size(text)


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ([SCAN, "--gpus", "0"], 2, "Invalid value for '--gpus'"),
        ([SCAN, "--optimizer", "adam"], 2, "'adam' is not one of 'adamw', 'adamw-8bit'"),
        ([SCAN, "--precision", "fp8"], 2, "'fp8' is not one of"),
        ([SCAN, "--memory", "much"], 2, "'much' is not a size of memory: give a number and a unit, such as 48GB"),
        ([SCAN, "--memory", "1GB"], 1, "No selection fits: the smallest, one parameter of each module type, needs"),
        ([SCAN, "--memory", "80GB", "--top", "5"], 2, "give --top or --memory, not both"),
        ([SCAN, "--top", "101"], 2, "101 is out of range"),
        ([SCAN, "--memory", "1GB", "--reserve", "100"], 2, "100 is out of range: give 0 or more, and less than 100."),
        ([SCAN, "--reserve", "5"], 2, "Invalid value for --reserve: it needs --memory."),
        ([SCAN, "--micro-batch", "4"], 2, "Invalid value for --micro-batch: it needs --sequence-length."),
        ([SCAN, "--no-checkpointing"], 2, "Invalid value for --checkpointing: it needs --sequence-length."),
        ([], 2, "give either a SCAN or --model MODEL."),
        ([SCAN, "--model", "x"], 2, "give either a SCAN or --model MODEL."),
        ([SCAN, "--token", "x"], 2, "--revision and --token need --model."),
        (["--model", "./nowhere"], 1, "There is no folder './nowhere'"),
        ([SCAN, "--lora-rank", "0"], 2, "Invalid value for '--lora-rank'"),
        ([SCAN, "--sequence-length", "10"], 2, "it needs --model, whose config.json"),
        ([SCAN, "--optimizer", "adafactor", "--sharding", "fsdp"], 1, "does not work with the sharded tensors"),
        ([SCAN, "--optimizer", "muon", "--sharding", "zero2"], 1, "'muon' updates matrices"),
        ([SCAN, "--modules", "x*"], 1, "No module type matches 'x*'"),
        (["nowhere.json"], 1, "'nowhere.json' cannot be read"),
    ],
)
def test_wrong_input(scanned, run, words, code, message):
    """One line, the right exit code, nothing on stdout."""
    got, out, err = run("budget", *words)
    assert (got, out, err.count("\n")) == (code, "", 1)
    assert message in err


def test_imported_scan(published, run):
    """It holds no shapes: one clear line."""
    _, path, _ = run("import", published / "snr_results_meta-llama-Meta-Llama-3-8B.json")
    code, out, err = run("budget", path.strip())
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert "does not hold the shape of 'model.layers.0." in err
    assert err.endswith("Give the model itself: spectrum budget --model owner/name.\n")


def test_several_gpus_that_share_nothing(scanned, run):
    """Each holds everything, and a note says so."""
    code, out, err = run("budget", SCAN, "--gpus", "8")
    assert (code, out.splitlines()[1:]) == (0, run("budget", SCAN)[1].splitlines()[1:])
    assert err == "note: without --sharding each of the 8 GPUs holds everything, as a single one would.\n"


def test_a_small_model_in_detail(llama, run):
    """Its parts are in MB, as in the table; in GB they would all be 0.00."""
    run("scan", "--model", llama, "--quiet")
    _, out, _ = run("budget", "snr_results/tiny-llama.json", "--top", "25%")
    heading, weights = out.splitlines()[2:4]
    assert heading.split() == ["per", "GPU", "bytes", "MB", "what"]
    number = weights.split()[1].replace(",", "")
    assert weights.split()[2] == f"{int(number) / 1e6:.2f}" != "0.00"
