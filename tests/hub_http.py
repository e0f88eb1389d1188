"""The two servers of the small Hub: sockets, threads, and answers sent whole, slowly or broken off."""

import json
import socket
import struct
import sys
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from hub_faults import Effects, Reply, damaged, failure, ranged
from hub_routes import answer_cdn, answer_hub

if TYPE_CHECKING:
    from hub_server import HubServer

PIECES_PER_SECOND = 50  # of a body that is paced


@dataclass
class Request:
    """One request as the server saw it; header names in lower case."""

    server: str  # "hub" or "cdn"
    method: str
    path: str  # unquoted, without the query
    query: str
    headers: dict[str, str]
    status: int = 0  # 0: not answered
    sent: int = 0  # bytes of the body

    @property
    def range(self) -> str | None:
        return self.headers.get("range")

    @property
    def authorization(self) -> str | None:
        return self.headers.get("authorization")


class Server(ThreadingHTTPServer):
    """One of the two: threads that are waited for when it stops, and connections that can be cut then."""

    daemon_threads = False
    request_queue_size = 128

    def __init__(self, owner: "HubServer", name: str) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.owner = owner
        self.name = name
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.open: set[socket.socket] = set()
        self.stopped = threading.Event()
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, name=name)
        self._thread.start()

    def stop(self) -> None:
        if self.stopped.is_set():
            return
        self.stopped.set()  # wakes the requests that wait or hang
        self.shutdown()
        self._thread.join()
        with self.owner.lock:
            left = list(self.open)
        for connection in left:
            _cut(connection)
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is no news; anything else is."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


def _cut(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:  # the other side was faster
        return


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else a small body waits 40 ms for the headers to be acknowledged
    server: Server

    def setup(self) -> None:
        super().setup()
        with self.server.owner.lock:
            self.server.open.add(self.connection)

    def finish(self) -> None:
        with self.server.owner.lock:
            self.server.open.discard(self.connection)
        super().finish()

    def log_message(self, *_: object) -> None:
        """Say nothing on stderr."""

    def do_GET(self) -> None:
        self._handle()

    def do_HEAD(self) -> None:
        self._handle()

    def do_POST(self) -> None:
        self._handle()

    def _handle(self) -> None:
        path, _, query = self.path.partition("?")
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Request(self.server.name, self.command, unquote(path), query, headers)
        content = self.rfile.read(int(headers.get("content-length", 0)))
        if path == "/api/agent-harnesses":  # asked in the background by some clients, once in a process
            self._send(
                Reply(200, {}, json.dumps({"standardEnvVars": [], "harnesses": {}}).encode()), request, Effects()
            )
            return
        effects = self.server.owner.begin(request)
        try:
            self._answer(request, path, content, effects)
        finally:
            self.server.owner.end(request)

    def _answer(self, request: Request, path: str, content: bytes, effects: Effects) -> None:
        stopped = self.server.stopped
        if effects.call is not None:
            effects.call()
        if effects.hang:
            self.close_connection = True
            stopped.wait()
            return
        stopped.wait(effects.delay)
        reply = failure(effects) if effects.status else self._route(request, path, content)
        if reply.is_file and self.command == "GET":
            reply = ranged(reply, request.range, effects)
        self._send(damaged(reply, effects, request.headers.get("accept-encoding", "")), request, effects)

    def _route(self, request: Request, path: str, content: bytes) -> Reply:
        with self.server.owner.lock:
            answer = answer_hub if self.server.name == "hub" else answer_cdn
            return answer(self.server.owner, request, path, content)

    def _send(self, reply: Reply, request: Request, effects: Effects) -> None:
        request.status = reply.status
        self.send_response(reply.status)
        for name, value in ({"Content-Length": str(len(reply.body))} | reply.headers).items():
            self.send_header(name, value)
        broken_at = effects.reset_after if effects.reset_after is not None else effects.truncate
        body = b"" if self.command == "HEAD" else reply.body[:broken_at]
        # A client that has everything may look at the log at once, or ask again: account first, send then.
        if not body:
            self.server.owner.end(request)
        self.end_headers()
        self._send_body(body, request, effects.bytes_per_second)
        if broken_at is not None:
            self._break(reset=effects.reset_after is not None)

    def _send_body(self, body: bytes, request: Request, pace: float) -> None:
        piece = max(1, int(pace / PIECES_PER_SECOND)) if pace else 1 << 16
        for start in range(0, len(body), piece):
            part = body[start : start + piece]
            if pace:
                self.server.stopped.wait(len(part) / pace)
            request.sent += len(part)
            if start + piece >= len(body):
                self.server.owner.end(request)
            self.wfile.write(part)

    def _break(self, *, reset: bool) -> None:
        self.close_connection = True
        if reset:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.rfile.close()  # it holds the socket open
            self.connection.close()
