"""The fingerprint changes with the weights, and with nothing else."""

import os
import shutil
from pathlib import Path

import torch
from conftest import gaussian, write_checkpoint
from safetensors.torch import save_file

from spectrum.checkpoint import fingerprint, open_checkpoint


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
