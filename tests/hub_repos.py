"""Repositories of the small Hub: files of each commit, and how the Hub's JSON tells of them."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

LFS_FROM = 1 << 20  # bytes; and every safetensors file
POINTER_SIZE = 135  # of the text that stands in git for a file in LFS


@dataclass(frozen=True)
class File:
    """One file of a commit."""

    path: str
    content: bytes

    @property
    def is_lfs(self) -> bool:
        return self.path.endswith(".safetensors") or len(self.content) >= LFS_FROM

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    @property
    def oid(self) -> str:
        """Its name in git."""
        return hashlib.sha1(b"blob %d\0" % len(self.content) + self.content, usedforsecurity=False).hexdigest()

    def sibling(self, *, blobs: bool) -> dict[str, Any]:
        """As model info lists it."""
        size = len(self.content)
        told: dict[str, Any] = {"rfilename": self.path}
        if blobs:
            told |= {"blobId": self.oid, "size": size}
        if blobs and self.is_lfs:
            told["lfs"] = {"sha256": self.sha256, "size": size, "pointerSize": POINTER_SIZE}
        return told

    def entry(self) -> dict[str, Any]:
        """As the tree lists it."""
        size = len(self.content)
        told: dict[str, Any] = {"type": "file", "oid": self.oid, "size": size, "path": self.path}
        if self.is_lfs:
            told["lfs"] = {"oid": self.sha256, "size": size, "pointerSize": POINTER_SIZE}
        return told


Commit = Mapping[str, File]


@dataclass
class Repository:
    """The commits of a repository, its branches and tags, and who may read it."""

    name: str
    commits: dict[str, Commit] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    gated: frozenset[str] | None = None  # tokens that may read its files; None: all
    private: frozenset[str] | None = None  # tokens that may see it at all

    def resolve(self, revision: str) -> str | None:
        """The commit of a branch, tag, ref or (short) commit."""
        known = {f"refs/heads/{name}": commit for name, commit in self.branches.items()} | self.tags | self.branches
        starts = [commit for commit in self.commits if len(revision) >= 7 and commit.startswith(revision)]
        return known.get(revision) or (starts[0] if starts else None)

    def add(self, files: Mapping[str, bytes]) -> str:
        """Store a commit."""
        digest = hashlib.sha1(f"{self.name} {len(self.commits)}".encode(), usedforsecurity=False)
        for path, content in sorted(files.items()):
            digest.update(f"{path} {len(content)} ".encode() + content)
        self.commits[digest.hexdigest()] = {path: File(path, files[path]) for path in sorted(files)}
        return digest.hexdigest()

    def info(self, commit: str, *, blobs: bool) -> dict[str, Any]:
        """The JSON of model info."""
        return {
            "_id": "0" * 24,
            "id": self.name,
            "modelId": self.name,
            "author": self.name.split("/")[0],
            "sha": commit,
            "private": self.private is not None,
            "gated": "auto" if self.gated is not None else False,
            "disabled": False,
            "downloads": 0,
            "likes": 0,
            "tags": ["safetensors"],
            "lastModified": "2024-01-01T00:00:00.000Z",
            "createdAt": "2024-01-01T00:00:00.000Z",
            "siblings": [file.sibling(blobs=blobs) for file in self.commits[commit].values()],
        }

    def tree(self, commit: str, folder: str, *, recursive: bool) -> list[dict[str, Any]] | None:
        """The JSON of the tree below a folder, sorted by path; None where there is no such folder."""
        start = f"{folder}/" if folder else ""
        below = {path: file for path, file in self.commits[commit].items() if path.startswith(start)}
        folders = {parent for path in below for parent in _parents(path) if parent.startswith(start)}
        entries = [file.entry() for file in below.values()] + [_folder(path) for path in folders]
        shown = [one for one in entries if recursive or "/" not in one["path"][len(start) :]]
        return sorted(shown, key=lambda one: one["path"]) if below or not folder else None

    def paths_info(self, commit: str, paths: list[str]) -> list[dict[str, Any]]:
        """The JSON of those paths that exist."""
        entries = {entry["path"]: entry for entry in self.tree(commit, "", recursive=True) or []}
        return [entries[path] for path in paths if path in entries]

    def refs(self) -> dict[str, Any]:
        """The JSON of branches and tags."""

        def told(kind: str, names: dict[str, str]) -> list[dict[str, str]]:
            return [{"name": n, "ref": f"refs/{kind}/{n}", "targetCommit": commit} for n, commit in names.items()]

        return {"branches": told("heads", self.branches), "tags": told("tags", self.tags), "converts": []}


def _parents(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[:count]) for count in range(1, len(parts))]


def _folder(path: str) -> dict[str, Any]:
    name = hashlib.sha1(path.encode(), usedforsecurity=False).hexdigest()
    return {"type": "directory", "oid": name, "size": 0, "path": path}


def read_files(source: Path | Mapping[str, bytes]) -> Mapping[str, bytes]:
    """The files of a folder, or those given."""
    if isinstance(source, Mapping):
        return source
    files = sorted(path for path in source.rglob("*") if path.is_file())
    return {path.relative_to(source).as_posix(): path.read_bytes() for path in files}
