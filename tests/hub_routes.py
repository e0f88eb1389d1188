"""Which answer the small Hub has for which address."""

import json
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, quote, unquote

from hub_faults import Reply
from hub_repos import Repository

if TYPE_CHECKING:
    from hub_http import Request
    from hub_server import HubServer

XML_403 = b'<?xml version="1.0"?><Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>'
XML_400 = b'<?xml version="1.0"?><Error><Code>InvalidArgument</Code><Message>Only one auth mechanism</Message></Error>'


class Refused(Exception):  # noqa: N818  # control flow, not a mistake
    """Carries the answer to a request that gets nothing."""

    def __init__(self, status: int, code: str | None, message: str, **headers: str) -> None:
        super().__init__(message)
        coded = {"X-Error-Code": code} if code else {}
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        self.reply = _json({"error": message}, status=status, headers=coded | {"X-Error-Message": message} | headers)


def _json(value: Any, *, status: int = HTTPStatus.OK, headers: dict[str, str] | None = None) -> Reply:
    head = {"Content-Type": "application/json; charset=utf-8"} | (headers or {})
    return Reply(status, head, json.dumps(value).encode())


def answer_hub(hub: "HubServer", request: "Request", path: str, content: bytes) -> Reply:
    """The Hub's answer to a request; `path` is still quoted, so that a slash in a revision is told from another."""
    try:
        token = _token(hub, request)
        parts = [unquote(part) for part in path.strip("/").split("/")]
        if parts == ["api", "whoami-v2"]:
            return _whoami(token)
        if parts[:3] == ["api", "resolve-cache", "models"] and len(parts) >= 7:
            repository = _repository(hub, parts[3:], token)
            return _resolve(hub, repository, parts[5], "/".join(parts[6:]), token, relayed=True)
        if parts[:2] == ["api", "models"] and len(parts) >= 4:
            return _api(hub, request, parts[2:], content, token)
        if len(parts) >= 5 and parts[2] == "resolve":
            return _resolve(hub, _repository(hub, parts, token), parts[3], "/".join(parts[4:]), token)
    except Refused as refused:
        return refused.reply
    return _json({"error": "Sorry, we can't find the page you are looking for."}, status=404)


def _token(hub: "HubServer", request: "Request") -> str | None:
    if request.authorization is None:
        return None
    token = request.authorization.removeprefix("Bearer ")
    if token not in hub.tokens:
        raise Refused(401, None, "Invalid credentials in Authorization header")
    return token


def _whoami(token: str | None) -> Reply:
    if token is None:
        raise Refused(401, None, "Invalid username or password.")
    return _json({"type": "user", "id": "1", "name": "reader", "fullname": "Reader", "orgs": [], "auth": {}})


def _repository(hub: "HubServer", parts: list[str], token: str | None) -> Repository:
    repository = hub.repositories.get("/".join(parts[:2]))
    if repository is None or (repository.private is not None and token not in repository.private):
        if token is None:
            raise Refused(401, "RepoNotFound", "Invalid username or password.")
        raise Refused(404, "RepoNotFound", "Repository not found")
    return repository


def _commit(repository: Repository, revision: str) -> str:
    commit = repository.resolve(revision)
    if commit is None:
        raise Refused(404, "RevisionNotFound", f"Invalid rev id: {revision}")
    return commit


def _api(hub: "HubServer", request: "Request", parts: list[str], content: bytes, token: str | None) -> Reply:
    repository = _repository(hub, parts, token)
    query = parse_qs(request.query)
    match parts[2:]:
        case [] | ["revision", _]:
            commit = _commit(repository, parts[3] if len(parts) > 3 else "main")
            return _json(repository.info(commit, blobs="blobs" in query))
        case ["refs"]:
            return _json(repository.refs())
        case ["tree", revision, *folder]:
            return _tree(hub, request, repository, _commit(repository, revision), "/".join(folder))
        case ["paths-info", revision]:
            asked = json.loads(content) if "json" in request.headers.get("content-type", "") else _form(content)
            return _json(repository.paths_info(_commit(repository, revision), asked["paths"]))
    raise Refused(404, None, "Sorry, we can't find the page you are looking for.")


def _form(content: bytes) -> dict[str, list[str]]:
    return {"paths": [], **parse_qs(content.decode())}


def _tree(hub: "HubServer", request: "Request", repository: Repository, commit: str, folder: str) -> Reply:
    query = parse_qs(request.query)
    recursive = query.get("recursive", ["false"])[0].lower() in ("true", "1")
    entries = repository.tree(commit, folder, recursive=recursive)
    if entries is None:
        raise Refused(404, "EntryNotFound", f'{folder} does not exist on "{commit}"')
    start = int(query.get("cursor", ["0"])[0])
    end = start + hub.page_size
    url = f"{hub.endpoint}/api/models/{repository.name}/tree/{commit}/{folder}".rstrip("/")
    following = f'<{url}?recursive={recursive}&cursor={end}>; rel="next"'
    return _json(entries[start:end], headers={"Link": following} if end < len(entries) else None)


def _resolve(
    hub: "HubServer", repository: Repository, revision: str, path: str, token: str | None, *, relayed: bool = False
) -> Reply:
    if repository.gated is not None and token not in repository.gated:
        told = f"Access to model {repository.name} is restricted"
        raise Refused(401 if token is None else 403, "GatedRepo", f"{told} and you are not in the authorized list.")
    commit = _commit(repository, revision)
    file = repository.commits[commit].get(path)
    if file is None:
        raise Refused(404, "EntryNotFound", "Entry not found", X_Repo_Commit=commit)
    common = {"X-Repo-Commit": commit, "Accept-Ranges": "bytes", "ETag": f'"{file.oid}"'}
    if not file.is_lfs and hub.relays and not relayed:
        linked = {"X-Linked-Size": str(len(file.content)), "X-Linked-ETag": f'"{file.oid}"'}
        location = f"/api/resolve-cache/models/{repository.name}/{commit}/{quote(path, safe='')}"
        return Reply(HTTPStatus.TEMPORARY_REDIRECT, common | linked | {"Location": location})
    if not file.is_lfs:
        return Reply(HTTPStatus.OK, common | {"Content-Type": "text/plain"}, file.content, is_file=True)
    location = hub.sign(f"/{repository.name}/{file.sha256}/{path}")
    linked = {"X-Linked-Size": str(len(file.content)), "X-Linked-ETag": f'"{file.sha256}"', "Location": location}
    return Reply(HTTPStatus.FOUND, common | linked, f"Found. Redirecting to {location}".encode())


def answer_cdn(hub: "HubServer", request: "Request", path: str, _content: bytes) -> Reply:
    """The second server's answer: it knows signed addresses, not tokens, and refuses both at once as S3 does."""
    if request.authorization is not None:
        return Reply(HTTPStatus.BAD_REQUEST, {"Content-Type": "application/xml"}, XML_400)
    signature = parse_qs(request.query).get("Signature", [""])[0]
    if not hub.admits(signature):
        return Reply(HTTPStatus.FORBIDDEN, {"Content-Type": "application/xml"}, XML_403)
    owner, name, sha256, *parts = (unquote(part) for part in path.strip("/").split("/"))
    for commit in hub.repositories[f"{owner}/{name}"].commits.values():
        file = commit.get("/".join(parts))
        if file is not None and file.sha256 == sha256:
            headers = {"Content-Type": "application/octet-stream", "Accept-Ranges": "bytes", "ETag": f'"{sha256}"'}
            return Reply(HTTPStatus.OK, headers, file.content, is_file=True)
    return Reply(HTTPStatus.FORBIDDEN, {"Content-Type": "application/xml"}, XML_403)
