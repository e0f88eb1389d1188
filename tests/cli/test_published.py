"""`spectrum import --published`: the authors' result files as a source, from a server on loopback."""

import functools
import http.server
import json
import threading
from pathlib import Path

import pytest

LAYERS = 4


@pytest.fixture
def site(tmp_path):
    """Address of a folder that is served, and the folder."""
    folder = tmp_path / "site"
    folder.mkdir()
    plain = {
        f"model.layers.{layer}.mlp.{module}": {"snr": layer + offset, "type": f"mlp.{module}"}
        for layer in range(LAYERS)
        for offset, module in enumerate(("down_proj", "up_proj"))
    }
    (folder / "snr_results_acme-tiny-v1.json").write_text(json.dumps(plain))
    (folder / "snr_results_acme-empty.json").write_text("")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            """Say nothing on stderr."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder)) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_published_scores_are_a_scan_of_their_own(site, run):
    """Slash and underscore become dashes in the file's name; the origin is recorded; select works from it."""
    code, out, err = run("import", "--published", "acme/tiny_v1", "--published-url", site)
    assert (code, out) == (0, "snr_results/acme--tiny_v1.json\n")
    assert err.splitlines()[0] == "Imported 8 scores of 8 parameters."
    assert "warning: published scores do not say which revision of the model they are of, nor its shapes" in err
    origin = f"{site}/snr_results_acme-tiny-v1.json"
    assert json.loads(Path("snr_results/acme--tiny_v1.json").read_text())["scan"]["origin"] == origin
    _, out, _ = run("select", "acme/tiny_v1", "--top", "25")
    assert [line for line in out.splitlines() if line.startswith("- ")] == [
        "- ^model.layers.3.mlp.down_proj.weight$",
        "- ^model.layers.3.mlp.up_proj.weight$",
    ]


@pytest.mark.parametrize(
    ("model", "url", "message"),
    [
        ("acme/none", "", "No published scores of 'acme/none' at"),
        ("acme/empty", "", "is empty"),
        ("./acme", "", "'./acme' is not a name of a model: published scores are found by 'owner/name'."),
        ("acme/tiny", "file:///etc", "'file:///etc' is not a web address: give one that begins with https://."),
        ("acme/tiny", "http://127.0.0.1:9", "cannot be read: [Errno 111] Connection refused."),
    ],
)
def test_no_published_scores_are_one_line(site, run, model, url, message):
    """Nothing is written either."""
    code, out, err = run("import", "--published", model, "--published-url", url or site)
    assert (code, out, len(err.splitlines())) == (1, "", 1)
    assert message in err
    assert not Path("snr_results").exists()


def test_a_scan_made_here_is_not_replaced(site, run, llama):
    """The same name, but a real scan: refused. A file or a name beside it: wrong usage."""
    run("scan", llama)
    path = Path("snr_results/acme--tiny-llama.json")
    Path("snr_results/tiny-llama.json").rename(path)
    before = path.read_bytes()
    (Path("site") / "snr_results_acme-tiny-llama.json").write_bytes(
        (Path("site") / "snr_results_acme-tiny-v1.json").read_bytes()
    )
    code, _, err = run("import", "--published", "acme/tiny-llama", "--published-url", site)
    assert code == 1
    assert f"'{path}' is a scan that was made here; choose another folder with --out." in err
    assert path.read_bytes() == before
    for words in ([], ["old.json", "--published", "a/b"], ["--published", "a/b", "--model", "c"]):
        assert run("import", *words)[0] == 2
