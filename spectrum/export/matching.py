"""One expression for many names, and the check that what a target matches is exactly the selection."""

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence

from spectrum.errors import SelectionError
from spectrum.naming import natural_key
from spectrum.results.scan import Scan
from spectrum.selection import Selection

_NUMBER = re.compile(r"(?:^|(?<=\.))[0-9]+(?=\.|$)")
ANY_EXPERT = "[0-9]+"


def expression(names: Iterable[str]) -> str:
    r"""A compact expression that matches these names in full; to be anchored by whoever uses it.

    Names that differ in their first number only share one alternative, and so do those that have the same numbers
    behind the same prefix: `model\.layers\.(?:1|22)\.mlp\.(?:down_proj|up_proj)`. A `*` is any expert's number.
    """
    numbers: dict[tuple[str, str], list[str]] = defaultdict(list)
    plain = []
    for name in names:
        found = _NUMBER.search(name)
        if found:
            numbers[name[: found.start()], name[found.end() :]].append(found.group())
        else:
            plain.append(escaped(name))
    rests: dict[tuple[str, tuple[str, ...]], list[str]] = defaultdict(list)
    for (prefix, rest), layers in numbers.items():
        rests[prefix, tuple(sorted(set(layers), key=int))].append(rest)
    layered = [
        f"{escaped(prefix)}{_either(layers)}{_either([escaped(rest) for rest in tails])}"
        for (prefix, layers), tails in rests.items()
    ]
    return "|".join([*plain, *layered])


def anchored(names: Iterable[str]) -> str:
    """The expression with anchors, which finds the same names by `search`, `match` and `fullmatch`."""
    return f"^(?:{expression(names)})$"


def escaped(name: str) -> str:
    """A name as a regular expression; `*` stands for every expert's number."""
    return ANY_EXPERT.join(re.escape(part) for part in name.split("*"))


def expanded(names: Iterable[str], members: Mapping[str, Sequence[str]]) -> list[str]:
    """Names as they stand in the model, those of every expert in the place of one with a `*`."""
    return [each for name in names for each in members[name]]


def confirm(matched: Collection[str], wanted: Collection[str], target: str) -> None:
    """Raise SelectionError unless what a target would match is what was chosen."""
    wrong = set(matched) ^ set(wanted)
    if wrong:
        name = min(wrong, key=natural_key)
        what = "select" if name in matched else "miss"
        raise SelectionError(
            f"What is written for {target} would {what} '{name}', which is not what was chosen. "
            "This is a bug in spectrum-snr, or the model has a name that cannot be expressed; please report it."
        )


def confirm_expression(text: str, selection: Selection, scan: Scan, members: Mapping[str, Sequence[str]]) -> None:
    """Match an anchored expression back, by `search` and by `fullmatch`, against all parameters of the model."""
    assert set(selection.names) <= members.keys(), scan.model.id
    compiled = re.compile(text)
    every = [name for group in members.values() for name in group]
    wanted = expanded(selection.names, members)
    for match in (compiled.search, compiled.fullmatch):
        confirm([name for name in every if match(name)], wanted, "an expression")


def _either(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"(?:{'|'.join(parts)})"
