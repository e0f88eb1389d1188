"""Byte ranges of files on the Hub, straight into memory: exactly the bytes requested, or an error.

The client is huggingface_hub's own session, with its proxies and certificates. Its `http_stream_backoff` is not used:
it retries only until the headers arrive, while here a connection may be reset after gigabytes, and the bytes received
so far are kept.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from threading import Event, Lock
from time import monotonic
from typing import TYPE_CHECKING, Any

from spectrum.checkpoint.answers import Failed, broken, busy, host, http_error, refused
from spectrum.checkpoint.workers import Workers
from spectrum.errors import CheckpointError
from spectrum.untrusted import cut

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

PART_BYTES = 8 * 2**20  # of one request: long beside its latency, short beside what a reset would cost
CONNECTIONS = 8  # at a time, as `snapshot_download` has them

TIMEOUT = 30.0  # seconds without a byte
SLOWEST = 1024  # bytes a second of one connection; slower ones are closed after SLOW_SECONDS
SLOW_SECONDS = 30.0
FAILURES = 8  # in a row, before giving up: with the waits below, after four minutes without progress
FIRST_WAIT, LONGEST_WAIT = 1.0, 60.0  # seconds; doubled each time
LONGEST_RETRY_AFTER = 900.0  # seconds; if a server asks for more, give up
PROGRESS_BYTES = 2**20  # a try that brought as much does not count as a failure

_STALE = (401, 403, 404, 410)  # what a signed address answers when its time is over


@dataclass(frozen=True)
class RemoteFile:
    """One file of a repository at one commit.

    Attributes:
        url: on the Hub; it may redirect.
        size: in bytes.
        blob: its hash, as the Hub states it; None where it does not.
    """

    url: str
    size: int
    blob: str | None


class Patience:
    """Waits longer after each failure in a row, and gives up in the end.

    Args:
        place: what is being read, for messages.
        failures: in a row, at which it is given up.
        notify: called with a sentence before every wait.
        closed: set when the result is no longer wanted.
    """

    def __init__(
        self, place: str, *, failures: int = FAILURES, notify: Callable[[str], None], closed: Event | None = None
    ) -> None:
        """No failure yet."""
        self._place, self._most, self._notify = place, failures, notify
        self._closed = closed or Event()
        self._failures = 0

    def after(self, failure: Failed, *, progress: bool = False) -> None:
        """Wait before the next try; a try that made progress begins the count anew.

        Raises:
            CheckpointError: too many in a row, too long a wait asked for, or closed meanwhile.
        """
        if self._closed.is_set():
            raise self._abandoned()
        self._failures = 1 if progress else self._failures + 1
        seconds = min(LONGEST_WAIT, FIRST_WAIT * 2 ** (self._failures - 1)) if failure.wait is None else failure.wait
        if self._failures >= self._most or seconds > LONGEST_RETRY_AFTER:
            again = f" and asks to come back in {seconds:.0f} s" if seconds > LONGEST_RETRY_AFTER else ""
            raise CheckpointError(
                f"'{self._place}' cannot be read: {failure}{again}. "
                "Run the command again later; a scan carries on where it stopped."
            )
        self._notify(f"{failure}; trying again in {seconds:.0f} s.")
        if self._closed.wait(seconds):
            raise self._abandoned()

    def _abandoned(self) -> CheckpointError:
        return CheckpointError(f"'{self._place}' was closed while it was read.")


class Pace:
    """Notices a server that sends so slowly that waiting for it makes no sense."""

    def __init__(self) -> None:
        """The clock starts."""
        self._since, self._bytes = monotonic(), 0

    def count(self, size: int, response: Any) -> None:
        """Count bytes that arrived.

        Raises:
            Failed: fewer than SLOWEST bytes a second over the last SLOW_SECONDS.
        """
        self._bytes += size
        seconds = monotonic() - self._since
        if seconds < SLOW_SECONDS:
            return
        if self._bytes < SLOWEST * seconds:
            raise Failed(f"{host(response)} sends only {self._bytes / seconds:.0f} bytes a second")
        self._since, self._bytes = monotonic(), 0


class Ranges:
    """Reads byte ranges of remote files over a bounded number of connections. Close it.

    Args:
        files: name -> file.
        headers: sent to the Hub, authorization among them; never sent to where it redirects to.
        notify: called with a sentence before every wait, by one thread at a time.
    """

    def __init__(
        self,
        files: Mapping[str, RemoteFile],
        headers: Mapping[str, str],
        *,
        notify: Callable[[str], None] = lambda _message: None,
    ) -> None:
        """Nothing is asked for yet."""
        self.files = dict(files)
        self._headers = dict(headers)
        self._notify, self._notifying = notify, Lock()
        self._closed = Event()
        self._locations: dict[str, str] = {}  # where the Hub last redirected to: half as many requests to it
        self._workers = Workers(CONNECTIONS, "spectrum-fetch")

    def read(self, name: str, offset: int, buffer: memoryview) -> None:
        """Fill a buffer from a file; may be called from several threads.

        Raises:
            CheckpointError: the file cannot be had, or the server does not send the bytes asked for.
        """
        size = self.files[name].size
        if offset + len(buffer) > size:
            raise CheckpointError(f"'{self.files[name].url}' has {size} bytes, not {offset + len(buffer)}.")
        starts = range(0, len(buffer), PART_BYTES)
        parts = [
            self._workers.submit(partial(self._part, name, offset + at, buffer[at : at + PART_BYTES])) for at in starts
        ]
        try:
            for part in parts:
                part.result()
        finally:
            for part in parts:
                part.cancel()

    def read_small(self, name: str, *, most: int) -> bytes:
        """A whole small file.

        Raises:
            CheckpointError: it is larger than `most` bytes; as `read`.
        """
        file = self.files[name]
        if file.size > most:
            raise CheckpointError(f"'{file.url}' has {file.size} bytes; no more than {most} are expected of it.")
        content = bytearray(file.size)
        self.read(name, 0, memoryview(content))
        return bytes(content)

    def close(self) -> None:
        """Abort transfers; waiting callers fail at once."""
        self._closed.set()
        self._workers.close()

    def _tell(self, text: str) -> None:
        with self._notifying:
            self._notify(text)

    def _part(self, name: str, offset: int, buffer: memoryview) -> None:
        """Fill a part; a try that breaks off is taken up where it ended."""
        patience = Patience(self.files[name].url, notify=self._tell, closed=self._closed)
        done = 0
        while done < len(buffer):
            before = done
            try:
                for chunk in self._chunks(name, offset + done, offset + len(buffer)):
                    buffer[done : done + len(chunk)] = chunk
                    done += len(chunk)
            except Failed as failure:
                patience.after(failure, progress=done - before >= PROGRESS_BYTES)

    def _chunks(self, name: str, start: int, stop: int) -> Iterator[bytes]:
        """Bytes `start` to `stop` as they arrive, never one more.

        Raises:
            Failed: it broke off, or the answer is not the range asked for.
        """
        left, pace = stop - start, Pace()
        location = self._locations.get(name)
        try:
            with self._request(location, name, start, stop) as response:
                if location and response.status_code in _STALE:
                    self._locations.pop(name, None)
                    raise Failed(f"{host(response)} answered {response.status_code} to an old address", wait=0.0)
                self._check(response, name, start, stop)
                for chunk in response.iter_raw():
                    left -= len(chunk)
                    pace.count(len(chunk), response)
                    if left < 0:
                        raise Failed(f"{host(response)} sent more bytes than were asked for")
                    if self._closed.is_set():
                        raise CheckpointError(f"'{self.files[name].url}' was closed while it was read.")
                    yield chunk
        except http_error() as error:
            raise broken(error, self.files[name].url) from error
        if left:
            raise Failed(f"an answer was {left} bytes short")

    def _request(self, location: str | None, name: str, start: int, stop: int) -> "AbstractContextManager[Any]":
        from huggingface_hub import get_session  # noqa: PLC0415  not wanted where nothing is remote

        asked = {"Range": f"bytes={start}-{stop - 1}", "Accept-Encoding": "identity"}
        url, headers = (location, asked) if location else (self.files[name].url, self._headers | asked)
        stream: AbstractContextManager[Any] = get_session().stream(
            "GET", url, headers=headers, timeout=TIMEOUT, follow_redirects=True
        )
        return stream

    def _check(self, response: Any, name: str, start: int, stop: int) -> None:
        """Raise unless the answer is exactly the range asked for."""
        status, size = response.status_code, self.files[name].size
        if failure := busy(response):
            raise failure
        if status >= 400:
            raise refused(response, self.files[name].url)
        encoding = response.headers.get("Content-Encoding", "identity")
        if status != 206 or encoding != "identity":
            what = "the whole file" if status == 200 else "no part of the file"
            what = what if encoding == "identity" else f"an answer in the encoding '{cut(encoding)}'"
            raise CheckpointError(
                f"'{self.files[name].url}' cannot be read by byte range: {host(response)} answered {status} with "
                f"{what}. Look for a proxy between, or download the model first."
            )
        expected = f"bytes {start}-{stop - 1}/{size}"
        stated = response.headers.get("Content-Range", "no Content-Range")
        length = response.headers.get("Content-Length", str(stop - start))
        if (stated, length) != (expected, str(stop - start)):
            raise Failed(f"{host(response)} answered with {cut(length)} bytes, '{cut(stated)}' instead of '{expected}'")
        if response.history:
            self._locations[name] = str(response.url)
