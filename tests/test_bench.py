"""The benchmark: what it measures is what it says. No time is asserted."""

import json

import pytest
import torch

from spectrum.bench import MODELS, ModelShapes, Shape, estimate_seconds, measure, multiplications

_TINY = ModelShapes(4, torch.bfloat16, (Shape(48, 48, 2), Shape(96, 48, 1), Shape(48, 96, 1)))


def test_measurements():
    """A row for each shape, of all its matrices, with sound numbers."""
    measured = list(measure(_TINY, layers=3, pairs=1))
    assert [(entry.shape, entry.matrices) for entry in measured] == [((48, 48), 6), ((96, 48), 3), ((48, 96), 3)]
    for entry in measured:
        assert entry.ratio == pytest.approx(entry.plain_seconds / entry.seconds)
        assert entry.deviation < 1e-4
        assert 50e6 < entry.peak_bytes < 2e9
        assert entry.rate_share > 0
    plain, ours = estimate_seconds(_TINY, measured, layers=3)
    assert ours == pytest.approx(sum(entry.seconds for entry in measured) * 4 / 3)
    assert plain == pytest.approx(sum(entry.plain_seconds for entry in measured) * 4 / 3)


def test_multiplications():
    """Written out for 3 x 4: 18 for half of 3 x 4 x 3, 18 for the tridiagonal form; the same for a transpose."""
    assert multiplications(3, 4) == multiplications(4, 3) == pytest.approx(18 + 18)


@pytest.mark.parametrize(
    ("name", "weights"),
    [("llama-3-8b", 6_979_321_856), ("llama-3-70b", 68_451_041_280), ("mixtral-8x22b", 140_223_971_328)],
)
def test_shapes_are_those_of_the_models(name, weights):
    """Weights in the matrices of all layers, as the models' parameter counts have them without embeddings and norms."""
    model = MODELS[name]
    counted = sum(shape.rows * shape.cols * shape.per_layer for shape in model.shapes)
    assert counted * model.layers == weights


def test_command(run, monkeypatch):
    """A table, or JSON with every field."""
    monkeypatch.setitem(MODELS, "minilm", ModelShapes(4, torch.float32, (Shape(96, 48, 1),)))
    code, out, err = run("bench", "--pairs", "1", "--no-accuracy")
    assert (code, out.splitlines()[0].split()[:3]) == (0, ["shape", "matrices", "plain"])
    assert out.splitlines()[-1].startswith("whole model, 4 layers, without reading: ")
    assert "Measuring 1 shapes of minilm on cpu" in err
    _, out, _ = run("bench", "--pairs", "1", "--json")
    document = json.loads(out)
    assert [entry["shape"] for entry in document["shapes"]] == [[96, 48]]
    assert document["whole_model"]["seconds"] > 0


@pytest.mark.parametrize("words", [["--like", "gpt-5"], ["--layers", "0"], ["--pairs", "x"], ["--device", "tpu"]])
def test_wrong_input(run, words):
    """Usage errors in one line."""
    code, out, err = run("bench", *words)
    assert (code, out, err.count("\n")) == (2, "", 1)
