"""The command group: one place turns errors into one line and an exit code."""

import io
import os
import sys
from collections.abc import Callable, Sequence
from typing import Annotated, Any, NoReturn, ParamSpec, TypeVar, cast

import typer
from typer.core import TyperArgument, TyperCommand, TyperGroup

from spectrum import __version__
from spectrum.cli.faults import fault_line
from spectrum.cli.groups import expanded
from spectrum.cli.moved import moved
from spectrum.cli.output import short_line
from spectrum.errors import SpectrumError

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

# typer has its own copy of click since 0.26 and depends on click before; its error classes are reached through typer.
_UsageError = cast("type[Exception]", typer.BadParameter.__mro__[1])

INTERRUPTED = 130
COMMANDS = ("scan", "select", "show", "diff", "budget", "check", "import", "bench")
PANELS = ("Arguments", "Model", "What is scored", "What is chosen", "Training", "Output", "Hub")
HELP_WIDTH = 100  # columns, in a terminal that has as many
INTERRUPTION = "interrupted. A scan carries on where it stopped when the same command is run again."


class SpectrumCommand(TyperCommand):
    """Prints its options in groups, and its example on one line that can be copied."""

    def format_options(self, ctx: typer.Context, formatter: Any) -> None:  # type: ignore[override]
        """Write a section for each panel, in the order of the first option of each."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                panel = "Arguments" if isinstance(parameter, TyperArgument) else "Other"
                sections.setdefault(getattr(parameter, "rich_help_panel", None) or panel, []).append(record)
        for title in sorted(sections, key=[*PANELS, *sections].index):
            with formatter.section(title):
                formatter.write_dl(sections[title])

    def format_epilog(self, ctx: typer.Context, formatter: Any) -> None:  # type: ignore[override]  # noqa: ARG002
        """Write the example."""
        if self.epilog:
            formatter.write(f"\nExample:\n  {self.epilog.removeprefix('Example: ')}\n")


class SpectrumGroup(TyperGroup):
    """Ends with exit code 0 done, 1 a clear error, 2 wrong usage, 130 interrupted, and one line on stderr."""

    def list_commands(self, ctx: typer.Context) -> list[str]:  # type: ignore[override]
        """The commands in the order in which they are used, not in that of the imports."""
        names = super().list_commands(ctx)
        return [name for name in COMMANDS if name in names] + [name for name in names if name not in COMMANDS]

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,  # noqa: ARG002  errors are always handled here
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        """Run a command line. `--debug`, anywhere in it, lets the traceback of an error through."""
        words = list(sys.argv[1:] if args is None else args)
        make_printable()
        debug = "--debug" in words
        try:
            code = super().main(
                [word for word in words if word != "--debug"],
                prog_name,
                complete_var,
                standalone_mode=False,
                windows_expand_args=windows_expand_args,
                **extra,
            )
        except SpectrumError as error:
            if debug:
                raise
            fail(str(error), 1)
        except _UsageError as error:
            fail(_usage(error, words), 2)
        except OSError as error:
            if debug:
                raise
            place = f"'{error.filename}'" if error.filename else "input or output"
            fail(f"{place}: {error.strerror or error}.", 1)
        except (ImportError, MemoryError, RuntimeError, SystemError) as error:
            line = fault_line(error)
            if debug or line is None:
                raise
            fail(line, 1)
        except (KeyboardInterrupt, typer.Abort):
            code = INTERRUPTED
        if code == INTERRUPTED:
            fail(INTERRUPTION, INTERRUPTED)
        leave(code if isinstance(code, int) else 0)


def fail(message: str, code: int) -> NoReturn:
    """Print an error as one line on stderr and leave."""
    print(f"spectrum: {short_line(message)}", file=sys.stderr)
    leave(code)


def leave(code: int) -> NoReturn:
    """End the process; one of several ranks without the interpreter's own tidying up.

    Seen in 1 of 14 jobs of three ranks on torch 2.13: a rank that was done aborted while its threads were torn down
    ("terminate called without an active exception"), and torchrun then killed the others.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def make_printable() -> None:
    """Let standard output and error take any name, whatever the locale; a closed one takes everything."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # `>&-`
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: PTH123, SIM115  open to the end
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _usage(error: Exception, words: Sequence[str]) -> str:
    """What is wrong with a command line, and where its help is or what to run instead."""
    context = getattr(error, "ctx", None)
    if context is not None and context.info_name == "scan" and hasattr(error, "option_name"):
        line = moved(error.option_name, words)
        if line is not None:
            return line
    help_command = f"{context.command_path if context else 'spectrum'} --help"
    return f"{_sentence(error.format_message())} Try '{help_command}'."  # type: ignore[attr-defined]


def _sentence(message: str) -> str:
    """A message of typer as a whole sentence: it leaves out the full stop, and says 'Value error, ' before choices."""
    text = message.replace(": Value error, ", ": ", 1).rstrip()
    return text if text.endswith((".", "?", "!")) else f"{text}."


app = typer.Typer(
    cls=SpectrumGroup,
    rich_markup_mode=None,  # rich would swallow [b]-like text, and costs start-up time
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def command(
    name: str | None = None, *, example: str
) -> Callable[[Callable[Arguments, Result]], Callable[Arguments, Result]]:
    """Register a command, whose groups of options are dataclasses, with one example to copy."""

    def register(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
        app.command(name, cls=SpectrumCommand, epilog=example, context_settings={"max_content_width": HELP_WIDTH})(
            expanded(function)
        )
        return function

    return register


@app.callback(invoke_without_command=True)
def spectrum(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and leave.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,  # noqa: ARG001
) -> None:
    """Choose which weight matrices of a language model to fine-tune.

    Spectrum reads a checkpoint, ranks the weight matrices of each module type by the signal-to-noise ratio of their
    singular values, and writes the list of parameters to leave unfrozen.

    Start with: spectrum scan --demo --top 25
    """
    if version:
        print(__version__)
    elif context.invoked_subcommand is None:
        print(context.get_help())
