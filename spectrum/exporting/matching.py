"""One expression for many names, and the check that a target matches exactly the selection."""

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence

from spectrum.errors import SelectionError
from spectrum.naming import natural_key
from spectrum.results.scan import ParameterScore, Scan, Unscored

_NUMBER = re.compile(r"(?:^|(?<=\.))[0-9]+(?=\.|$)")
ANY_EXPERT = "[0-9]+"
MOST_EXPERTS = 1_000_000  # parameters of their own, in one model; the largest releases have 70,000


def expression(names: Iterable[str]) -> str:
    r"""A compact expression, without anchors, for these names in full.

    Names that differ in their first number only share one alternative, and so do those that have the same numbers
    behind the same prefix: `model\.layers\.(?:1|22)\.mlp\.(?:down_proj|up_proj)`. A `*` is any expert's number.
    """
    numbers: dict[tuple[str, str], list[str]] = defaultdict(list)
    plain = []
    for name in names:
        if found := _NUMBER.search(name):
            numbers[name[: found.start()], name[found.end() :]].append(found.group())
        else:
            plain.append(escaped(name))
    rests: dict[tuple[str, tuple[str, ...]], list[str]] = defaultdict(list)
    for (prefix, rest), layers in numbers.items():
        rests[prefix, tuple(sorted(set(layers), key=int))].append(escaped(rest))
    layered = [f"{escaped(prefix)}{_either(layers)}{_either(tails)}" for (prefix, layers), tails in rests.items()]
    return "|".join([*plain, *layered])


def escaped(name: str) -> str:
    """A name as a regular expression; `*` stands for every expert's number."""
    return ANY_EXPERT.join(re.escape(part) for part in name.split("*"))


def runtime_names(scan: Scan) -> dict[str, list[str]]:
    """Every name in the scan -> the parameters that it means: itself, or one per expert if it has a `*`.

    Raises:
        SelectionError: more experts than any model has, in an altered scan.
    """
    experts = {item.name: _experts(item) for item in scan.entries if "*" in item.name}
    count = sum(map(len, experts.values()))
    if count > MOST_EXPERTS:
        name = max(experts, key=lambda each: len(experts[each]))
        raise SelectionError(
            f"The scan speaks of {count:,} parameters of experts, {len(experts[name]):,} of them under '{name}'; no "
            f"model has more than {MOST_EXPERTS:,}. The file was altered; scan the model again."
        )
    return {
        item.name: [item.name.replace("*", str(expert), 1) for expert in experts.get(item.name, ())] or [item.name]
        for item in scan.entries
    }


def expanded(names: Iterable[str], members: Mapping[str, Sequence[str]]) -> list[str]:
    """Names as the model has them: a name with a `*` becomes those of every expert."""
    return [each for name in names for each in members[name]]


def confirm(matched: Collection[str], wanted: Collection[str], target: str) -> None:
    """Raise SelectionError unless a target would match exactly the wanted names."""
    wrong = set(matched) ^ set(wanted)
    if wrong:
        name = min(wrong, key=natural_key)
        what = "select" if name in matched else "miss"
        raise SelectionError(
            f"What is written for {target} would {what} '{name}', which is not what was chosen. "
            "This is a bug in spectrum-snr, or the model has a name that cannot be expressed; please report it."
        )


def _experts(item: ParameterScore | Unscored) -> Sequence[int | str]:
    """Numbers of all experts of a unit, even if only a sample of them was scored."""
    every: Sequence[int] = range(item.shape[0] if item.shape else 0)
    if isinstance(item, Unscored):
        return every
    scored = [label for label in dict.fromkeys(each.label.partition(".")[0] for each in item.matrices) if label]
    return every if 0 < len(scored) < len(every) else scored


def _either(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"(?:{'|'.join(parts)})"
