"""Write the reference pages that follow from the code: python docs/generate.py."""

import inspect
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import typer

import spectrum
from spectrum.checking import RULES
from spectrum.cli.commands import app

REFERENCE = Path(__file__).parent / "reference"
LONGEST_SIGNATURE = 100  # characters
NOTE = "<!-- Written by docs/generate.py. Do not edit; change the code and run it again. -->"


def commands() -> str:
    """Every command with its options, in the groups of its help."""
    group: Any = typer.main.get_command(app)
    context = typer.Context(group, info_name="spectrum")
    sections = [_command(name, group.commands[name]) for name in group.list_commands(context)]
    intro = (
        "Results go to standard output; progress, hints and warnings go to standard error. There are no prompts.\n"
        "Exit codes: 0 done, 1 an error in one line or a failed check, 2 wrong usage, 130 interrupted.\n"
        "`--debug` shows the traceback of an error."
    )
    return "\n\n".join([f"# Commands\n\n{NOTE}", intro, *sections]) + "\n"


def _command(name: str, command: Any) -> str:
    context = typer.Context(command, info_name=name)
    parts = [f"## spectrum {name}", _plain(inspect.cleandoc(command.help))]
    for title, members in _panels(command.params).items():
        parts += [f"**{title}**"] if title else []
        parts.append(_table(_cells(*param.get_help_record(context)) for param in members))
    if command.epilog:
        parts.append(f"Example: `{command.epilog.removeprefix('Example: ')}`")
    return "\n\n".join(parts)


def _panels(params: Iterable[Any]) -> dict[str | None, list[Any]]:
    panels: dict[str | None, list[Any]] = {}
    for param in params:
        if not getattr(param, "hidden", False):
            panels.setdefault(getattr(param, "rich_help_panel", None), []).append(param)
    return panels


def _cells(names: str, text: str) -> tuple[str, str]:
    """Choices move from the names to the text: a bar in code breaks a table on GitHub."""
    choices = re.search(r" [<\[{]([\w-]+(?:\|[\w-]+)+)[>\]}]", names)
    if choices is None:
        return f"`{names}`", text
    listed = ", ".join(f"`{choice}`" for choice in choices[1].split("|"))
    sentence, default, rest = text.partition("  [default: ")
    return f"`{names.replace(choices[0], '')}`", f"{sentence} One of {listed}.{default}{rest}"


def _table(rows: Iterable[tuple[str, str]]) -> str:
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {_cell(text)} |" for name, text in rows)])


def _cell(text: str) -> str:
    return _plain(re.sub(r"\s+", " ", text)).replace("|", "\\|")


def _plain(text: str) -> str:
    """Text in which `<model>` is not an HTML tag and `mlp.*` is not emphasis."""
    return text.replace("<", "&lt;").replace("*", "\\*")


def findings() -> str:
    """Every finding of `spectrum check`."""
    intro = (
        "What [`spectrum check`](../guides/ci.md) can find. An error makes the exit code 1; so does a warning with\n"
        "`--strict`. The meaning of a code never changes."
    )
    rows = [f"| {rule.code} | {rule.severity} | {_cell(rule.what)} |" for rule in RULES]
    table = "\n".join(["| code | severity | finding |", "|---|---|---|", *rows])
    return f"# Findings of check\n\n{NOTE}\n\n{intro}\n\n{table}\n"


def api() -> str:
    """Every public name with its signature and docstring."""
    intro = (
        "The public names; import each from `spectrum`. [Python in examples](python.md) shows how they work together.\n"
        "The [changelog](../changelog.md) says what is promised about them."
    )
    names = [name for name in spectrum.__all__ if name != "__version__"]
    return "\n\n".join([f"# Python API\n\n{NOTE}", intro, *map(_name, names)]) + "\n"


def _name(name: str) -> str:
    value = getattr(spectrum, name)
    text = inspect.cleandoc(value.__doc__ or "")
    head, *sections = re.split(r"\n\n(?=(?:Args|Returns|Raises|Attributes|Yields|Source):)", text)
    parts = [f"## {name}", f"```python\n{_signature(name, value)}\n```", head, *map(_section, sections)]
    return "\n\n".join(parts)


def _signature(name: str, value: Any) -> str:
    if inspect.isclass(value) and issubclass(value, Exception):
        return f"class {name}(Exception)"
    signature = inspect.signature(value)
    prefix = "class " if inspect.isclass(value) else ""
    parameters = [_short(str(each)) for each in signature.parameters.values()]
    kinds = [each.kind for each in signature.parameters.values()]
    if inspect.Parameter.KEYWORD_ONLY in kinds and inspect.Parameter.VAR_POSITIONAL not in kinds:
        parameters.insert(kinds.index(inspect.Parameter.KEYWORD_ONLY), "*")
    result = inspect.formatannotation(signature.return_annotation).strip("'")
    end = "" if prefix or signature.return_annotation is signature.empty else f" -> {_short(result)}"
    line = f"{prefix}{name}({', '.join(parameters)}){end}"
    if len(line) <= LONGEST_SIGNATURE:
        return line
    body = "".join(f"    {each},\n" for each in parameters)
    return f"{prefix}{name}(\n{body}){end}"


def _short(text: str) -> str:
    """Without the modules of types, and without addresses of functions that are defaults."""
    text = re.sub(r"<(?:function|class|object)[^>]*>+(?: at \w+>)?", "...", text)
    text = re.sub(r"numpy\.ndarray\[tuple\[.*?\], numpy\.dtype\[numpy\.float64\]\]", "Array", text)
    return re.sub(r"(?:\b[a-z_]\w*\.)+(?=[A-Z])", "", text)


def _section(text: str) -> str:
    """'Args:' and the like as a list, an item for each line that begins at the first indentation."""
    title, _, body = text.partition(":\n")
    items = re.split(r"\n(?=\S)", inspect.cleandoc(body))
    lines = [re.sub(r"\s+", " ", item) for item in items]
    if title in {"Args", "Attributes", "Raises"}:
        lines = [re.sub(r"^([\w*]+)(?: \([^)]*\))?: ", r"`\1`: ", line) for line in lines]
        return f"**{title}**\n\n" + "\n".join(f"- {line}" for line in lines)
    return f"**{title}**\n\n" + "\n".join(lines)


PAGES = {"commands.md": commands, "findings.md": findings, "api.md": api}

if __name__ == "__main__":
    for page, text in PAGES.items():
        (REFERENCE / page).write_text(text())
