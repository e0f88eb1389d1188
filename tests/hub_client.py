"""Leads the huggingface_hub of this process to the small Hub; it has read its environment long ago."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hub_server import HubServer, client_environment


@pytest.fixture
def hub(tmp_path, monkeypatch) -> Iterator[HubServer]:
    """A Hub that the client of this process, and of its children, takes for the real one."""
    with HubServer() as server:
        lead_client(monkeypatch, server.endpoint, tmp_path / "hf-home")
        yield server
        _close_connections()


def lead_client(monkeypatch: pytest.MonkeyPatch, endpoint: str, home: Path) -> None:
    """Set what the client reads now and what it has read at import, for 1.x and 2.x."""
    _lead_environment(monkeypatch, endpoint, home)
    _lead_constants(monkeypatch, endpoint, home)
    _close_connections()  # a session keeps the proxies it was made with


def _lead_environment(monkeypatch: pytest.MonkeyPatch, endpoint: str, home: Path) -> None:
    cleared = ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_TOKEN_PATH", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"]
    cleared += ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_XET_CACHE", "HF_ASSETS_CACHE", "HF_DEBUG"]
    proxies = [f"{scheme}_proxy" for scheme in ("http", "https", "all")]
    for name in [*cleared, *proxies, *(proxy.upper() for proxy in proxies)]:
        monkeypatch.delenv(name, raising=False)
    for name, value in client_environment(endpoint, home).items():
        monkeypatch.setenv(name, value)


def _lead_constants(monkeypatch: pytest.MonkeyPatch, endpoint: str, home: Path) -> None:
    hub_home = str(home / "hub")
    values: dict[str, dict[str, Any]] = {
        "constants": {
            "ENDPOINT": endpoint,
            "HUGGINGFACE_CO_URL_TEMPLATE": endpoint + "/{repo_id}/resolve/{revision}/{filename}",
            "HF_HOME": str(home),
            "HF_HUB_CACHE": hub_home,
            "HUGGINGFACE_HUB_CACHE": hub_home,
            "HF_TOKEN_PATH": str(home / "token"),
            "HF_STORED_TOKENS_PATH": str(home / "stored_tokens"),
            "HF_HUB_OFFLINE": False,
            "HF_HUB_DISABLE_XET": True,
            "HF_HUB_DISABLE_TELEMETRY": True,
            "HF_HUB_DISABLE_IMPLICIT_TOKEN": False,
            "HF_XET_CACHE": str(home / "xet"),
            "HF_ASSETS_CACHE": str(home / "assets"),
            "AGENT_HARNESSES_PATH": str(home / "agent_harnesses.json"),  # since 2.x
        },
        "utils._cache_manager": {"HF_HUB_CACHE": hub_home},  # imported by name
    }
    for name, changes in values.items():
        importlib.import_module(f"huggingface_hub.{name}")
        module = sys.modules[f"huggingface_hub.{name}"]  # utils.tqdm is a class to whoever imports it
        for constant, value in changes.items():
            if hasattr(module, constant):
                monkeypatch.setattr(module, constant, value)
    # Made at import: it stands behind model_info and the other functions of the package.
    monkeypatch.setattr(importlib.import_module("huggingface_hub.hf_api").api, "endpoint", endpoint)


def _close_connections() -> None:
    from huggingface_hub import HfFileSystem
    from huggingface_hub.utils import close_session

    close_session()
    HfFileSystem.clear_instance_cache()
