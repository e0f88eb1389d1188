"""Results to stdout, everything else to stderr."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import TYPE_CHECKING, TypeAlias

from spectrum.errors import one_line

if TYPE_CHECKING:
    from rich.console import RenderableType

Advance: TypeAlias = Callable[[float, int], None]

PIPE_WIDTH = 10_000  # rich would wrap a pipe's lines at 80 columns
LOG_SECONDS = 30


def hint(text: str, *, quiet: bool = False) -> None:
    """A message for the user, on stderr."""
    if not quiet:
        print(one_line(text), file=sys.stderr)


def warn(text: str) -> None:
    """Something the user should know before relying on the result; `--quiet` does not hide it."""
    print(f"warning: {one_line(text)}", file=sys.stderr)


def show(renderable: "RenderableType") -> None:
    """A table on stdout: coloured in a terminal, plain text without trailing blanks in a pipe."""
    from rich.console import Console  # noqa: PLC0415  `select` starts without rich

    if sys.stdout.isatty():
        # As wide as it needs: a narrow terminal wraps the lines, where rich would cut the numbers off.
        needed = Console(width=PIPE_WIDTH).measure(renderable).maximum
        Console(width=max(needed, Console().width)).print(renderable)
        return
    console = Console(width=PIPE_WIDTH, color_system=None, force_terminal=False)
    with console.capture() as capture:
        console.print(renderable)
    print("\n".join(line.rstrip() for line in capture.get().splitlines()))


@contextmanager
def progress(total: float, count: int, *, quiet: bool) -> Iterator[Advance]:
    """Progress over work of known total cost; the yielded function is told the cost and number of matrices done.

    A bar with the time left where stderr is a terminal, else a line every 30 seconds.
    """
    if quiet:
        yield lambda _cost, _count: None
    elif sys.stderr.isatty():
        with _bar(total, count) as advance:
            yield advance
    else:
        yield _log_lines(total, count)


@contextmanager
def _bar(total: float, count: int) -> Iterator[Advance]:
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn  # noqa: PLC0415

    counter = TextColumn(f"{{task.fields[done]}} of {count} matrices")
    columns = (BarColumn(), TaskProgressColumn(), counter, TimeRemainingColumn(elapsed_when_finished=True))
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=total, done=0)
        done = 0

        def advance(cost: float, matrices: int) -> None:
            nonlocal done
            done += matrices
            bar.update(task, advance=cost, done=done)

        yield advance


def _log_lines(total: float, count: int) -> Advance:
    start = last = monotonic()
    done, spent = 0, 0.0

    def advance(cost: float, matrices: int) -> None:
        nonlocal last, done, spent
        done, spent, now = done + matrices, spent + cost, monotonic()
        if now - last >= LOG_SECONDS:
            last = now
            left = (now - start) * (total - spent) / spent
            hint(f"{done} of {count} matrices, about {left:.0f} s left")

    return advance
