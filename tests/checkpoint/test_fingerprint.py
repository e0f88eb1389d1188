"""The fingerprint changes with the weights, and with nothing else."""

import hashlib
import importlib
import json
import os
import shutil
import time
from pathlib import Path

import pytest
import torch
from conftest import gaussian, write_checkpoint
from safetensors.torch import save_file

from spectrum.checkpoint import Checkpoint, fingerprint, open_checkpoint
from spectrum.checkpoint.disk import DiskSource
from spectrum.checkpoint.files import find_files

module = importlib.import_module("spectrum.checkpoint.fingerprint")  # the package's attribute is the function


def _fingerprint(path):
    with open_checkpoint(path) as checkpoint:
        return fingerprint(checkpoint)


def _large(**changes):
    """Four megabytes: more than is hashed whole."""
    return {"w": gaussian(1024, 1024, seed=1), "b": torch.zeros(8)} | changes


def test_a_copy_has_the_same(tmp_path):
    """Neither the folder's name nor the files' times enter, nor how tensors are spread over shards."""
    one = write_checkpoint(tmp_path / "one", {"_": _large()})
    two = shutil.copytree(one, tmp_path / "two")
    os.utime(two / "model.safetensors", (1, 1))
    tensors = _large()
    shards = {"x.safetensors": {"b": tensors["b"]}, "y.safetensors": {"w": tensors["w"]}}
    three = write_checkpoint(tmp_path / "three", shards)
    assert _fingerprint(one) == _fingerprint(two) == _fingerprint(three)


def test_retrained_in_place(tmp_path):
    """Same names, shapes and file size, other weights: another content, also where only one tensor was trained."""
    folder = write_checkpoint(tmp_path / "m", {"_": _large()})
    before, size = _fingerprint(folder), (folder / "model.safetensors").stat().st_size
    step = 1e-5 * gaussian(1024, 1024, seed=2)
    save_file(_large(w=_large()["w"] + step), folder / "model.safetensors")
    after = _fingerprint(folder)
    assert (folder / "model.safetensors").stat().st_size == size
    assert after.headers == before.headers
    assert after.content != before.content


def test_sparse_change_is_seen(tmp_path):
    """One weight in a thousand changed, as a small step in bfloat16 leaves it."""
    folder = write_checkpoint(tmp_path / "m", {"_": _large()})
    before = _fingerprint(folder)
    changed = _large()["w"]
    changed.view(-1)[::997] += 1.0
    save_file(_large(w=changed), folder / "model.safetensors")
    assert _fingerprint(folder).content != before.content


def test_last_byte_of_a_small_tensor(tmp_path):
    """Small tensors are hashed whole."""
    folder = write_checkpoint(tmp_path / "m", {"_": _large()})
    before = _fingerprint(folder)
    save_file(_large(b=torch.tensor([0.0] * 7 + [1e-30])), folder / "model.safetensors")
    assert _fingerprint(folder).content != before.content


def test_other_names_dtypes_and_shapes(tmp_path):
    """The headers' part tells them."""
    variants = [{"w": torch.zeros(4, 4)}, {"v": torch.zeros(4, 4)}, {"w": torch.zeros(2, 8)}]
    variants.append({"w": torch.zeros(4, 4, dtype=torch.float16)})
    prints = [_fingerprint(write_checkpoint(tmp_path / str(i), {"_": v})) for i, v in enumerate(variants)]
    assert len({item.headers for item in prints}) == len(variants)


def test_hub_cache_is_taken_at_its_word(hub_snapshot):
    """Commit and blob names are the evidence: nothing of the weights is read."""
    assert _fingerprint(hub_snapshot).content.startswith("hub:")


def test_hub_cache_written_through_its_link(hub_snapshot):
    """save_pretrained() into a snapshot changes the blob under its old name: samples are hashed instead."""
    before = _fingerprint(hub_snapshot)
    content = bytearray((hub_snapshot / "model.safetensors").read_bytes())
    content[-1] ^= 1
    blob = (hub_snapshot / "model.safetensors").resolve()
    blob.write_bytes(content)
    later = (hub_snapshot / "model.safetensors").lstat().st_mtime_ns + 1_000_000
    os.utime(blob, ns=(later, later))
    after = _fingerprint(hub_snapshot)
    assert after.content.startswith("samples:")
    assert after.content != before.content


def test_a_blob_in_the_store_that_models_share(hub_snapshot, tmp_path):
    """huggingface_hub 2 may link a blob on to a store of all models: readable, and known by its own hash as before."""
    before = _fingerprint(hub_snapshot)
    blob = (hub_snapshot / "model.safetensors").resolve()
    shared = tmp_path / "hub" / "blobs" / "ab" / ("ab" * 32)
    shared.parent.mkdir(parents=True)
    blob.rename(shared)
    blob.symlink_to(Path("..", "..", "blobs", "ab", shared.name))
    assert _fingerprint(hub_snapshot) == before
    assert before.content.startswith("hub:")


class _Counting(DiskSource):
    """Files on disk; counts the bytes that are read."""

    count = 0

    def read(self, shard, offset, buffer):
        type(self).count += len(buffer)
        super().read(shard, offset, buffer)


def _counted(folder, **options):
    """(fingerprint, bytes read for it)."""
    files = find_files(folder)
    with Checkpoint(files, _Counting(files.folder, files.shards)) as checkpoint:
        _Counting.count = 0
        return fingerprint(checkpoint, **options), _Counting.count


def _aged(folder):
    """A checkpoint that was written a minute ago."""
    write_checkpoint(folder, {"_": _large()})
    then = time.time() - 60
    os.utime(folder / "model.safetensors", (then, then))
    return folder


def test_small_checkpoints_keep_the_fingerprint_of_0_1_0(tmp_path):
    """Golden: a scan of an earlier release still fits. 64 blocks of 4 KiB of a large tensor, a small one whole."""
    w = (torch.arange(1024 * 512) % 97).reshape(1024, 512).to(torch.float32)
    folder = write_checkpoint(tmp_path / "m", {"_": {"w": w, "b": torch.arange(8.0)}})
    raw = w.numpy().tobytes()
    blocks = [raw[(len(raw) - 4096) * k // 63 :][:4096] for k in range(64)]
    expected = hashlib.sha256(torch.arange(8.0).numpy().tobytes() + b"".join(blocks)).hexdigest()
    assert _counted(folder)[0].content == f"samples:{expected}"


@pytest.mark.parametrize("most", [2**20, 2**18, 2**16, 2**14])
def test_the_total_is_bounded(tmp_path, monkeypatch, most):
    """However many tensors there are; each is still sampled, and a change of one of them all is still seen."""
    monkeypatch.setattr(module, "MOST_BYTES", most)
    tensors = {f"t{number}": gaussian(160, 256, seed=number) for number in range(40)}
    folder = write_checkpoint(tmp_path / "m", {"_": tensors})
    before, count = _counted(folder)
    assert 0.5 * most < count <= most
    tensors["t17"] = tensors["t17"] * 1.01
    save_file(tensors, folder / "model.safetensors")
    assert _counted(folder)[0].content != before.content


def test_it_is_remembered_by_path_size_and_time(tmp_path):
    """The second time no weight is read; a file of another time, size or place is read."""
    cache = tmp_path / "cache" / "prints.json"
    folder = _aged(tmp_path / "m")
    first, count = _counted(folder, cache=cache)
    assert count > 0
    assert _counted(folder, cache=cache) == (first, 0)
    os.utime(folder / "model.safetensors", (1, 1))
    assert _counted(folder, cache=cache) == (first, count)
    assert _counted(shutil.copytree(folder, tmp_path / "copy"), cache=cache) == (first, count)
    assert len(json.loads(cache.read_text())) == 3


@pytest.mark.parametrize("odd", ["[]", '{"a": 1}', "{", "", '{"a": "b", "a": "c"}', "\ud800"])
def test_a_damaged_memory_is_made_anew(tmp_path, odd):
    """It never stops a scan."""
    cache = tmp_path / "prints.json"
    cache.write_text(odd, errors="surrogatepass")
    folder = _aged(tmp_path / "m")
    first, _ = _counted(folder, cache=cache)
    assert _counted(folder, cache=cache) == (first, 0)


@pytest.mark.parametrize("place", ["pipe", "file/x", "folder", "/proc/none/x"])
def test_a_memory_that_cannot_be_written_costs_nothing(tmp_path, place):
    """Neither an error nor a wait, and nothing is left behind."""
    folder = _aged(tmp_path / "m")
    home = tmp_path / "home"
    (home / "folder").mkdir(parents=True)
    (home / "file").touch()
    os.mkfifo(home / "pipe")
    expected = _fingerprint(folder)
    for _ in range(2):
        assert _counted(folder, cache=home / place)[0] == expected
    assert not [path for path in home.iterdir() if path.name.startswith("tmp")]


def test_the_users_cache_folder(tmp_path, monkeypatch):
    """The default."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    folder = _aged(tmp_path / "m")
    first, count = _counted(folder)
    assert (count > 0, _counted(folder)) == (True, (first, 0))
    assert (tmp_path / "xdg" / "spectrum-snr" / "fingerprints.json").is_file()


def test_a_file_written_a_moment_ago_is_not_remembered(tmp_path):
    """Another write within the resolution of the file system's clock would not be seen."""
    cache = tmp_path / "prints.json"
    folder = write_checkpoint(tmp_path / "m", {"_": _large()})
    first, count = _counted(folder, cache=cache)
    assert _counted(folder, cache=cache) == (first, count)
    assert not cache.exists()
