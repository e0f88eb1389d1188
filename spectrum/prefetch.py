"""Reading ahead: one thread reads while the caller computes."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")

# A larger read waits until the one before it is used up, or both would be in memory: two down projections of an 8B
# model are 235 MB. A tall matrix comes in slices of 16 MiB.
LARGEST_AHEAD_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Read(Generic[T]):
    """A read to come.

    Attributes:
        size_bytes: what it will hold in memory.
        call: does it.
    """

    size_bytes: int
    call: Callable[[], T]


def read_ahead(reads: Iterable[Read[T]]) -> Generator[T, None, None]:
    """Results of the reads in order, each begun while the caller still works on the one before.

    At most one result waits besides the one in use. An error of a read is raised where its result would come.
    """
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="spectrum-read") as pool:
        waiting: deque[tuple[Read[T], Future[T] | None]] = deque()
        try:
            for read in reads:
                small = read.size_bytes <= LARGEST_AHEAD_BYTES
                waiting.append((read, pool.submit(read.call) if small else None))
                if len(waiting) > 1:
                    yield _result(*waiting.popleft())
            while waiting:
                yield _result(*waiting.popleft())
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _result(read: Read[T], future: Future[T] | None) -> T:
    return read.call() if future is None else future.result()
