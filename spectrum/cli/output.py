"""Results to stdout, everything else to stderr."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import TYPE_CHECKING

from spectrum.errors import one_line
from spectrum.scanning.progress import Progress

if TYPE_CHECKING:
    from rich.console import RenderableType

PIPE_WIDTH = 10_000  # rich would wrap a pipe's lines at 80 columns
LOG_SECONDS = 30
LONGEST_LINE = 380  # characters


def hint(text: str, *, quiet: bool = False) -> None:
    """A message for the user, on stderr."""
    if not quiet:
        print(short_line(text), file=sys.stderr)


def short_line(text: str) -> str:
    """A message on one line without its middle if it is long: it may quote a name or a foreign error of any length."""
    line = one_line(text)
    if len(line) <= LONGEST_LINE:
        return line
    return f"{line[: LONGEST_LINE // 2]} ... {line[-LONGEST_LINE // 2 :]}"  # the remedy stands at the end


def note(text: str, *, quiet: bool = False) -> None:
    """How something was done, on stderr."""
    hint(f"note: {text}", quiet=quiet)


def warn(text: str) -> None:
    """Something the user should know before relying on the result; `--quiet` does not hide it."""
    print(f"warning: {short_line(text)}", file=sys.stderr)


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
def progress(*, quiet: bool) -> Iterator[Callable[[Progress], None]]:
    """A function that shows the progress of a scan: a bar if stderr is a terminal, else a line every 30 seconds."""
    if quiet:
        yield lambda _state: None
    elif sys.stderr.isatty():
        with _bar() as show_state:
            yield show_state
    else:
        yield _log_lines()


@contextmanager
def _bar() -> Iterator[Callable[[Progress], None]]:
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn  # noqa: PLC0415
    from rich.progress import Progress as Bar  # noqa: PLC0415

    columns = (BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[text]}"))
    bar = Bar(*columns, console=Console(stderr=True), transient=True)
    task = bar.add_task("", text="")
    start = monotonic()

    def show_state(state: Progress) -> None:
        nonlocal start
        if not bar.live.is_started:
            start = monotonic()
            bar.start()
        text = _progress_text(state, monotonic() - start)
        bar.update(task, completed=state.done_cost, total=state.total_cost or None, text=text)
        if state.done == state.total:
            bar.stop()

    try:
        yield show_state
    finally:
        bar.stop()


def _log_lines() -> Callable[[Progress], None]:
    times: list[float] = []  # of the first call and of every line

    def show_state(state: Progress) -> None:
        now = monotonic()
        if times and now - times[-1] >= LOG_SECONDS:
            hint(_progress_text(state, now - times[0]))
            times.append(now)
        elif not times:
            times.append(now)

    return show_state


def _progress_text(state: Progress, elapsed: float) -> str:
    left = state.seconds_left(elapsed)
    return f"{state.done} of {state.total} matrices" + ("" if left is None else f", about {left:.0f} s left")
