"""The store: no spectrum is computed twice while it still holds. Every test counts decompositions."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import gaussian, llama_config, tiny_llama, write_checkpoint

import spectrum
from spectrum.errors import SpectrumError
from spectrum.results import read_scan, read_spectra
from spectrum.spectra import solver

LAYERS = 2
MATRICES = 7 * LAYERS
RELEASE = Path(__file__).parents[1] / "results" / "release-0.1.0"


@pytest.fixture
def model(tmp_path):
    """A tiny Llama of two layers."""
    return write_checkpoint(tmp_path / "tiny", {"_": tiny_llama(layers=LAYERS)}, config=llama_config(LAYERS))


@pytest.fixture
def experts(tmp_path):
    """Two layers of eight experts."""
    tensors = {
        f"model.layers.{layer}.mlp.experts.{expert}.w1.weight": gaussian(40, 32, seed=10 * layer + expert)
        for layer in range(2)
        for expert in range(8)
    }
    return write_checkpoint(tmp_path / "moe", {"_": tensors})


def scanned(folder, **options):
    """A scan, and how many matrices this run decomposed."""
    states = []
    scan = spectrum.scan(folder, progress=states.append, **options)
    return scan, states[-1].done - states[-1].earlier if states else 0


def stored(name="tiny"):
    return read_scan(Path(f"snr_results/{name}.json"))


def spectra(name="tiny"):
    fingerprint = stored(name).model.fingerprint
    return read_spectra(Path(f"snr_results/{name}.spectra.safetensors"), fingerprint=fingerprint)


def content():
    return {path.name: path.read_bytes() for path in Path("snr_results").iterdir() if path.suffix != ".lock"}


def names(scan):
    return [item.name for item in scan.parameters]


def test_the_second_scan_decomposes_nothing(model):
    """The same scan from the same bytes."""
    first, count = scanned(model)
    before = content()
    again, more = scanned(model)
    assert (count, more) == (MATRICES, 0)
    assert again == first
    assert content() == before


def test_a_then_b_holds_both(model):
    """Each request decomposes its own; the files hold the union and are those of one scan of everything."""
    one, first = scanned(model, modules=["mlp.*"])
    other, second = scanned(model, modules=["self_attn.*"])
    assert (first, second) == (3 * LAYERS, 4 * LAYERS)
    assert {item.module_type.split(".")[3] for item in one.parameters} == {"mlp"}
    assert {item.module_type.split(".")[3] for item in other.parameters} == {"self_attn"}
    assert len(stored().parameters) == len(spectra()) == MATRICES
    whole, count = scanned(model)
    assert count == 0
    fresh, _ = scanned(model, out="fresh")
    assert whole.parameters == fresh.parameters
    assert (whole.unscored, whole.skipped) == (fresh.unscored, fresh.skipped)


def test_a_narrower_request_changes_no_file(model):
    """Of another scope, noise model and version of transformers: the same bytes in every file."""
    scanned(model, all_modules=True)
    path = Path("snr_results/tiny.json")
    path.write_text(
        path.read_text().replace('"tool": "0.1.0"', '"tool": "9.9"').replace('"transformers": "', '"transformers": "9.')
    )
    before = content()
    for options in ({"modules": ["mlp.up_proj"]}, {"exclude": ["mlp.*"]}, {"noise_model": "mp"}, {}, {"device": "cpu"}):
        assert scanned(model, **options)[1] == 0
        assert content() == before


def test_a_narrower_scan_is_the_one_made_alone(model):
    """What else is stored does not show in the result."""
    scanned(model, all_modules=True)
    for options in ({"modules": ["mlp.up_proj"], "noise_model": "mp"}, {"exclude": ["mlp.*"]}):
        one, count = scanned(model, **options)
        alone, _ = scanned(model, out=f"alone-{len(options)}", **options)
        assert count == 0
        assert one.parameters == alone.parameters
        assert (one.unscored, one.skipped, one.model) == (alone.unscored, alone.skipped, alone.model)


def test_all_modules_adds_the_rest(model):
    """Embedding and head only."""
    scanned(model)
    assert scanned(model, all_modules=True)[1] == 2
    assert len(stored().parameters) == MATRICES + 2


def test_experts(experts):
    """All, then a sample: nothing to do. A sample, then more, then all: only the others each time."""
    whole, count = scanned(experts)
    before = content()
    sample, more = scanned(experts, experts=3)
    assert (count, more) == (16, 0)
    assert content() == before
    assert {len(item.matrices) for item in sample.parameters} == {3}
    alone, count = scanned(experts, experts=3, out="other")
    assert count == 6
    assert alone.parameters == sample.parameters
    _, more = scanned(experts, experts=5, out="other")
    union = read_scan(Path("other/moe.json"))
    assert 4 <= more <= 10
    assert sum(len(item.matrices) for item in union.parameters) == 6 + more
    everything, rest = scanned(experts, out="other")
    assert rest == 16 - 6 - more
    assert everything.parameters == whole.parameters
    medians = [np.median([each.snr for each in item.matrices]) for item in union.parameters]
    assert [item.snr for item in union.parameters] == pytest.approx(medians)


def test_absent_and_unknown_fields_make_nothing_stale(model):
    """A file of an earlier or later release, whose settings are fewer or more."""
    scanned(model)
    path = Path("snr_results/tiny.json")
    document = json.loads(path.read_text())
    document["scan"] = {"algorithm": document["scan"]["algorithm"], "of a later release": True}
    path.write_text(json.dumps(document))
    assert scanned(model)[1] == 0


def test_other_weights_under_the_same_name(model, tmp_path):
    """They get files of their own, found again by both; nothing is overwritten."""
    first, _ = scanned(model)
    before = content()
    other = write_checkpoint(
        tmp_path / "x" / "tiny", {"_": tiny_llama(layers=LAYERS, seed=9)}, config=llama_config(LAYERS)
    )
    second, count = scanned(other)
    assert count == MATRICES
    assert second != first
    assert content().items() > before.items()
    (own,) = [name for name in content() if name.endswith(".json") and name != "tiny.json"]
    assert len(own.split(".")[1]) == 8
    assert scanned(other) == (second, 0)
    assert scanned(model) == (first, 0)
    Path("snr_results/tiny.json").unlink()
    Path("snr_results/tiny.spectra.safetensors").unlink()
    assert scanned(other) == (second, 0)


def test_precisions_live_side_by_side(model):
    """Another precision is another spectrum, in files of its own."""
    scanned(model)
    before = content()
    assert scanned(model, precision="float64")[1] == MATRICES
    assert content().items() > before.items()
    assert scanned(model, precision="float64")[1] == scanned(model)[1] == 0


def test_rescan_redoes_what_is_asked_for(model):
    """And keeps the rest."""
    scanned(model)
    assert scanned(model, modules=["mlp.*"], rescan=True)[1] == 3 * LAYERS
    assert len(stored().parameters) == len(spectra()) == MATRICES


def test_a_damaged_file_costs_only_what_it_held(model):
    """Scores come back from the spectra; lost spectra are decomposed again once they are needed."""
    whole, _ = scanned(model)
    before = content()
    Path("snr_results/tiny.json").write_text("{")
    assert scanned(model) == (whole, 0)
    assert content() == before
    Path("snr_results/tiny.spectra.safetensors").write_bytes(b"")
    assert scanned(model) == (whole, 0)
    assert scanned(model, modules=["mlp.*"], noise_model="mp")[1] == 3 * LAYERS
    assert len(stored().parameters) == MATRICES


def _interrupt(states):
    """A progress callback that stops the scan at the fifth matrix."""

    def progress(state):
        states.append(state)
        if state.done == 5:
            raise KeyboardInterrupt

    return progress


def test_an_interrupted_scan_continues_with_any_scope(model, monkeypatch):
    """What it had finished is kept by a later scan that asks for something else."""
    monkeypatch.setattr("spectrum.scanning.tasks.BATCH_BYTES", 1)
    states = []
    with pytest.raises(KeyboardInterrupt):
        spectrum.scan(model, modules=["mlp.*"], progress=_interrupt(states))
    assert scanned(model, modules=["self_attn.*"])[1] == 4 * LAYERS
    assert len(spectra()) == 4 * LAYERS + 5
    assert scanned(model)[1] == 3 * LAYERS - 5


def test_progress_counts_an_earlier_run_apart(model, monkeypatch):
    """The first report has what was finished before; the time left follows from this run alone."""
    monkeypatch.setattr("spectrum.scanning.tasks.BATCH_BYTES", 1)
    with pytest.raises(KeyboardInterrupt):
        spectrum.scan(model, progress=_interrupt([]))
    states = []
    spectrum.scan(model, progress=states.append)
    assert (states[0].done, states[0].earlier, states[0].total) == (5, 5, MATRICES)
    assert states[0].seconds_left(60) is None
    middle, last = states[4], states[-1]
    own = middle.done_cost - states[0].done_cost
    assert middle.seconds_left(60) == pytest.approx(60 * (middle.total_cost - middle.done_cost) / own)
    assert (last.done, last.done_cost, last.seconds_left(60)) == (
        MATRICES,
        pytest.approx(last.total_cost),
        pytest.approx(0),
    )


def test_files_written_since_are_decomposed_again(model):
    """A touched shard: what is asked for is redone, the older scan is kept apart and not mixed in."""
    scanned(model)
    before = content()
    later = Path("snr_results/tiny.json").stat().st_mtime_ns + 1_000_000
    os.utime(model / "model.safetensors", ns=(later, later))
    assert scanned(model, modules=["mlp.*"])[1] == 3 * LAYERS
    assert len(stored().parameters) == 3 * LAYERS
    assert content()["tiny.old.json"] == before["tiny.json"]
    assert content()["tiny.old.spectra.safetensors"] == before["tiny.spectra.safetensors"]


def test_every_older_scan_is_kept(model):
    """A shard touched twice: the second older scan does not replace the first."""
    scanned(model)
    whole = content()["tiny.json"]
    for pattern in ("mlp.*", "self_attn.*"):
        later = Path("snr_results/tiny.json").stat().st_mtime_ns + 1_000_000
        os.utime(model / "model.safetensors", ns=(later, later))
        scanned(model, modules=[pattern])
    assert content()["tiny.old.json"] == whole
    assert len(stored("tiny.old1").parameters) == 3 * LAYERS


def test_files_written_since_and_everything_redone(model):
    """Nothing is left to keep apart."""
    scanned(model, modules=["mlp.*"])
    later = Path("snr_results/tiny.json").stat().st_mtime_ns + 1_000_000
    os.utime(model / "model.safetensors", ns=(later, later))
    assert scanned(model)[1] == MATRICES
    assert set(content()) == {"tiny.json", "tiny.spectra.safetensors"}


def test_files_written_during_the_scan(model):
    """The shard changes after the matrices were read: no scan is stored for weights that are no more."""
    touch = lambda _: os.utime(model / "model.safetensors", (2_000_000_000, 2_000_000_000))  # noqa: E731
    with pytest.raises(SpectrumError, match="were written while they were scanned"):
        spectrum.scan(model, progress=touch)
    assert set(content()) == {"tiny.partial.jsonl"}


def test_files_of_release_0_1_0(tmp_path):
    """They are read and selected from; a scan decomposes again, because the numerics had a defect."""
    old = read_scan(RELEASE / "old.json")
    assert (old.settings.tool, old.settings.algorithm, len(old.parameters)) == ("0.1.0", 1, 5)
    values = read_spectra(RELEASE / "old.spectra.safetensors", fingerprint=old.model.fingerprint)
    assert len(values) == 6
    assert spectrum.select_top(old, 25).names
    bf16 = torch.bfloat16
    tensors = {f"model.layers.{n}.mlp.up_proj.weight": gaussian(40, 32, seed=n, dtype=bf16) for n in range(2)}
    scale = torch.linspace(0.1, 9, 32, dtype=bf16)[:, None]
    tensors |= {
        f"model.layers.{n}.self_attn.q_proj.weight": gaussian(32, 32, seed=5 + n, dtype=bf16) * scale for n in range(2)
    }
    tensors |= {f"model.layers.0.mlp.experts.{e}.w1.weight": gaussian(32, 40, seed=10 + e) for e in range(2)}
    tensors |= {"model.norm.weight": torch.ones(32), "lm_head.weight": gaussian(50, 32, seed=30)}
    shutil.copytree(RELEASE, "snr_results")
    folder = write_checkpoint(tmp_path / "old", {"_": tensors})
    for file in folder.iterdir():
        os.utime(file, (1, 1))
    assert scanned(folder)[1] == 6
    new = stored("old")
    assert new.settings.algorithm == solver.ALGORITHM
    assert new.model.fingerprint == old.model.fingerprint
    for before, after in zip(old.parameters, new.parameters, strict=True):
        assert (before.name, before.tensors) == (after.name, after.tensors)
        assert after.snr == pytest.approx(before.snr, rel=2e-4)
    assert scanned(folder)[1] == 0
