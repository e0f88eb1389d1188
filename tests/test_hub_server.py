"""The small Hub is one to the real client, and each of its faults does what it says."""

import hashlib
import subprocess
import sys
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from safetensors.numpy import save

REPO = "acme/tiny"
WEIGHTS = save({"w": np.arange(64, dtype=np.float32)})
FILES = {"config.json": b'{"model_type": "llama"}', "model.safetensors": WEIGHTS, "original/notes.txt": b"notes"}


@pytest.fixture
def commit(hub) -> str:
    return hub.push(REPO, FILES)


def test_model_info(hub, commit):
    """The client sees the commit, and of each file the size and, in LFS, the hash."""
    info = huggingface_hub.model_info(REPO, files_metadata=True)
    assert info.sha == commit
    seen = {file.rfilename: (file.size, file.lfs.sha256 if file.lfs else None) for file in info.siblings}
    sha256 = hashlib.sha256(WEIGHTS).hexdigest()
    assert seen == {
        "config.json": (len(FILES["config.json"]), None),
        "model.safetensors": (len(WEIGHTS), sha256),
        "original/notes.txt": (5, None),
    }


@pytest.mark.parametrize("page_size", [1, 1000])
def test_tree(hub, commit, page_size):
    """The client lists folders and files, page by page."""
    hub.page_size = page_size
    listed = [entry.path for entry in huggingface_hub.HfApi().list_repo_tree(REPO, recursive=True)]
    assert listed == ["config.json", "model.safetensors", "original", "original/notes.txt"]
    assert [entry.path for entry in huggingface_hub.HfApi().list_repo_tree(REPO)] == listed[:3]


def test_snapshot_download(hub, commit, tmp_path):
    """The client downloads what matches into its cache, which lies in the test's folder."""
    folder = huggingface_hub.snapshot_download(REPO, allow_patterns=["*.json", "*.safetensors"])
    assert folder == str(tmp_path / f"hf-home/hub/models--acme--tiny/snapshots/{commit}")
    path = huggingface_hub.try_to_load_from_cache(REPO, "model.safetensors", revision=commit)
    assert Path(path).read_bytes() == WEIGHTS
    assert huggingface_hub.snapshot_download(REPO, allow_patterns="*.json", local_files_only=True) == folder
    assert [cached.repo_id for cached in huggingface_hub.scan_cache_dir().repos] == [REPO]
    assert hub.violations == []


def test_safetensors_metadata(hub, commit):
    """The client reads a header by a range, over the redirect."""
    metadata = huggingface_hub.HfApi().get_safetensors_metadata(REPO)
    assert metadata.parameter_count == {"F32": 64}
    assert [request.server for request in hub.requests if request.range] == ["hub", "cdn"]


@pytest.mark.parametrize("revision", ["main", "v1.0", "refs/pr/1", "sha"])
def test_revisions(hub, commit, revision):
    """A branch, a tag, a ref with slashes and a commit each lead to the files of their own commit."""
    hub.push(REPO, {"config.json": b"{}"}, revision="other")
    hub.tag(REPO, "v1.0", commit)
    hub.point(REPO, "refs/pr/1", commit)
    asked = commit if revision == "sha" else revision
    assert huggingface_hub.model_info(REPO, revision=asked).sha == commit
    assert commit in huggingface_hub.hf_hub_download(REPO, "original/notes.txt", revision=asked)
    names = {ref.name for ref in huggingface_hub.list_repo_refs(REPO).branches}
    assert names == {"main", "other", "refs/pr/1"}


def test_file_system(hub, commit):
    """The client's file system reads the end of a file by a range."""
    with huggingface_hub.HfFileSystem().open(f"{REPO}/model.safetensors", block_size=16) as file:
        file.seek(-8, 2)
        assert file.read() == WEIGHTS[-8:]
    assert hub.violations == []


def test_missing(hub, commit):
    """What does not exist raises the client's own errors, with a token and without."""
    hub.tokens.add("hf_known")
    with pytest.raises(RevisionNotFoundError):
        huggingface_hub.model_info(REPO, revision="nowhere")
    with pytest.raises(RevisionNotFoundError):
        huggingface_hub.hf_hub_download(REPO, "config.json", revision="nowhere")
    with pytest.raises(EntryNotFoundError):
        huggingface_hub.hf_hub_download(REPO, "nothing.json")
    for token in (None, "hf_known"):
        with pytest.raises(RepositoryNotFoundError):
            huggingface_hub.model_info("acme/nothing", token=token)
    with pytest.raises(HfHubHTTPError, match="Invalid credentials"):
        huggingface_hub.model_info(REPO, token="hf_unknown")  # noqa: S106  # of no one


def test_gated(hub, commit):
    """A gated repository is seen by all and read by those who may; the token never leaves the Hub."""
    hub.tokens.add("hf_stranger")
    hub.gate(REPO, "hf_reader")
    assert huggingface_hub.model_info(REPO).sha == commit
    for token in (None, "hf_stranger"):
        with pytest.raises(GatedRepoError):
            huggingface_hub.hf_hub_download(REPO, "model.safetensors", token=token)
    path = huggingface_hub.hf_hub_download(REPO, "model.safetensors", token="hf_reader")  # noqa: S106  # of no one
    assert Path(path).read_bytes() == WEIGHTS
    assert {request.status for request in hub.requests} == {200, 401, 403, 302}
    assert hub.violations == []


def test_private(hub, commit, monkeypatch):
    """A private repository does not exist for others; the client takes its token from the environment."""
    hub.hide(REPO, "hf_reader")
    with pytest.raises(RepositoryNotFoundError):
        huggingface_hub.model_info(REPO)
    monkeypatch.setenv("HF_TOKEN", "hf_reader")
    assert huggingface_hub.model_info(REPO).sha == commit
    assert huggingface_hub.whoami()["name"] == "reader"


def test_relative_redirects(hub, commit):
    """The client follows a small file to another path of the Hub, and takes its token there."""
    hub.relays = True
    hub.hide(REPO, "hf_reader")
    path = huggingface_hub.hf_hub_download(REPO, "original/notes.txt", token="hf_reader")  # noqa: S106  # of no one
    assert Path(path).read_bytes() == FILES["original/notes.txt"]
    assert [request.status for request in hub.requests] == [307, 200, 200]
    assert {request.authorization for request in hub.requests} == {"Bearer hf_reader"}


def test_a_program(hub, commit, tmp_path):
    """A program of its own finds this Hub through its environment."""
    told = "import huggingface_hub as h; print(h.hf_hub_download('acme/tiny', 'model.safetensors'))"
    environment = hub.environment(tmp_path / "other-home")
    done = subprocess.run([sys.executable, "-c", told], env=environment, capture_output=True, text=True, check=True)
    path = Path(done.stdout.strip())
    assert path.read_bytes() == WEIGHTS
    assert path.is_relative_to(tmp_path / "other-home/hub")


def test_offline(hub, commit, monkeypatch):
    """The client that is told to stay offline asks nobody."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(OfflineModeIsEnabled):
        huggingface_hub.model_info(REPO)
    assert hub.requests == []
