"""all-MiniLM-L6-v2, trained weights: BERT, 6 layers, float32."""

from pathlib import Path

import numpy as np
import pytest
import yaml
from safetensors.numpy import load_file

from spectrum.results import read_scan

CONTRACT = 1e-5  # on real weights


@pytest.fixture(scope="module")
def results(minilm, forks, tmp_path_factory) -> Path:
    """Folder of the results of one scan of it."""
    out = tmp_path_factory.mktemp("minilm")
    assert forks.run("scan", "--model", minilm, "--top", "50", "--out", out, "--quiet").returncode == 0
    return out


def test_scores_of_all_block_matrices(minilm, results):
    """All 36 block matrices score as a float64 SVD says, within 1e-5; nothing else is scored."""
    weights = load_file(minilm / "model.safetensors")
    blocks = {name: w for name, w in weights.items() if name.startswith("encoder.layer.") and w.ndim == 2}
    scan = read_scan(results / "model.json")
    assert {item.tensors for item in scan.parameters} == {(name,) for name in blocks}
    assert len(blocks) == 36
    for item in scan.parameters:
        (name,) = item.tensors
        sigma = np.linalg.svd(blocks[name].astype(np.float64), compute_uv=False)
        scale = (np.percentile(sigma, 75) - np.percentile(sigma, 25)) / 1.349
        rows, cols = blocks[name].shape
        threshold = scale * (1 + np.sqrt(min(rows, cols) / max(rows, cols)))
        expected = sigma[sigma > threshold].sum() / sigma[sigma <= threshold].sum() / sigma[0]
        assert item.snr == pytest.approx(expected, rel=CONTRACT)
        assert item.score.threshold == pytest.approx(threshold, rel=CONTRACT)


def test_what_is_skipped(results):
    """The integer tensor, the tables and the small embedding are listed with their reasons."""
    skipped = read_scan(results / "model.json").skipped
    assert skipped["embeddings.position_ids"] == "buffer"
    assert skipped["bert.embeddings.position_embeddings.weight"] == "position table"
    assert skipped["bert.embeddings.token_type_embeddings.weight"] == "lookup table"
    assert skipped["pooler.dense.weight"] == "unexpected: BertLMHeadModel has no 'pooler.dense.weight'"
    assert skipped["bert.encoder.layer.0.output.LayerNorm.weight"] == "vector"


def test_names_of_the_base_model(minilm, tmp_path, run):
    """The class that sentence-transformers loads has no prefix, as the file; asked for, it names the parameters."""
    run("scan", "--model", minilm, "--model-class", "BertModel", "--quiet")
    names = {item.name for item in read_scan(Path("snr_results/model.json")).parameters}
    assert "encoder.layer.0.attention.self.query.weight" in names


def test_selection(results):
    """Three of six layers of each of six module types, biases beside their weights, the embedding it really has."""
    patterns = yaml.safe_load((results / "model.top50.yaml").read_text())["unfrozen_parameters"]
    weights = [line for line in patterns if line.startswith("^bert.encoder") and line.endswith(".weight$")]
    biases = [line for line in patterns if line.endswith(".bias$")]
    assert len(weights) == 6 * 3
    head_bias = "^cls.predictions.bias$"  # of the head that is tied to the embedding
    assert sorted(biases) == sorted([head_bias, *(line.replace(".weight$", ".bias$") for line in weights)])
    assert "^bert.embeddings.word_embeddings.weight$" in patterns
    assert not [line for line in patterns if "lm_head" in line or "LayerNorm" in line]
