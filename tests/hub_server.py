"""A small Hugging Face Hub on loopback, which the real client works with and which fails when it is told to.

Two servers: the Hub proper, and the one that large files are redirected to, which must never see a token.
Made of the standard library alone. Large files are stored with LFS, never with Xet.
"""

import dataclasses
import os
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from hub_faults import Effects, Fault
from hub_http import Request, Server
from hub_repos import Repository, read_files


@dataclass
class Link:
    """A signed address on the second server, and how it was used."""

    made: float
    uses: int = 0


class HubServer:
    """Serves what was pushed, until it is closed. Everything may be called from any thread.

    Attributes:
        tokens: those the Hub knows; any other is refused everywhere.
        page_size: entries of a page of the tree.
        relays: small files are redirected to another path of the Hub, relative to it, as the real one may do.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.tokens: set[str] = set()
        self.page_size = 1000
        self.relays = False
        self.repositories: dict[str, Repository] = {}
        self._faults: list[Fault] = []
        self._log: list[Request] = []
        self._busy: dict[int, Request] = {}
        self._peak: dict[str, int] = {}
        self._links: dict[str, Link] = {}
        self._link_uses: int | None = None
        self._link_seconds: float | None = None
        self._servers = {name: Server(self, name) for name in ("hub", "cdn")}

    def __enter__(self) -> "HubServer":  # noqa: PYI034  # typing.Self is newer than Python 3.10
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def endpoint(self) -> str:
        return self._servers["hub"].url

    @property
    def cdn(self) -> str:
        """Address of the server that large files come from."""
        return self._servers["cdn"].url

    def push(self, name: str, files: Path | Mapping[str, bytes], *, revision: str | None = "main") -> str:
        """Commit a folder, or files by path, as all there is; on a branch, or on none.

        Returns:
            The commit.
        """
        with self.lock:
            repository = self.repositories.setdefault(name, Repository(name))
            commit = repository.add(read_files(files))
            if revision is not None:
                repository.branches[revision] = commit
            return commit

    def point(self, name: str, revision: str, commit: str) -> None:
        """Move a branch, or make one."""
        with self.lock:
            self.repositories[name].branches[revision] = commit

    def tag(self, name: str, tag: str, commit: str) -> None:
        """Name a commit."""
        with self.lock:
            self.repositories[name].tags[tag] = commit

    def gate(self, name: str, *readers: str) -> None:
        """Let nobody read the files without one of these tokens; the repository stays visible."""
        with self.lock:
            self.tokens.update(readers)
            self.repositories[name].gated = frozenset(readers)

    def hide(self, name: str, *readers: str) -> None:
        """Make the repository private to these tokens."""
        with self.lock:
            self.tokens.update(readers)
            self.repositories[name].private = frozenset(readers)

    def fault(
        self,
        path: str = "*",
        *,
        method: str = "*",
        server: str | None = None,
        after: int = 0,
        times: int | None = None,
        **effects: Any,
    ) -> Fault:
        """Do something wrong to the requests that match; several faults at once add up, the later one wins.

        Args:
            path: pattern of the path without the query, where `*` also matches slashes. A file's is
                `/owner/name/resolve/revision/file` on the Hub and `/owner/name/sha256/file` on the CDN.
            method: GET, HEAD or POST; by default any.
            server: `hub` or `cdn`; by default either.
            after: matching requests left in peace first.
            times: how many are struck then; by default all.
            effects: see `Effects`.
        """
        Effects(**effects)
        made = Fault(path, method, server, after, times, effects)
        with self.lock:
            self._faults.append(made)
        return made

    def heal(self) -> None:
        """End all faults, and let signed addresses live for ever."""
        with self.lock:
            self._faults.clear()
        self.expire_links()

    def expire_links(self, *, requests: int | None = None, seconds: float | None = None) -> None:
        """Refuse a signed address after it was used so often, or has become so old; a new redirect gives a new one."""
        with self.lock:
            self._link_uses, self._link_seconds = requests, seconds

    @property
    def requests(self) -> list[Request]:
        """All requests so far, in the order they came."""
        with self.lock:
            return [dataclasses.replace(request) for request in self._log]

    def forget(self) -> None:
        """Empty the log."""
        with self.lock:
            self._log.clear()
            self._peak.clear()

    @property
    def violations(self) -> list[Request]:
        """Requests that took a token to the second server."""
        return [request for request in self.requests if request.server == "cdn" and request.authorization]

    def peak(self, server: str = "both") -> int:
        """The most requests that were under way at once."""
        with self.lock:
            return self._peak.get(server, 0)

    def stop(self, server: str) -> None:
        """Stop `hub` or `cdn`: from now on it refuses connections."""
        self._servers[server].stop()

    def close(self) -> None:
        """Stop both, and end what still hangs."""
        for server in self._servers.values():
            server.stop()

    def environment(self, home: Path, *, token: str | None = None) -> dict[str, str]:
        """The environment of a program whose Hub this is and which has its cache in `home`."""
        kept = {name: value for name, value in os.environ.items() if not _of_the_hub(name)}
        kept |= client_environment(self.endpoint, home)
        return kept | ({"HF_TOKEN": token} if token else {})

    def begin(self, request: Request) -> Effects:
        """Note that a request has come; what to do to it."""
        with self.lock:
            self._log.append(request)
            self._busy[id(request)] = request
            alike = sum(other.server == request.server for other in self._busy.values())
            self._peak[request.server] = max(self._peak.get(request.server, 0), alike)
            self._peak["both"] = max(self._peak.get("both", 0), len(self._busy))
            struck = [fault.strike(request.server, request.method, request.path) for fault in self._faults]
        return Effects(**{name: value for effects in struck for name, value in effects.items()})

    def end(self, request: Request) -> None:
        """Note that a request is done with; again does nothing."""
        with self.lock:
            self._busy.pop(id(request), None)

    def sign(self, path: str) -> str:
        """A new address of a large file on the second server."""
        with self.lock:
            signature = f"{len(self._links) + 1:08x}"
            self._links[signature] = Link(time.monotonic())
        return f"{self.cdn}{quote(path)}?Expires=0&Signature={signature}"

    def admits(self, signature: str) -> bool:
        """Use a signed address once; whether it still holds."""
        with self.lock:
            link = self._links.get(signature)
            if link is None:
                return False
            link.uses += 1
            fresh = self._link_seconds is None or time.monotonic() - link.made <= self._link_seconds
            return fresh and (self._link_uses is None or link.uses <= self._link_uses)


def client_environment(endpoint: str, home: Path) -> dict[str, str]:
    """Variables that lead the client to this Hub, past any proxy, with a cache of its own and without Xet."""
    return {
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(home),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_UPDATE_CHECK": "1",
        "NO_PROXY": "127.0.0.1",
    }


def _of_the_hub(name: str) -> bool:
    """Whether a variable could lead the client elsewhere."""
    return name.startswith(("HF_", "HUGGING")) or name == "TRANSFORMERS_OFFLINE" or name.lower().endswith("_proxy")
