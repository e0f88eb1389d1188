"""Reading ahead: one thread reads while the caller computes."""

from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Read(Generic[T]):
    """A read to come.

    Attributes:
        size_bytes: what its result takes in memory.
        call: does it.
    """

    size_bytes: int
    call: Callable[[], T]


class ReadAhead(Generic[T]):
    """Reads in the order in which they will be needed. Use it in a `with` statement.

    While the result of one is in use, the next `depth` are being read.
    """

    def __init__(self, reads: Iterable[Read[T]], *, largest_bytes: int | None = None, depth: int = 1) -> None:
        """Begin nothing yet.

        Args:
            reads: in order.
            largest_bytes: a larger read does not begin before its result is asked for; None for no limit.
            depth: how many results may wait besides the one in use.
        """
        self._left = deque(reads)
        self._ahead = set(self._left)
        self._started: dict[Read[T], Future[T]] = {}
        self._largest_bytes = largest_bytes
        self._depth = depth
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="spectrum-read")

    def get(self, read: Read[T]) -> T:
        """The result of a read, whose error is raised here. Reads before it that were not asked for are dropped.

        A read whose result was handed out or dropped before is done once more.
        """
        if read not in self._ahead:
            return read.call()
        self._start(read)
        while (first := self._left.popleft()) is not read:
            self._ahead.remove(first)
            self._started.pop(first, None)
        self._ahead.remove(read)
        for index in range(min(self._depth, len(self._left))):
            self._start(self._left[index])
        future = self._started.pop(read, None)
        return read.call() if future is None else future.result()

    def _start(self, read: Read[T]) -> None:
        small = self._largest_bytes is None or read.size_bytes <= self._largest_bytes
        if small and read not in self._started:
            self._started[read] = self._pool.submit(read.call)

    def __enter__(self) -> "ReadAhead[T]":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Not waited for: a read from a server that hangs would hold up Ctrl-C. Closing the checkpoint ends it.
        self._pool.shutdown(wait=False, cancel_futures=True)
