"""Each fault of the small Hub does what it says; seen without a client's help."""

import gzip
import http.client
import socket
import threading
import time
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

import pytest
from hub_faults import http_date
from hub_server import HubServer

REPO = "acme/tiny"
WEIGHTS = bytes(range(200))
PLAIN = f"/{REPO}/resolve/main/plain.bin"


@pytest.fixture
def server():
    with HubServer() as started:
        started.push(REPO, {"plain.bin": WEIGHTS, "model.safetensors": WEIGHTS})
        yield started


def ask(url, *, method="GET", asked=None, token=None, headers=None):
    """(status, headers, body) of one request, redirects not followed."""
    address = urlsplit(url)
    connection = http.client.HTTPConnection(address.netloc, timeout=5)
    sent = {"Range": asked} if asked else {}
    try:
        connection.request(
            method,
            f"{address.path}?{address.query}",
            headers=sent | ({"Authorization": f"Bearer {token}"} if token else {}) | (headers or {}),
        )
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read()
    finally:
        connection.close()


def part(server, asked="bytes=10-19"):
    """(status, Content-Range, body) of a range of the plain file."""
    status, headers, body = ask(server.endpoint + PLAIN, asked=asked)
    return status, headers.get("Content-Range"), body


def redirect(server, **options):
    """Where the large file is now."""
    status, headers, _ = ask(f"{server.endpoint}/{REPO}/resolve/main/model.safetensors", **options)
    assert status == 302
    return headers["Location"]


@pytest.mark.parametrize(
    "asked, told, body",
    [
        ("bytes=10-19", "bytes 10-19/200", WEIGHTS[10:20]),
        ("bytes=0-0", "bytes 0-0/200", WEIGHTS[:1]),
        ("bytes=190-", "bytes 190-199/200", WEIGHTS[190:]),
        ("bytes=-3", "bytes 197-199/200", WEIGHTS[197:]),
        ("bytes=-500", "bytes 0-199/200", WEIGHTS),
        ("bytes=150-900", "bytes 150-199/200", WEIGHTS[150:]),
    ],
)
def test_ranges(server, asked, told, body):
    """A range gives its bytes and says which they are, from either server."""
    assert part(server, asked) == (206, told, body)
    status, headers, content = ask(redirect(server), asked=asked)
    assert (status, headers["Content-Range"], content) == (206, told, body)
    assert server.requests[0].range == asked
    assert server.requests[0].sent == len(body)


@pytest.mark.parametrize("asked", ["bytes=200-", "bytes=-0", "bytes=900-901"])
def test_unsatisfiable_ranges(server, asked):
    """A range that holds no byte of the file is refused, with the file's size."""
    assert part(server, asked) == (416, "bytes */200", b"")


@pytest.mark.parametrize("asked", ["bytes=9-8", "bytes=-", "bytes=0-1,4-5", "lines=1-2"])
def test_meaningless_ranges(server, asked):
    """What is no single range is answered as if it were not there."""
    assert part(server, asked) == (200, None, WEIGHTS)


def test_head_and_redirect(server):
    """HEAD tells of a file what GET would; a large one is told of by the redirect."""
    status, headers, body = ask(server.endpoint + PLAIN, method="HEAD")
    assert (status, headers["Content-Length"], headers["Accept-Ranges"], body) == (200, "200", "bytes", b"")
    status, headers, body = ask(f"{server.endpoint}/{REPO}/resolve/main/model.safetensors", method="HEAD")
    assert (status, headers["X-Linked-Size"], body) == (302, "200", b"")
    assert headers["Location"].startswith(server.cdn)


def test_keep_alive(server):
    """A connection serves one request after another."""
    connection = http.client.HTTPConnection(urlsplit(server.endpoint).netloc, timeout=5)
    ports = set()
    for _ in range(3):
        connection.request("GET", PLAIN)
        assert connection.getresponse().read() == WEIGHTS
        ports.add(connection.sock.getsockname())
    connection.close()
    assert len(ports) == 1


def test_delay(server):
    """The answer waits, and goes out whole."""
    server.fault(delay=0.2)
    started = time.monotonic()
    assert part(server)[0] == 206
    assert time.monotonic() - started >= 0.2


def test_pace(server):
    """The body comes at so many bytes a second."""
    server.fault(bytes_per_second=1000)
    started = time.monotonic()
    assert ask(server.endpoint + PLAIN)[2] == WEIGHTS
    assert 0.15 <= time.monotonic() - started < 2


def test_reset(server):
    """The connection is reset amid the body."""
    server.fault("*/plain.bin", reset_after=50)
    with pytest.raises(ConnectionResetError):
        ask(server.endpoint + PLAIN)
    assert server.requests[0].sent == 50


def test_truncate(server):
    """The connection is closed before all is there that Content-Length promised."""
    server.fault(truncate=50)
    with pytest.raises(http.client.IncompleteRead) as error:
        ask(server.endpoint + PLAIN)
    assert (error.value.partial, error.value.expected) == (WEIGHTS[:50], 150)


@pytest.mark.parametrize(
    "effects, seen",
    [
        ({"ignore_range": True}, (200, None, WEIGHTS)),
        ({"shift": 5}, (206, "bytes 15-24/200", WEIGHTS[15:25])),
        ({"shift": -5}, (206, "bytes 5-14/200", WEIGHTS[5:15])),
        ({"shorten": 4}, (206, "bytes 10-15/200", WEIGHTS[10:16])),
        ({"lengthen": 4}, (206, "bytes 10-19/200", WEIGHTS[10:24])),
        ({"total": 999}, (206, "bytes 10-19/999", WEIGHTS[10:20])),
        ({"content_range": "bytes 0-9/200"}, (206, "bytes 0-9/200", WEIGHTS[10:20])),
        ({"content_range": ""}, (206, None, WEIGHTS[10:20])),
        ({"shorten": 4, "content_range": "bytes 10-19/200"}, (206, "bytes 10-19/200", WEIGHTS[10:16])),
        ({"corrupt": True}, (206, "bytes 10-19/200", b"\xf5" + WEIGHTS[11:20])),
    ],
)
def test_wrong_ranges(server, effects, seen):
    """Ranges that are not those asked for, honest about it or not; the length is always that of the body."""
    server.fault(**effects)
    assert part(server) == seen


def test_lengthen_past_the_end(server):
    """A body can go on where the file ends."""
    server.fault(lengthen=3)
    assert part(server, "bytes=198-") == (206, "bytes 198-199/200", b"\xc6\xc7\0\0\0")


def test_burst(server):
    """Errors come after some requests, so often, each in its turn; a later fault wins where two meet."""
    server.fault("*/plain.bin", after=1, times=1, status=500)
    server.fault("*/plain.bin", after=2, times=2, status=503)
    server.fault("*/other.bin", status=502)
    assert [part(server)[0] for _ in range(5)] == [206, 500, 503, 503, 206]


def test_retry_after(server):
    """Too many requests: a number of seconds, or a date."""
    moment = 1_800_000_000
    server.fault(times=1, status=429, retry_after=3)
    server.fault(after=1, times=1, status=429, retry_after=http_date(moment))
    answers = [ask(server.endpoint + PLAIN) for _ in range(3)]
    assert [status for status, _, _ in answers] == [429, 429, 200]
    assert answers[0][1]["Retry-After"] == "3"
    assert parsedate_to_datetime(answers[1][1]["Retry-After"]).timestamp() == moment


def test_method_and_server(server):
    """A fault may be kept to one method and one server."""
    server.fault(method="HEAD", status=500)
    server.fault("*/model.safetensors", server="cdn", status=502)
    assert ask(server.endpoint + PLAIN, method="HEAD")[0] == 500
    assert part(server)[0] == 206
    assert ask(redirect(server))[0] == 502
    server.heal()
    assert ask(redirect(server))[0] == 200


def test_gzip(server):
    """A body is compressed for those who accept that, and for no one else."""
    server.fault(gzip=True)
    assert part(server) == (206, "bytes 10-19/200", WEIGHTS[10:20])
    status, headers, body = ask(server.endpoint + PLAIN, asked="bytes=10-19", headers={"Accept-Encoding": "gzip, br"})
    assert (status, headers["Content-Encoding"], gzip.decompress(body)) == (206, "gzip", WEIGHTS[10:20])


def test_headers(server):
    """Headers are added, replaced and left out."""
    server.fault(headers=(("ETag", '"other"'), ("Accept-Ranges", ""), ("Connection", "close")))
    headers = ask(server.endpoint + PLAIN)[1]
    assert (headers["ETag"], headers["Connection"], "Accept-Ranges" in headers) == ('"other"', "close", False)


def test_unknown_effect(server):
    """A misspelt effect does not pass for no fault."""
    with pytest.raises(TypeError, match="bytes_per_minute"):
        server.fault(bytes_per_minute=1)


def test_moving_branch(server):
    """The branch moves under the reader's hands; the old commit can still be read."""
    before = ask(server.endpoint + PLAIN)[1]["X-Repo-Commit"]
    later = server.push(REPO, {"plain.bin": b"new"}, revision=None)
    server.fault("*/resolve/main/*", after=2, times=1, call=lambda: server.point(REPO, "main", later))
    bodies = [ask(server.endpoint + PLAIN)[2] for _ in range(4)]
    assert bodies == [WEIGHTS, WEIGHTS, b"new", b"new"]
    assert ask(server.endpoint + PLAIN.replace("main", before))[2] == WEIGHTS


def test_hang(server):
    """The server takes the request and says nothing; closing it ends the wait."""
    server.fault(hang=True)
    connection = http.client.HTTPConnection(urlsplit(server.endpoint).netloc, timeout=0.1)
    connection.request("GET", PLAIN)
    with pytest.raises(TimeoutError):
        connection.getresponse()
    started = time.monotonic()
    server.stop("hub")
    assert time.monotonic() - started < 2
    connection.close()
    assert [request.status for request in server.requests] == [0]


def test_expired_links(server):
    """A signed address serves so often and so long; another redirect gives one that does."""
    server.expire_links(requests=2)
    link = redirect(server)
    assert [ask(link)[0] for _ in range(3)] == [200, 200, 403]
    assert ask(redirect(server))[0] == 200
    server.expire_links(seconds=0.05)
    link = redirect(server)
    time.sleep(0.1)
    assert ask(link)[0] == 403
    assert ask(link.replace("Signature=", "Signature=f"))[0] == 403


def test_token_at_the_second_server(server):
    """A token that is taken along is refused and remembered."""
    assert ask(redirect(server), token="hf_reader")[0] == 400  # noqa: S106  # of no one
    assert [request.authorization for request in server.violations] == ["Bearer hf_reader"]


def test_stop(server):
    """A stopped server refuses connections; the other goes on."""
    link = redirect(server)
    server.stop("cdn")
    with pytest.raises(ConnectionRefusedError):
        ask(link)
    assert part(server)[0] == 206


def test_stop_cuts_connections(server):
    """Stopping ends a body that is under way, and leaves no thread behind."""
    server.fault(bytes_per_second=1)
    client = socket.create_connection(urlsplit(server.endpoint).netloc.split(":"), timeout=5)
    client.sendall(f"GET {PLAIN} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    assert client.recv(10).startswith(b"HTTP/1.1 2")
    server.close()
    while client.recv(1000):
        pass
    client.close()
    assert not [thread for thread in threading.enumerate() if "process_request_thread" in thread.name]


def test_peak(server):
    """The most requests at once, on one server and on both."""
    server.fault("*/plain.bin", delay=0.3)
    threads = [threading.Thread(target=part, args=(server,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (server.peak("hub"), server.peak("cdn"), server.peak()) == (4, 0, 4)
    server.forget()
    server.heal()
    assert [part(server)[0] for _ in range(3)] == [206] * 3
    assert (server.peak(), len(server.requests)) == (1, 3)


def test_environment(server, monkeypatch, tmp_path):
    """A program is given this Hub, and nothing that leads elsewhere."""
    for name in ("HF_TOKEN", "HF_HUB_OFFLINE", "https_proxy", "HTTP_PROXY", "HUGGINGFACE_HUB_CACHE"):
        monkeypatch.setenv(name, "1")
    given = server.environment(tmp_path)
    assert given["HF_ENDPOINT"] == server.endpoint
    assert given["HF_HOME"] == str(tmp_path)
    assert not {"HF_TOKEN", "HF_HUB_OFFLINE", "https_proxy", "HTTP_PROXY", "HUGGINGFACE_HUB_CACHE"} & set(given)
    assert server.environment(tmp_path, token="hf_reader")["HF_TOKEN"] == "hf_reader"  # noqa: S105, S106  # of no one
