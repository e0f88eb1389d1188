"""Threads that fetch. A server that hangs holds up neither waiting callers nor the end of the process."""

from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from queue import SimpleQueue
from threading import Lock, Thread

from spectrum.errors import CheckpointError


class Workers:
    """A bounded number of daemon threads; those of a ThreadPoolExecutor are joined before the interpreter ends.

    Args:
        count: of threads; each is started when there is work for it.
        name: of the threads.
    """

    def __init__(self, count: int, name: str) -> None:
        """No thread yet."""
        self._count, self._name = count, name
        self._lock = Lock()
        self._calls: SimpleQueue[tuple[Future[None], Callable[[], None]] | None] = SimpleQueue()
        self._open: set[Future[None]] = set()
        self._threads = 0
        self._closed = False

    def submit(self, call: Callable[[], None]) -> "Future[None]":
        """Queue a call.

        Raises:
            CheckpointError: already closed.
        """
        future = Future[None]()
        with self._lock:
            if self._closed:
                raise _closed()
            self._open.add(future)
            if len(self._open) > self._threads < self._count:
                self._threads += 1
                Thread(target=self._work, name=f"{self._name}-{self._threads}", daemon=True).start()
        future.add_done_callback(self._forget)
        self._calls.put((future, call))
        return future

    def close(self) -> None:
        """Fail all unfinished calls now; each thread ends after its current call."""
        with self._lock:
            self._closed = True
            left = list(self._open)
        for future in left:
            with suppress(InvalidStateError):  # done a moment ago
                future.set_exception(_closed())
        for _ in range(self._threads):
            self._calls.put(None)

    def _forget(self, future: "Future[None]") -> None:
        with self._lock:
            self._open.discard(future)

    def _work(self) -> None:
        while (entry := self._calls.get()) is not None:
            future, call = entry
            if future.done():
                continue
            try:
                call()
            except BaseException as error:  # noqa: BLE001  it is raised by result()
                with suppress(InvalidStateError):
                    future.set_exception(error)
            else:
                with suppress(InvalidStateError):
                    future.set_result(None)


def _closed() -> CheckpointError:
    return CheckpointError("The checkpoint was closed while it was read.")
