"""Reading ahead: one thread reads while the caller computes."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Read(Generic[T]):
    """A read to come.

    Attributes:
        size_bytes: what it will hold in memory.
        call: does it.
    """

    size_bytes: int
    call: Callable[[], T]


def read_ahead(reads: Iterable[Read[T]], *, largest_bytes: int | None = None) -> Generator[T, None, None]:
    """Results of the reads in order, each begun while the caller still works on the one before.

    At most one result waits besides the one in use. An error of a read is raised where its result would come.

    Args:
        reads: to do.
        largest_bytes: a larger read is not begun before its result is asked for; None for no limit.
    """
    pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="spectrum-read")
    waiting: deque[tuple[Read[T], Future[T] | None]] = deque()
    try:
        for read in reads:
            small = largest_bytes is None or read.size_bytes <= largest_bytes
            waiting.append((read, pool.submit(read.call) if small else None))
            if len(waiting) > 1:
                yield _result(*waiting.popleft())
        while waiting:
            yield _result(*waiting.popleft())
    finally:
        # Not waited for: a read from a server that hangs would hold up Ctrl-C. Closing the checkpoint ends it.
        pool.shutdown(wait=False, cancel_futures=True)


def _result(read: Read[T], future: Future[T] | None) -> T:
    return read.call() if future is None else future.result()
