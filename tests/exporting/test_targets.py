"""`export`: every format by one call, and the trainers that cannot take a list."""

import json
import shlex
from pathlib import Path
from typing import get_args

import pytest
from exporting.models import example, scan_of

from spectrum.errors import SelectionError
from spectrum.exporting import ADAPTERS, FormatName, LoraOptions, default_embeddings, export
from spectrum.results import write_scan
from spectrum.selection import select_top


@pytest.mark.parametrize(
    ("target", "instead"),
    [
        ("llama-factory", "lora_target, separated by commas"),
        ("torchtune", "Take --format axolotl or swift"),
        ("axolotl-plugin", "--format axolotl replaces Axolotl's SpectrumPlugin"),
    ],
)
def test_refused_at_once(run, llama, target, instead):
    """One line with the way out, before anything is scanned."""
    code, out, err = run("scan", "--model", llama, "--format", target)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert instead in err
    assert "Scanning" not in err


@pytest.mark.parametrize("format_name", get_args(FormatName))
def test_one_call_for_every_format(format_name):
    """`export` gives the text of each format, and the goldens are what it gives."""
    scan = scan_of("llama-tied") if format_name == "mlx-lm" else example()
    lora = LoraOptions(rank=8, by_snr=format_name != "mlx-lm") if format_name in ADAPTERS else None
    selection = select_top(scan, 50, embeddings=default_embeddings(format_name))
    made = export(selection, scan, format_name, lora=lora)
    assert made.text
    assert any("Embedding and head are frozen" in note for note in made.notes) == (format_name in ADAPTERS)


@pytest.mark.parametrize(
    ("format_name", "lora", "message"),
    [
        ("yaml", None, "'yaml' is not a format. Choose one of axolotl, axolotl-lora"),
        ("axolotl-plugin", None, "was removed: the list of --format axolotl replaces"),
        ("names", LoraOptions(rank=4), "--format names makes no adapters"),
    ],
)
def test_what_cannot_be_exported(format_name, lora, message):
    """Each says what to take instead."""
    scan = example()
    with pytest.raises(SelectionError, match=message):
        export(select_top(scan, 50), scan, format_name, lora=lora)


def test_adapters_leave_embedding_and_head_frozen(run):
    """Unless they are asked for; the output says which of the two it is."""
    write_scan(example(), Path("scan.json"))
    _, out, err = run("select", "scan.json", "--format", "peft")
    assert "modules_to_save" not in json.loads(out)
    assert "note: Embedding and head are frozen, as is usual with adapters." in err
    _, out, err = run("select", "scan.json", "--format", "peft", "--embeddings", "train")
    assert json.loads(out)["modules_to_save"] == ["lm_head", "model.embed_tokens"]
    assert "note: Embedding and head, 9,216 weights, are trained in full beside the adapters." in err


def test_the_header_holds_the_options_as_data(run):
    """What `# options:` says, given to `select` again, makes the same file."""
    write_scan(example(), Path("scan.json"))
    words = ["--per-type", "mlp.*=50,self_attn.*=25", "--embeddings", "freeze", "--norms", "train",
             "--exclude", "self_attn.*"]  # fmt: skip
    for given in (
        words[:-2],
        ["--count", "1", "--whole-layers", *words[2:]],
        ["--strategy", "random", "--seed", "3"],
        ["--top", "2.5"],
    ):
        _, first, _ = run("select", "scan.json", *given)
        (line,) = [line for line in first.splitlines() if line.startswith("# options: ")]
        assert run("select", "scan.json", *shlex.split(line.removeprefix("# options: ")))[1] == first
