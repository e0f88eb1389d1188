"""Models of the Hub, through the real client and a Hub on loopback that fails on command."""

import threading
import time
from contextlib import closing
from email.utils import formatdate

import huggingface_hub
import pytest
import torch
from conftest import llama_config, tiny_llama, write_checkpoint
from safetensors.torch import load_file

from spectrum.checkpoint import fingerprint, open_checkpoint, open_model, ranges
from spectrum.checkpoint import hub as hub_module
from spectrum.errors import CheckpointError, SpectrumError
from spectrum.results import download

REPO = "acme/tiny"
READER = "hf_reader"


@pytest.fixture
def model(tmp_path):
    """A sharded Llama on disk, whose shards the Hub stores with LFS."""
    tensors = tiny_llama(layers=2)
    names = sorted(tensors)
    halves = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    shards = {shard: {name: tensors[name] for name in members} for shard, members in halves.items()}
    return write_checkpoint(tmp_path / "tiny", shards, config=llama_config(2))


@pytest.fixture
def commit(hub, model) -> str:
    return hub.push(REPO, model)


@pytest.fixture
def waits(monkeypatch):
    """Seconds waited for between tries, which pass at once."""
    seen = []

    class Hurried(threading.Event):
        def wait(self, timeout=None):
            seen.append(timeout)
            return self.is_set()

    monkeypatch.setattr(ranges, "Event", Hurried)
    return seen


def _all_tensors(checkpoint):
    return {name: checkpoint.read(name) for name in checkpoint.tensors}


def _assert_read(model, opened):
    """Every tensor, as the safetensors library reads it from the files that were pushed."""
    expected = {name: tensor for shard in model.glob("*.safetensors") for name, tensor in load_file(shard).items()}
    with opened as checkpoint:
        assert checkpoint.tensors.keys() == expected.keys()
        for name, tensor in _all_tensors(checkpoint).items():
            assert torch.equal(tensor, expected[name]), name


def test_streamed_tensors_are_those_of_the_file(hub, commit, model, monkeypatch):
    """Bit for bit, also where a tensor comes in many parts; the second server never sees a token."""
    monkeypatch.setattr(ranges, "PART_BYTES", 1000)
    hub.gate(REPO, READER)
    _assert_read(model, open_model(REPO, token=READER))
    assert hub.violations == []
    assert hub.peak() <= ranges.CONNECTIONS


def test_rows_of_a_tensor_are_all_that_is_fetched(hub, commit):
    """A range of rows asks for exactly its bytes, and the Hub is asked once where a file is."""
    with open_model(REPO) as checkpoint:
        tensor = checkpoint.tensors["model.layers.1.mlp.down_proj.weight"]
        hub.forget()
        rows = checkpoint.read(tensor.name, 3, 5)
        assert rows.shape == (2, 96)
        first = tensor.start + 3 * 96 * 2
        assert [(r.server, r.range) for r in hub.requests] == [("cdn", f"bytes={first}-{first + 2 * 96 * 2 - 1}")]


def test_the_commit_is_what_is_read(hub, commit, model):
    """Branch, tag, commit and '@' name it; a branch that moves on does not change what is open."""
    hub.tag(REPO, "v1", commit)
    with open_model(REPO) as checkpoint:
        assert (checkpoint.id, checkpoint.revision) == (REPO, commit)
        later = hub.push(REPO, {"config.json": b"{}"})
        _assert_read(model, checkpoint)
    for opened in (open_model(f"{REPO}@v1"), open_model(REPO, revision=commit), open_model(f"{REPO}@{commit}")):
        with opened as checkpoint:
            assert checkpoint.revision == commit
    with pytest.raises(CheckpointError, match=r"'acme/tiny' has neither 'model\.safetensors\.index\.json' nor"):
        open_model(REPO)
    assert later != commit
    with pytest.raises(CheckpointError, match="'acme/tiny@v1' and the revision 'v2' contradict each other"):
        open_model(f"{REPO}@v1", revision="v2")


def test_downloaded_cached_and_streamed_are_the_same_checkpoint(hub, commit, model):
    """Only what a scan needs is downloaded; the cache is then used without a request; fingerprints agree."""
    hub.push(REPO, {path.name: path.read_bytes() for path in model.iterdir()} | {"x.bin": b"x", "README.md": b"#"})
    with open_model(REPO) as checkpoint:
        streamed = fingerprint(checkpoint)
        assert not checkpoint.folder.exists()
    with open_model(REPO, fetch="download") as checkpoint:
        downloaded = fingerprint(checkpoint)
        assert {path.name for path in checkpoint.folder.iterdir()} == {path.name for path in model.iterdir()}
    hub.forget()
    _assert_read(model, open_model(REPO))
    assert hub.requests == []
    assert downloaded == streamed
    assert streamed.content.startswith("hub:")


def test_a_folder_comes_before_the_hub_and_the_cache_before_a_request(hub, commit, model, tmp_path):
    """Resolution order; a snapshot that lacks a shard is not used."""
    hub.forget()
    (tmp_path / "acme").mkdir()
    model.rename(tmp_path / REPO)
    with open_model(REPO) as checkpoint:
        assert (checkpoint.id, checkpoint.revision) == ("tiny", None)
    assert hub.requests == []
    with pytest.raises(CheckpointError, match="'acme/tiny' is a path: a revision and a way to fetch belong to"):
        open_model(REPO, fetch="stream")
    (tmp_path / REPO).rename(tmp_path / "away")
    huggingface_hub.snapshot_download(REPO, allow_patterns=["*.json", "a.safetensors"])
    with open_model(REPO) as checkpoint:
        assert (checkpoint.remote, checkpoint.revision) == (True, commit)


def test_offline_uses_the_cache_or_says_so(hub, commit, model, monkeypatch):
    """HF_HUB_OFFLINE: a complete snapshot is read; without one, one line and no request."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(CheckpointError, match=r"a model of that name, and HF_HUB_OFFLINE is set\."):
        open_model(REPO)
    assert hub.requests == []
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    with open_model(REPO, fetch="download"):
        hub.forget()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    _assert_read(model, open_model(REPO, fetch="stream"))
    assert hub.requests == []


FAULTS = [
    ({"status": 429, "retry_after": 7, "times": 2}, [7.0, 7.0]),
    ({"status": 500, "times": 3}, [1.0, 2.0, 4.0]),
    ({"status": 503, "times": 1}, [1.0]),
    ({"reset_after": 700, "times": 1}, [1.0]),
    ({"truncate": 700, "times": 1}, [1.0]),
    ({"shift": 8, "times": 1}, [1.0]),
    ({"shorten": 8, "times": 1}, [1.0]),
    ({"lengthen": 8, "times": 1}, [1.0]),
    ({"total": 5, "times": 1}, [1.0]),
    ({"content_range": "", "times": 1}, [1.0]),
]


@pytest.mark.parametrize(("fault", "expected"), FAULTS, ids=lambda value: "-".join(map(str, value)))
@pytest.mark.usefixtures("commit")
def test_what_fails_for_a_while_is_tried_again(hub, model, waits, fault, expected):
    """Faults of the weights' server end in the right bytes, after the waits that were due."""
    notes = []
    with open_model(REPO, notify=notes.append) as checkpoint:
        hub.fault("*a.safetensors", server="cdn", **fault)
        shard = load_file(model / "a.safetensors")
        assert all(torch.equal(checkpoint.read(name), tensor) for name, tensor in shard.items())
    assert waits == expected
    assert [note.rpartition("; ")[2] for note in notes] == [f"trying again in {seconds:.0f} s." for seconds in expected]


@pytest.mark.parametrize("fault", [fault for fault, _ in FAULTS], ids="-".join)
def test_what_fails_for_good_is_an_error_and_never_data(hub, commit, waits, fault):
    """The same faults without end: one error that names the file, after a bounded number of tries."""
    with open_model(REPO) as checkpoint:
        hub.fault("*a.safetensors", server="cdn", **fault | {"times": None})
        name = next(tensor.name for tensor in checkpoint.tensors.values() if tensor.shard == "a.safetensors")
        with pytest.raises(CheckpointError, match=r"a\.safetensors' cannot be read: .* carries on where it stopped"):
            checkpoint.read(name)
    assert len(waits) == ranges.FAILURES - 1


HOPELESS = [
    ({"ignore_range": True}, "answered 200 with the whole file"),
    ({"headers": (("Content-Encoding", "gzip"),)}, "answered 206 with an answer in the encoding 'gzip'"),
    ({"headers": (("Content-Encoding", "zip" * 2000),)}, "in the encoding 'zip.*\\.\\.\\.'"),
    ({"status": 302, "headers": (("Location", "file:///etc/passwd"),)}, "an address that is not of the web"),
    ({"status": 302, "headers": (("Location", ""),)}, "answered 302"),
    ({"status": 302, "headers": (("Location", "LOOP"),)}, "it redirects in a loop"),
]


@pytest.mark.parametrize("fault, message", HOPELESS, ids=[message[:20] for _, message in HOPELESS])
def test_a_hopeless_answer_is_an_error_at_once(hub, commit, waits, fault, message):
    """Asking again would bring the same: nothing is waited for, and little is quoted."""
    with open_model(REPO) as checkpoint:
        name = next(tensor.name for tensor in checkpoint.tensors.values() if tensor.shard == "a.safetensors")
        path = f"/{REPO}/resolve/{commit}/a.safetensors"
        loop = tuple((key, path if value == "LOOP" else value) for key, value in fault.get("headers", ()))
        if "status" in fault:
            hub.expire_links(requests=0)
        hub.fault("*a.safetensors", server="hub" if "status" in fault else "cdn", **fault | {"headers": loop})
        with pytest.raises(CheckpointError, match=message) as raised:
            checkpoint.read(name)
    assert waits in ([], [0.0])  # an address that expired is asked for anew at once
    assert len(str(raised.value)) < 400


def test_a_date_to_come_back_at_is_honoured(hub, commit, waits):
    """Retry-After as an HTTP-date; one that is too far away is said, not waited for."""
    hub.fault("/api/*", status=429, retry_after=formatdate(time.time() + 100, usegmt=True), times=1)
    open_model(REPO).close()
    assert waits == [pytest.approx(100, abs=10)]
    hub.fault("/api/*", status=429, retry_after=7200, times=1)
    with pytest.raises(CheckpointError, match=r"answered 429 and asks to come back in 7200 s\. Run the command again"):
        open_model(REPO)


@pytest.mark.parametrize("said", [0, "Thu, 01 Jan 1970 00:00:00 GMT", "soon", -1])
def test_no_wait_asked_for_is_the_usual_wait(hub, commit, waits, said):
    """A date that has passed, as on a clock that is fast, would spend all tries in a moment."""
    hub.fault("*safetensors", server="cdn", times=2, status=429, retry_after=said)
    with open_model(REPO):
        assert sorted(waits) in ([1.0, 1.0], [1.0, 2.0])  # of two shards, or twice of one


def test_a_refusal_behind_a_redirect_blames_no_token(hub, commit):
    """None is sent there."""
    hub.fault("*safetensors", server="cdn", status=403)
    with pytest.raises(CheckpointError, match=r"answered 403. The Hub has just redirected there: look for a proxy"):
        open_model(REPO)


@pytest.mark.parametrize("enough", [1000, 1001])
@pytest.mark.usefixtures("commit")
def test_a_try_that_made_progress_is_no_failure(hub, model, monkeypatch, waits, enough):
    """A connection that breaks off after every 1000 bytes is borne as long as that counts as progress."""
    monkeypatch.setattr(ranges, "PROGRESS_BYTES", enough)
    with open_model(REPO) as checkpoint:
        hub.fault("*a.safetensors", server="cdn", truncate=1000)
        name, expected = max(load_file(model / "a.safetensors").items(), key=lambda pair: pair[1].numel())
        if enough == 1000:
            assert torch.equal(checkpoint.read(name), expected)
            assert len(waits) >= ranges.FAILURES
        else:
            with pytest.raises(CheckpointError, match="broke off"):
                checkpoint.read(name)


def test_the_limit_of_a_small_file_is_its_largest_size(hub, commit, model):
    """As many bytes as are allowed are read; one more is an error."""
    size = (model / "config.json").stat().st_size
    file = ranges.RemoteFile(f"{hub.endpoint}/{REPO}/resolve/{commit}/config.json", size, None)
    with closing(ranges.Ranges({"config.json": file}, {})) as remote:
        assert remote.read_small("config.json", most=size) == (model / "config.json").read_bytes()
        with pytest.raises(CheckpointError, match=f"has {size} bytes; no more than {size - 1} are expected"):
            remote.read_small("config.json", most=size - 1)


def test_a_break_is_taken_up_where_it_was(hub, monkeypatch, waits):
    """Of a tensor that broke off after three quarters only the last quarter is fetched again."""
    hub.push(REPO, write_checkpoint_of_one(monkeypatch))
    with open_model(REPO) as checkpoint:
        hub.forget()
        hub.fault("*model.safetensors", server="cdn", truncate=3 * 2**20, times=1)
        read = checkpoint.read("x")
    first, second = [request.range for request in hub.requests]
    start, stop = checkpoint.tensors["x"].start, checkpoint.tensors["x"].stop
    assert (first, second) == (f"bytes={start}-{stop - 1}", f"bytes={start + 3 * 2**20}-{stop - 1}")
    assert torch.equal(read, torch.arange(2**20, dtype=torch.float32).reshape(1024, 1024))


def write_checkpoint_of_one(monkeypatch):
    """A checkpoint of one 4 MiB tensor, fetched in one part."""
    from pathlib import Path

    monkeypatch.setattr(ranges, "PART_BYTES", 2**23)
    return write_checkpoint(Path("one"), {"_": {"x": torch.arange(2**20, dtype=torch.float32).reshape(1024, 1024)}})


def test_signed_addresses_may_expire(hub, commit, model, waits):
    """An address that is refused after three uses is asked for anew."""
    hub.expire_links(requests=3)
    _assert_read(model, open_model(REPO))
    assert set(waits) == {0.0}


def test_a_server_that_hangs_does_not_hold_up_leaving(hub, commit, monkeypatch):
    """Closing ends a wait between tries at once."""
    notes = threading.Event()
    checkpoint = open_model(REPO, notify=lambda _text: notes.set())
    hub.fault("*safetensors", server="cdn", status=429, retry_after=600)
    failed = []

    def _read():
        try:
            checkpoint.read("model.layers.0.mlp.up_proj.weight")
        except CheckpointError as error:
            failed.append(str(error))

    thread = threading.Thread(target=_read)
    thread.start()
    assert notes.wait(20)
    checkpoint.close()
    thread.join(20)
    assert not thread.is_alive()
    assert failed[0].endswith("was closed while it was read.")


def test_a_silent_server_is_given_up(hub, commit, monkeypatch, waits):
    """No byte within the timeout counts as a failure like any other."""
    monkeypatch.setattr(ranges, "TIMEOUT", 0.2)
    with open_model(REPO) as checkpoint:
        hub.fault("*safetensors", server="cdn", hang=True)
        with pytest.raises(CheckpointError, match="the connection broke off"):
            checkpoint.read("model.layers.0.mlp.up_proj.weight")


def test_a_server_that_drips_is_given_up(hub, commit, waits, monkeypatch):
    """80 bytes a second never reach the timeout between two bytes: the pace has a lower limit."""
    monkeypatch.setattr(ranges, "SLOW_SECONDS", 0.2)
    with open_model(REPO) as checkpoint:
        hub.fault("*safetensors", server="cdn", bytes_per_second=80)
        with pytest.raises(CheckpointError, match=r"cannot be read: '127.0.0.1' sends only \d+ bytes a second\. Run"):
            checkpoint.read("model.layers.0.mlp.up_proj.weight")
    assert len(waits) == ranges.FAILURES - 1


def test_an_api_that_drips_is_given_up(hub, commit, monkeypatch):
    """The same before the first file: the whole answer has a limit."""
    monkeypatch.setattr(hub_module, "LONGEST_CONTACT", 0.5)
    hub.fault("/api/*", bytes_per_second=80)
    with pytest.raises(CheckpointError, match=r"did not finish its answer about 'acme/tiny' within 0 seconds"):
        open_model(REPO)


@pytest.mark.parametrize(
    "body", [b"[" * 200_000, b"<html>", b"[]", b"7", b""], ids=["deep", "page", "list", "7", "none"]
)
def test_an_api_that_is_not_the_hub(hub, commit, monkeypatch, body):
    """Whatever comes instead of the Hub's JSON is one error."""
    hub.fault("/api/*", body=body)
    with pytest.raises(CheckpointError, match="does not answer as the Hub does when asked for 'acme/tiny'"):
        open_model(REPO)


def test_connections_report_one_at_a_time(hub, commit, waits, monkeypatch):
    """Eight connections that fail at once do not call `notify` at once, or their sentences would run together."""
    monkeypatch.setattr(ranges, "PART_BYTES", 500)
    inside, met = [], []

    def _notify(_text):
        inside.append(1)
        time.sleep(0.01)
        met.append(len(inside))
        inside.pop()

    with open_model(REPO, notify=_notify) as checkpoint:
        hub.fault("*safetensors", server="cdn", times=30, status=503)
        checkpoint.read("model.layers.0.mlp.up_proj.weight")
    assert len(met) == 30
    assert set(met) == {1}


@pytest.mark.parametrize("model", ["./x", "x/y/z", "~/x", "/x", "../x/y", "./owner/name", "~nobody/x"])
def test_a_folder_that_is_mistyped(hub, model):
    """What cannot be a name on the Hub is a folder that is not there, and the Hub is not asked."""
    with pytest.raises(CheckpointError) as raised:
        open_model(model)
    assert str(raised.value).startswith(f"There is no folder '{model}', nor a file of that name. Give a folder")
    assert hub.requests == []


@pytest.mark.parametrize(
    "page",
    ["", "/", "/tree/main", "/tree/{commit}", "/blob/main/config.json", "/resolve/main/a.safetensors", "?x=1", "#top"],
)
@pytest.mark.parametrize("host", ["https://huggingface.co", "http://huggingface.co", "https://hf.co", "endpoint"])
def test_the_address_of_a_page(hub, commit, page, host):
    """As it is copied from the browser."""
    place = hub.endpoint if host == "endpoint" else host
    with open_model(f"{place}/{REPO}{page.format(commit=commit)}") as checkpoint:
        assert (checkpoint.id, checkpoint.revision) == (REPO, commit)


def test_the_address_of_another_site(hub, commit):
    """It is not looked up on the Hub."""
    with pytest.raises(CheckpointError, match="There is no folder 'https://example.org/acme/tiny'"):
        open_model("https://example.org/acme/tiny")
    assert hub.requests == []


def test_home(model, monkeypatch):
    """'~' is the home folder, where the shell left it as it is: --model=~/tiny."""
    monkeypatch.setenv("HOME", str(model.parent))
    with open_model("~/tiny") as checkpoint:
        assert checkpoint.id == "tiny"


def test_refusals_say_what_to_do(hub, commit, model):
    """Gated, private, misspelt, no such revision, no such file."""
    hub.gate(REPO, READER)
    with pytest.raises(CheckpointError, match="answered 401. Its owner wants conditions accepted: do so on"):
        open_model(REPO)
    with pytest.raises(
        CheckpointError,
        match="^There is no folder 'acme/none', and on the Hub .* There is no such model, or it is",
    ):
        open_model("acme/none")
    with pytest.raises(CheckpointError, match="'acme/tiny@v9' cannot be had: .* The model has no such revision"):
        open_model(REPO, revision="v9")
    with pytest.raises(CheckpointError, match="There is no folder 'a--b/c', and it is not a model's name on the Hub"):
        open_model("a--b/c")
    hub.push("acme/pickled", {"pytorch_model.gguf": b"x"})
    with pytest.raises(CheckpointError, match="'acme/pickled' holds only GGUF weights"):
        open_model("acme/pickled")


def test_an_unreachable_hub_is_said_soon(hub, waits):
    """A laptop without a network: a few tries, then one line."""
    hub.stop("hub")
    with pytest.raises(CheckpointError, match="cannot be reached"):
        open_model(REPO)
    assert waits == [1.0, 2.0, 4.0]


def test_files_of_the_hub_are_checked_like_those_on_disk(hub, model):
    """An index that leads out of the repository, a config beyond reason, a file that is truncated."""
    files = {path.name: path.read_bytes() for path in model.iterdir()}
    hub.push("acme/away", files | {"model.safetensors.index.json": b'{"weight_map": {"x": "../../etc/x.safetensors"}}'})
    with pytest.raises(CheckpointError, match="which is not a file inside the folder"):
        open_model("acme/away")
    hub.push("acme/long", files | {"config.json": b" " * (16 * 2**20 + 1)})
    with pytest.raises(CheckpointError, match=r"has 16777217 bytes; no more than 16777216 are expected of it\."):
        open_model("acme/long")
    hub.push("acme/short", files | {"a.safetensors": files["a.safetensors"][:-1]})
    with pytest.raises(CheckpointError, match="'acme/short/a.safetensors' has .* bytes, but its header describes"):
        open_model("acme/short")
    with open_checkpoint(model) as local, open_model(model.as_posix()) as same:
        assert local.tensors == same.tensors


def test_an_address_that_drips_is_given_up(hub, commit, monkeypatch):
    """Result files by URL have a limit for the whole answer, too."""
    monkeypatch.setattr(download, "LONGEST", 0.3)
    hub.push(REPO, {"snr_results_acme-tiny.json": b"{}" + b" " * 5000})
    hub.fault("*snr_results*", bytes_per_second=80)
    with pytest.raises(SpectrumError, match="cannot be read: it was not complete after 0 seconds"):
        download.download(f"{hub.endpoint}/{REPO}/resolve/main/snr_results_acme-tiny.json")
