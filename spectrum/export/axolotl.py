"""`unfrozen_parameters` for Axolotl.

How Axolotl reads it (axolotl 0.19.0, utils/freeze.py): a final `[a:b]` is a range of rows; every dot that no `+`
follows is escaped; the pattern is matched from the start of the parameter's name. So the dots of a name are left
bare (an escaped one would match a backslash) and everything else that means something to `re` is escaped.
"""

import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence

from spectrum.errors import SelectionError
from spectrum.naming import natural_key
from spectrum.results.scan import ParameterScore, Scan
from spectrum.selection import Group, Selection, rank

_PLAIN = re.compile(r"\^[A-Za-z0-9_.\-\[\]+]+\$")
_SPECIAL = re.compile(r"[\\^$*+?{}\[\]|()]")
# What YAML 1.2 does not take for printable (section 5.1), and what breaks a line in it.
_CONTROL = re.compile(r"[^\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")
_ANY_EXPERT = "[0-9]+"


def to_axolotl(selection: Selection, scan: Scan) -> str:
    """The selection as YAML to paste into an Axolotl config.

    Raises:
        SelectionError: a name that no pattern can express, or patterns that do not match exactly the selection.
    """
    check_patterns([pattern(name) for name in selection.names], selection, scan)
    return "\n".join([*_header(selection, scan), "unfrozen_parameters:", *_body(selection)]) + "\n"


def pattern(name: str) -> str:
    """The anchored pattern that matches this parameter only; `*` in a name stands for every expert's number.

    Raises:
        SelectionError: the name holds a control character.
    """
    if _CONTROL.search(name):
        raise SelectionError(
            f"The parameter name {name!r} holds a control character, which no pattern can express. "
            "Leave its module out with --exclude."
        )
    escaped = [_SPECIAL.sub(r"\\\g<0>", part) for part in name.split("*")]
    return f"^{_ANY_EXPERT.join(escaped)}$"


def compile_as_axolotl(text: str) -> re.Pattern[str]:
    """The regular expression that Axolotl makes of a pattern, for matching from the start of a name."""
    without_rows = re.sub(r"(?<=.)\[[0-9]*(:[0-9]*)?\]$", "", text)
    return re.compile(re.sub(r"\.(?!\+)", r"\\.", without_rows))


def check_patterns(patterns: Sequence[str], selection: Selection, scan: Scan) -> None:
    """Match the patterns back, as Axolotl does, against all parameters of the model.

    Raises:
        SelectionError: they match something else than the selection.
    """
    members = runtime_names(scan)
    every = sorted(name for group in members.values() for name in group)
    wanted = {name for item in selection.names for name in members[item]}
    matched = {name for text in patterns for name in _matches(text, every)}
    if matched != wanted:
        wrong = min(matched ^ wanted, key=natural_key)
        what = "select" if wrong in matched else "miss"
        raise SelectionError(
            f"The patterns for Axolotl would {what} '{wrong}', which is not what was chosen. "
            "This is a bug in spectrum-snr, or the model has a name that cannot be expressed; please report it."
        )


def runtime_names(scan: Scan) -> dict[str, list[str]]:
    """Every name in the scan -> the parameters behind it: itself, or one per expert where it holds a `*`."""
    names = {
        item.name: _members(item.name, [m.label.partition(".")[0] for m in item.matrices]) for item in scan.parameters
    }
    return names | {
        item.name: _members(item.name, [str(e) for e in range(item.shape[0] if item.shape else 0)])
        for item in scan.unscored
    }


def _members(name: str, experts: Sequence[str]) -> list[str]:
    numbers = [expert for expert in dict.fromkeys(experts) if expert]
    return [name.replace("*", expert, 1) for expert in numbers] if "*" in name and numbers else [name]


def _matches(text: str, names: Sequence[str]) -> Iterator[str]:
    """Names that a pattern matches. Only those are tried that begin with what stands before its first special."""
    compiled = compile_as_axolotl(text)
    literal = re.match(r"\^?([A-Za-z0-9_.\-]*)", text)
    assert literal is not None
    prefix = literal.group(1)
    for position in range(bisect_left(names, prefix), len(names)):
        if not names[position].startswith(prefix):
            return
        if compiled.match(names[position]):
            yield names[position]


def _header(selection: Selection, scan: Scan) -> list[str]:
    model = scan.model
    exact = f"{model.model_class}, transformers {model.transformers}, {model.name_mapping}"
    names = exact if model.model_class else "as in the checkpoint"
    revision = f" @ {model.revision}" if model.revision else ""
    total = model.parameters
    trainable = selection.trainable
    share = (
        f"{trainable:,} of {total:,} parameters ({100 * trainable / total:.1f} %)"
        if trainable is not None and total
        else "unknown, the scan does not hold shapes"
    )
    lines = [
        f"Spectrum: {selection.description}",
        f"model: {model.id}{revision}   names: {names}",
        f"trainable: {share}",
    ]
    return [f"# {_CONTROL.sub('?', line)}" for line in lines]


def _body(selection: Selection) -> Iterator[str]:
    for name in selection.embeddings:
        yield from _items([name])
        if name in selection.biases:
            yield from _items([selection.biases[name]])
    if selection.norms:
        yield f"# norms: all {len(selection.norms)}"
        yield from _items(selection.norms)
    for group in selection.groups:
        yield f"# {_CONTROL.sub('?', group.label)}: {group.count} of {len(group.ranked)}{_range(group)}"
        for item in group.selected:
            yield from _items([item.name])
            if item.name in selection.biases:
                yield from _items([selection.biases[item.name]])


def _items(names: Iterable[str]) -> Iterator[str]:
    for name in names:
        text = pattern(name)
        yield f"- {text if _PLAIN.fullmatch(text) else _quoted(text)}"


def _quoted(text: str) -> str:
    """As YAML's single-quoted scalar, in which only the quote itself needs care."""
    return "'" + text.replace("'", "''") + "'"


def _range(group: Group) -> str:
    """Highest and lowest SNR of the selected ones, whatever they were chosen by."""
    if not group.selected:
        return ""
    by_snr = rank(group.selected)
    best, worst = _shown(by_snr[0]), _shown(by_snr[-1])
    return f", SNR {best}" if group.count == 1 else f", SNR {best} to {worst}"


def _shown(item: ParameterScore) -> str:
    return "saturated" if item.snr is None else f"{item.snr:.4g}"
