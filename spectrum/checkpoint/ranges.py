"""Byte ranges of files on the Hub, straight into memory: exactly the bytes asked for, or an error.

The client is huggingface_hub's own session (its proxies, certificates and limits hold here too); of its interface only
what versions 1 and 2 share is used. Its `http_stream_backoff` is not: it retries until the headers are there, while
here a connection may be reset after gigabytes, and what has arrived is kept.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from threading import Event
from typing import TYPE_CHECKING, Any

from spectrum.checkpoint.answers import Failed, busy, host, http_error, refused
from spectrum.checkpoint.workers import Workers
from spectrum.errors import CheckpointError, one_line

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

PART_BYTES = 8 * 2**20  # of one request: long beside its latency, short beside what a reset would cost
CONNECTIONS = 8  # at a time, as `snapshot_download` has them

TIMEOUT = 30.0  # seconds without a byte
FAILURES = 8  # in a row, before a read is given up: with the waits below, after four minutes without progress
FIRST_WAIT, LONGEST_WAIT = 1.0, 60.0  # seconds; doubled each time
LONGEST_RETRY_AFTER = 900.0  # seconds; a server that asks for more is not waited for
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
        notify: told in a sentence of every wait.
        closed: set when nobody wants the result any more.
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


class Ranges:
    """Reads byte ranges of remote files over a bounded number of connections. Close it.

    Args:
        files: name -> file.
        headers: sent to the Hub, authorization among them; never sent to where it redirects to.
        notify: told in a sentence of every wait.
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
        self._notify = notify
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
        """End what is under way, at once for who waits for it; waits between tries are cut short."""
        self._closed.set()
        self._workers.close()

    def _part(self, name: str, offset: int, buffer: memoryview) -> None:
        """Fill a part; a try that breaks off is taken up where it ended."""
        patience = Patience(self.files[name].url, notify=self._notify, closed=self._closed)
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
        left = stop - start
        location = self._locations.get(name)
        try:
            with self._request(location, name, start, stop) as response:
                if location and response.status_code in _STALE:
                    self._locations.pop(name, None)
                    raise Failed(f"{host(response)} answered {response.status_code} to an old address", wait=0.0)
                self._check(response, name, start, stop)
                for chunk in response.iter_raw():
                    left -= len(chunk)
                    if left < 0:
                        raise Failed(f"{host(response)} sent more bytes than were asked for")
                    if self._closed.is_set():
                        raise CheckpointError(f"'{self.files[name].url}' was closed while it was read.")
                    yield chunk
        except http_error() as error:
            raise Failed(f"the connection broke off ({one_line(str(error)) or type(error).__name__})") from error
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
        expected = f"bytes {start}-{stop - 1}/{size}"
        stated = response.headers.get("Content-Range")
        length = response.headers.get("Content-Length", str(stop - start))
        encoding = response.headers.get("Content-Encoding", "identity")
        if (status, stated, length, encoding) != (206, expected, str(stop - start), "identity"):
            raise Failed(
                f"{host(response)} answered {status} with {length} bytes, '{stated}', where '{expected}' was asked for"
            )
        if response.history:
            self._locations[name] = str(response.url)
