"""One expression for many names, and the check that what a target matches is exactly the selection."""

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence

from spectrum.errors import SelectionError
from spectrum.naming import natural_key
from spectrum.results.scan import ParameterScore, Scan, Unscored
from spectrum.selection import Selection

_NUMBER = re.compile(r"(?:^|(?<=\.))[0-9]+(?=\.|$)")
ANY_EXPERT = "[0-9]+"
MOST_EXPERTS = 1_000_000  # parameters of their own, in one model; the largest releases have 70,000


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


def runtime_names(scan: Scan) -> dict[str, list[str]]:
    """Every name in the scan -> the parameters behind it: itself, or one per expert where it holds a `*`.

    Raises:
        SelectionError: the scan was altered and speaks of more experts than any model has.
    """
    entries: tuple[ParameterScore | Unscored, ...] = (*scan.parameters, *scan.unscored)
    experts = {item.name: _experts(item) for item in entries if "*" in item.name}
    count = sum(map(len, experts.values()))
    if count > MOST_EXPERTS:
        name = max(experts, key=lambda each: len(experts[each]))
        raise SelectionError(
            f"The scan speaks of {count:,} parameters of experts, {len(experts[name]):,} of them under '{name}'; no "
            f"model has more than {MOST_EXPERTS:,}. The file was altered; scan the model again."
        )
    return {item.name: _members(item.name, experts.get(item.name, ())) for item in entries}


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


def _experts(item: ParameterScore | Unscored) -> Sequence[int | str]:
    """Numbers of the experts of a unit; of those in a scan all there are, also where only a sample was scored."""
    every: Sequence[int] = range(item.shape[0] if item.shape else 0)
    if isinstance(item, Unscored):
        return every
    labels = (matrix.label.partition(".")[0] for matrix in item.matrices)
    scored = [label for label in dict.fromkeys(labels) if label]
    return every if 0 < len(scored) < len(every) else scored


def _members(name: str, experts: Iterable[int | str]) -> list[str]:
    return [name.replace("*", str(expert), 1) for expert in experts] or [name]


def _either(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"(?:{'|'.join(parts)})"
