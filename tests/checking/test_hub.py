"""A scan checked against a model of the Hub: of the weights, no byte beyond the headers."""

import json

import pytest
from conftest import gaussian, llama_config, tiny_llama, write_checkpoint

from spectrum.checkpoint.streamed import HEAD_BYTES

REPO = "acme/tiny"
SCAN = "snr_results/acme--tiny.json"


def pushed(hub, folder, *, tensors=None, tied=False, **words):
    """A model on the Hub, larger than what is read of a file at once."""
    tensors = tensors or tiny_llama(layers=4)
    config = llama_config(4) | {"vocab_size": 1000, "tie_word_embeddings": tied}
    embedding = gaussian(1000, 64, seed=1).to(tensors["model.norm.weight"].dtype)
    tensors = tensors | {"model.embed_tokens.weight": embedding, "lm_head.weight": embedding.clone()}
    return hub.push(REPO, write_checkpoint(folder, {"_": tensors}, config=config), **words)


def codes(run, *words):
    _, out, _ = run("check", SCAN, "--model", *words, "--format", "json")
    return [item["code"] for item in json.loads(out)["findings"]]


def beyond_the_headers(hub):
    """What was asked of weight files but for their first bytes."""
    return [request.range for request in hub.requests if request.server == "cdn" and "=0-" not in request.range]


@pytest.mark.parametrize("tied", [False, True])
def test_only_headers_are_fetched(hub, run, tmp_path, tied):
    """A sound scan, also where embedding and head are one and stored twice: its answer is taken from the scan."""
    commit = pushed(hub, tmp_path / "source", tied=tied)
    assert run("scan", "--model", REPO, "--quiet")[0] == 0
    for words in ([REPO], [f"{REPO}@{commit}"], [REPO, "--revision", "main"]):
        hub.forget()
        code, out, err = run("check", SCAN, "--model", *words, "--strict")
        looked = "looked at: scan, model, names, selection"
        assert (code, out, err) == (0, f"0 errors, 0 warnings, 0 notes; {looked}\n", "")
        assert hub.requests
        assert beyond_the_headers(hub) == []
        assert sum(request.sent for request in hub.requests) < HEAD_BYTES + 20_000


def test_names_are_compared_without_the_weights(hub, run, tmp_path):
    """Neither answer on the tied weights gives the names of an altered scan."""
    pushed(hub, tmp_path / "source", tied=True)
    run("scan", "--model", REPO, "--quiet")
    hub.forget()
    text = (tmp_path / SCAN).read_text()
    (tmp_path / SCAN).write_text(text.replace("layers.3.mlp.up_proj.weight", "layers.3.mlp.up.weight"))
    assert "SPC306" in codes(run, REPO)
    assert beyond_the_headers(hub) == []


def test_a_moved_revision(hub, run, tmp_path):
    """Other weights under the same branch; the scanned commit itself stays what it was."""
    first = pushed(hub, tmp_path / "source")
    run("scan", "--model", REPO, "--quiet")
    second = pushed(hub, tmp_path / "trained", tensors=tiny_llama(layers=4, seed=7))
    hub.forget()
    assert codes(run, REPO) == codes(run, f"{REPO}@{second}") == ["SPC204"]
    assert codes(run, f"{REPO}@{first}") == []
    assert beyond_the_headers(hub) == []
    _, out, _ = run("check", SCAN, "--model", REPO)
    assert f"The checkpoint is at revision {second}, the scan of {first}." in out


def test_a_snapshot_in_the_cache_is_enough(hub, run, tmp_path):
    """No request, and the same evidence as that of the Hub."""
    from huggingface_hub import snapshot_download

    pushed(hub, tmp_path / "source")
    run("scan", "--model", REPO, "--quiet")
    snapshot_download(REPO)
    hub.forget()
    assert codes(run, REPO) == []
    assert hub.requests == []


def test_what_cannot_be_had(hub, run, tmp_path):
    """A finding like any other, with the same words as of scan."""
    pushed(hub, tmp_path / "source")
    run("scan", "--model", REPO, "--quiet")
    assert codes(run, "acme/none") == codes(run, f"{REPO}@nowhere") == ["SPC201"]
    assert codes(run, tmp_path / "source", "--revision", "main") == ["SPC201"]


def test_a_gated_model_needs_a_token(hub, run, tmp_path):
    """--token is passed on."""
    pushed(hub, tmp_path / "source")
    hub.gate(REPO, "secret")
    run("scan", "--model", REPO, "--quiet", "--token", "secret")
    assert codes(run, REPO) == ["SPC201"]
    assert codes(run, REPO, "--token", "secret") == []
