"""What a Hub may do wrong, and the bytes of an answer that does it."""

import gzip
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from email.utils import formatdate
from fnmatch import fnmatchcase
from http import HTTPStatus

SINGLE_RANGE = re.compile(r"bytes=(\d*)-(\d*)")


@dataclass(frozen=True, kw_only=True)
class Effects:
    """What happens to one answer; by default nothing.

    Attributes:
        delay: seconds before the status line.
        bytes_per_second: pace of the body.
        hang: never answer; the connection stays open until the server stops.
        call: called before the answer is made, as to move a branch under a reader.
        status: answer this status instead, with a body that speaks of no file.
        retry_after: the header, in seconds, or as an HTTP-date when it is a text.
        reset_after: bytes of the body before the connection is reset.
        truncate: bytes of the body before the connection is closed; Content-Length promises them all.
        ignore_range: 200 and the whole file whatever range was asked for.
        shift: another range of the same length, this many bytes on (or, below zero, before), and saying so.
        shorten: a range that ends this many bytes early, and says so.
        lengthen: a body that goes on this many bytes after the range; Content-Range names the range asked for.
        total: the size of the file as Content-Range tells it.
        content_range: the whole header Content-Range; an empty one leaves it out.
        body: this body instead.
        corrupt: the first byte of the body is another.
        gzip: the body is compressed for a client that accepts it.
        headers: headers to add or replace; an empty one is left out.
    """

    delay: float = 0
    bytes_per_second: float = 0
    hang: bool = False
    call: Callable[[], object] | None = None
    status: int = 0
    retry_after: float | str | None = None
    reset_after: int | None = None
    truncate: int | None = None
    ignore_range: bool = False
    shift: int = 0
    shorten: int = 0
    lengthen: int = 0
    total: int | None = None
    content_range: str | None = None
    body: bytes | None = None
    corrupt: bool = False
    gzip: bool = False
    headers: tuple[tuple[str, str], ...] = ()


@dataclass
class Fault:
    """Effects on the requests that match, after the first few, for a number of times."""

    path: str
    method: str
    server: str | None
    after: int
    times: int | None
    effects: dict[str, object]
    seen: int = 0

    def strike(self, server: str, method: str, path: str) -> dict[str, object]:
        """Count a request that matches; what to do to it."""
        wanted = self.server in (None, server) and self.method in ("*", method) and fnmatchcase(path, self.path)
        if not wanted:
            return {}
        self.seen += 1
        due = self.seen > self.after and (self.times is None or self.seen <= self.after + self.times)
        return self.effects if due else {}


@dataclass(frozen=True)
class Reply:
    """An answer before it is sent; of a file a range may be asked for."""

    status: int
    headers: dict[str, str]
    body: bytes = b""
    is_file: bool = False


def http_date(seconds: float) -> str:
    """A moment as HTTP writes it."""
    return formatdate(seconds, usegmt=True)


def failure(effects: Effects) -> Reply:
    """The answer of a server in trouble."""
    headers = {"Content-Type": "text/plain"}
    if effects.retry_after is not None:
        headers["Retry-After"] = str(effects.retry_after)
    return Reply(effects.status, headers, HTTPStatus(effects.status).phrase.encode())


def asked_range(header: str | None, size: int) -> tuple[int, int] | None:
    """First byte and the one after the last; None for the whole file. Empty when nothing can be had."""
    match = SINGLE_RANGE.fullmatch(header.strip()) if header else None
    if match is None or match.groups() == ("", ""):
        return None
    first, last = match.groups()
    if first == "":
        return max(0, size - int(last)), size
    if last != "" and int(last) < int(first):
        return None
    return int(first), size if last == "" else min(int(last) + 1, size)


def ranged(reply: Reply, header: str | None, effects: Effects) -> Reply:
    """The part of a file that a request asks for, or what the fault makes of it."""
    size = len(reply.body)
    span = None if effects.ignore_range else asked_range(header, size)
    if span is None:
        return reply
    if span[0] >= span[1]:
        return Reply(416, reply.headers | {"Content-Range": f"bytes */{size}"}, b"")
    start, end = span[0] + effects.shift, span[1] + effects.shift - effects.shorten
    told = f"bytes {start}-{end - 1}/{size if effects.total is None else effects.total}"
    told = told if effects.content_range is None else effects.content_range
    body = (reply.body + bytes(abs(effects.shift) + effects.lengthen))[start : end + effects.lengthen]
    return replace(reply, status=206, headers=reply.headers | {"Content-Range": told}, body=body)


def damaged(reply: Reply, effects: Effects, accepted: str) -> Reply:
    """The answer with wrong bytes and headers, where the fault wants them."""
    body = bytes([reply.body[0] ^ 0xFF]) + reply.body[1:] if effects.corrupt and reply.body else reply.body
    body = body if effects.body is None else effects.body
    coded = effects.gzip and "gzip" in accepted
    headers = reply.headers | ({"Content-Encoding": "gzip"} if coded else {}) | dict(effects.headers)
    headers = {name: value for name, value in headers.items() if value}
    return replace(reply, headers=headers, body=gzip.compress(body) if coded else body)
