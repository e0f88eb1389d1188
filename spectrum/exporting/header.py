"""What the text formats share: the comment lines at their top, and names as YAML takes them."""

import re
import shlex

from spectrum.errors import SelectionError
from spectrum.results.scan import Scan
from spectrum.selection import Selection

# What YAML 1.2 does not take for printable (section 5.1), and what breaks a line in it.
CONTROL = re.compile(r"[^\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")
# Nothing that YAML reads as a number, a flag or a mark of its own, and none of its specials: patterns between anchors,
# dotted names, single words with an underscore.
_PLAIN = re.compile(r"\^[A-Za-z0-9_.\-\[\]+]+\$|[A-Za-z][A-Za-z0-9_]*[._][A-Za-z0-9_.]*[A-Za-z0-9]")


def header(selection: Selection, scan: Scan, *, adapters: bool = False) -> list[str]:
    """Comment lines: what was chosen, from which model under which names, how much of it is trained.

    Programs read the choice back from the line `# options:`; the line above it is for people.

    Args:
        selection: what was chosen.
        scan: that it was chosen from.
        adapters: the selected modules get adapters.
    """
    model = scan.model
    exact = f"{model.model_class}, transformers {model.transformers}, {model.name_mapping}"
    names = exact if model.model_class else "as in the checkpoint"
    revision = f" @ {model.revision}" if model.revision else ""
    return [
        comment(f"Spectrum: {selection.description}"),
        comment(f"options: {shlex.join(selection.options)}"),
        comment(f"model: {model.id}{revision}   names: {names}"),
        comment(adapted_words(selection, scan) if adapters else trainable_words(selection, scan)),
    ]


def comment(text: str) -> str:
    """A comment line that stays one line, whatever names it quotes."""
    return f"# {CONTROL.sub('?', text)}"


def scalar(text: str) -> str:
    """A string as YAML reads it back: bare where that is safe, else single-quoted.

    Raises:
        SelectionError: a control character, which no quoting of one line carries.
    """
    refuse_control(text)
    return text if _PLAIN.fullmatch(text) else "'" + text.replace("'", "''") + "'"


def refuse_control(name: str) -> None:
    """Raise SelectionError for a name that could smuggle a second line into a file."""
    if CONTROL.search(name):
        raise SelectionError(
            f"The parameter name {name!r} holds a control character, which no pattern can express. "
            "Leave its module out with --exclude."
        )


def trainable_words(selection: Selection, scan: Scan) -> str:
    """How much is trained, in the words of PEFT's `print_trainable_parameters`."""
    trainable, total = selection.trainable, scan.model.parameters
    if trainable is None or not total:
        return "trainable params: unknown, because the scan does not hold shapes"
    return f"trainable params: {trainable:,} || all params: {total:,} || trainable%: {100 * trainable / total:.1f}"


def adapted_words(selection: Selection, scan: Scan) -> str:
    """How much of the model is in the modules that get adapters or are trained beside them."""
    trainable, total = selection.trainable, scan.model.parameters
    if trainable is None or not total:
        return "weights in the adapted modules: unknown, because the scan does not hold shapes"
    return f"weights in the adapted modules: {trainable:,} of {total:,} ({100 * trainable / total:.1f} %)"
