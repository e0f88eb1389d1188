"""A snapshot of the Hub cache, laid out as huggingface_hub lays it out."""

import hashlib
from pathlib import Path

import pytest
import torch
from conftest import gaussian
from safetensors.torch import save

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def write_snapshot(cache: Path, tensors: dict[str, torch.Tensor], *, commit: str = COMMIT) -> Path:
    content = save(tensors)
    repository = cache / "models--owner--name"
    blob = repository / "blobs" / hashlib.sha256(content).hexdigest()
    snapshot = repository / "snapshots" / commit
    blob.parent.mkdir(parents=True, exist_ok=True)
    snapshot.mkdir(parents=True)
    blob.write_bytes(content)
    (snapshot / "model.safetensors").symlink_to(Path("..", "..", "blobs", blob.name))
    return snapshot


@pytest.fixture
def hub_snapshot(tmp_path) -> Path:
    return write_snapshot(tmp_path / "hub", {"w": gaussian(64, 64, seed=1)})
