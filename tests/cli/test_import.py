"""`spectrum import URL`: a result file of the authors' program from a server on loopback."""

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


def test_a_result_file_is_imported_from_its_address(site, run):
    """The address is recorded as the origin; select works from the scan by the model's name."""
    url = f"{site}/snr_results_acme-tiny-v1.json"
    code, out, err = run("import", url, "--model", "acme/tiny_v1")
    assert (code, out) == (0, "snr_results/acme--tiny_v1.json\n")
    assert err.splitlines()[0] == "Imported 8 scores of 8 parameters."
    assert json.loads(Path("snr_results/acme--tiny_v1.json").read_text())["scan"]["origin"] == url
    _, out, _ = run("select", "acme/tiny_v1", "--top", "25")
    assert [line for line in out.splitlines() if line.startswith("- ")] == [
        "- ^model.layers.3.mlp.down_proj.weight$",
        "- ^model.layers.3.mlp.up_proj.weight$",
    ]
    assert run("import", url)[1] == "snr_results/acme-tiny-v1.json\n"


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("{site}/none.json", "cannot be read: there is no such file."),
        ("{site}/snr_results_acme-empty.json", "is empty: it holds no scores."),
        ("http://127.0.0.1:9/x.json", "cannot be read: [Errno 111] Connection refused."),
        (
            "file:///etc/passwd",
            "'file:/etc/passwd' cannot be read: No such file or directory. Give a result file of the",
        ),
    ],
)
def test_an_address_without_scores_is_one_line(site, run, url, message):
    """Nothing is written either."""
    code, out, err = run("import", url.format(site=site))
    assert (code, out, len(err.splitlines())) == (1, "", 1)
    assert message in err
    assert not Path("snr_results").exists()


def test_a_scan_made_here_is_not_replaced(site, run, llama):
    """The same name, but a real scan: refused."""
    run("scan", llama)
    path = Path("snr_results/tiny-llama.json")
    before = path.read_bytes()
    code, _, err = run("import", f"{site}/snr_results_acme-tiny-v1.json", "--model", "tiny-llama")
    assert code == 1
    assert f"'{path}' is a scan that was made here; choose another folder with --out." in err
    assert path.read_bytes() == before
