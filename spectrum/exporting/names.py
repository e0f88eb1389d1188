"""The selection for everything else: a list of names, or one regular expression."""

from spectrum.exporting.header import refuse_control
from spectrum.exporting.matching import anchored, confirm_expression, expanded, runtime_names
from spectrum.results.scan import Scan
from spectrum.selection import Selection


def to_names(selection: Selection, scan: Scan) -> str:
    """A parameter name per line, as `named_parameters()` has them, and nothing else.

    Raises:
        SelectionError: a name with a control character, which could pass for two.
    """
    names = expanded(selection.names, runtime_names(scan))
    for name in names:
        refuse_control(name)
    return "".join(f"{name}\n" for name in names)


def to_regex(selection: Selection, scan: Scan) -> str:
    """One anchored expression for Python's re: `search`, `match` and `fullmatch` find exactly the selection.

    Raises:
        SelectionError: it does not match exactly the selection.
    """
    return f"{selected_expression(selection, scan)}\n"


def selected_expression(selection: Selection, scan: Scan) -> str:
    """The anchored expression, matched back.

    Raises:
        SelectionError: it does not match exactly the selection, or a name has a control character.
    """
    for name in selection.names:
        refuse_control(name)
    text = anchored(selection.names)
    confirm_expression(text, selection, scan, runtime_names(scan))
    return text
