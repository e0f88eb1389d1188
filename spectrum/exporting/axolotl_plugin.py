"""The older result file, for Axolotl's own SpectrumPlugin.

How the plugin reads it (axolotl 0.19.0, integrations/spectrum): entries {layer: {snr, type}}; of each type it sorts by
snr, highest first, ties in the order of the file, and takes int(n * spectrum_top_fraction); the names of what it took
become `unfrozen_parameters` behind `^lm_head.weight$` and `^model.embed_tokens.weight$`, which are always there.

So the names written here are patterns (the plugin would otherwise match `mlp.gate` as the beginning of
`mlp.gate_proj`), a bias stands in the pattern of its weight, saturated scores are finite numbers above all others, and
where int() would take fewer than selected, as of a type of one, entries are added that match nothing.
"""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import ceil

from spectrum.errors import SelectionError
from spectrum.exporting.axolotl import matches_as_axolotl, pattern
from spectrum.exporting.matching import confirm, expanded, runtime_names
from spectrum.results.scan import ParameterScore, Scan
from spectrum.selection import Group, Selection

ALWAYS = ("^lm_head.weight$", "^model.embed_tokens.weight$")
_LONGEST = 17  # digits after the point; more are not told apart by a float


@dataclass(frozen=True)
class PluginFile:
    """What the plugin needs.

    Attributes:
        text: of the file.
        fraction: the `spectrum_top_fraction` at which the plugin takes exactly the selection.
    """

    text: str
    fraction: float


def to_axolotl_plugin(selection: Selection, scan: Scan) -> PluginFile:
    """The scan as the plugin reads it, and the fraction at which it takes exactly the selection.

    Raises:
        SelectionError: the plugin cannot take exactly the selection.
    """
    fraction = _fraction([(group.count, len(group.ranked)) for group in selection.groups])
    entries: dict[str, dict[str, object]] = {}
    for group in selection.groups:
        entries |= _entries(group, selection, fraction)
    entries |= _always(selection, fraction)
    _confirm(entries, fraction, selection, scan)
    return PluginFile(json.dumps(entries, allow_nan=False, indent=1, ensure_ascii=False) + "\n", fraction)


def plugin_path(name: str) -> str:
    """Where the plugin looks for the file of a model, from the folder that Axolotl is started in."""
    slug = name.replace("/", "-").replace("_", "-")
    return f"model_snr_results/snr_results_{slug}.json"


def chosen_by_plugin(entries: dict[str, dict[str, object]], fraction: float) -> list[str]:
    """The patterns that the plugin makes of a file."""
    types: dict[object, list[tuple[str, float]]] = {}
    for name, entry in entries.items():
        snr = entry["snr"]
        assert isinstance(snr, int | float)
        types.setdefault(entry["type"], []).append((name, snr))
    best = [
        sorted(group, key=lambda pair: pair[1], reverse=True)[: int(len(group) * fraction)] for group in types.values()
    ]
    return [*ALWAYS, *(name for group in best for name, _ in group)]


def _fraction(counts: Sequence[tuple[int, int]]) -> float:
    """The shortest decimal under which no type gives more than was selected, and most give just that.

    Args:
        counts: (selected, in all) of each type.
    """
    limit = min(Fraction(count + 1, total) for count, total in counts)
    wanted = [Fraction(count, total) for count, total in counts if Fraction(count, total) < limit]
    lowest = max([share for share in wanted if share > 0], default=limit / 2)
    for digits in range(2, _LONGEST + 1):
        step = Fraction(1, 10**digits)
        fraction = float(ceil(lowest / step) * step)
        if all(int(total * fraction) <= count for count, total in counts):
            return fraction
    raise SelectionError("No spectrum_top_fraction gives these counts. Take --format axolotl instead.")


def _entries(group: Group, selection: Selection, fraction: float) -> Iterator[tuple[str, dict[str, object]]]:
    chosen = {item.name for item in group.selected}
    order = [*group.selected, *(item for item in group.ranked if item.name not in chosen)]
    for item, snr in zip(order, _scores(order), strict=True):
        bias = selection.biases.get(item.name)
        yield _pattern(item.name, bias), {"snr": snr, "type": group.label}
    yield from _padding(group.label, len(order), group.count, fraction)


def _always(selection: Selection, fraction: float) -> Iterator[tuple[str, dict[str, object]]]:
    """Embeddings and norms, as a type of which all are taken."""
    names = [name for name in (*selection.embeddings, *selection.norms) if pattern(name) not in ALWAYS]
    names += [selection.biases[name] for name in selection.embeddings if name in selection.biases]
    for name in names:
        yield pattern(name), {"snr": 1.0, "type": "embeddings and norms"}
    yield from _padding("embeddings and norms", len(names), len(names), fraction)


def _padding(label: str, total: int, count: int, fraction: float) -> Iterator[tuple[str, dict[str, object]]]:
    """Entries that match no parameter, so many that int() of the fraction of all is what was selected."""
    added = 0
    while int((total + added) * fraction) < count:
        added += 1
        yield f"^padding {added} of {re.sub(r'[^A-Za-z0-9_. ]', '_', label)}$", {"snr": 0.0, "type": label}


def _scores(order: Sequence[ParameterScore]) -> list[float]:
    """Finite numbers that never rise along the order; the SNR itself where it is one."""
    numbers = [item.snr for item in order if item.snr is not None]
    top = max(numbers, default=0.0)
    saturated = len(order) - len(numbers)
    scores: list[float] = []
    for position, item in enumerate(order):
        own = top + max(1, saturated - position) if item.snr is None else item.snr
        scores.append(min(own, scores[-1]) if scores else own)
    return scores


def _pattern(name: str, bias: str | None) -> str:
    if bias is None:
        return pattern(name)
    same = (
        len([1 for a, b in zip(name, bias, strict=False) if a == b]) if bias.startswith(name) else name.rfind(".") + 1
    )
    return f"{pattern(name[:same])[:-1]}({pattern(name[same:])[1:-1]}|{pattern(bias[same:])[1:-1]})$"


def _confirm(entries: dict[str, dict[str, object]], fraction: float, selection: Selection, scan: Scan) -> None:
    members = runtime_names(scan)
    every = sorted(name for group in members.values() for name in group)
    wanted = set(expanded(selection.names, members))
    for text in ALWAYS:
        extra = next((name for name in matches_as_axolotl(text, every) if name not in wanted), None)
        if extra:
            raise SelectionError(
                f"Axolotl's plugin always trains '{extra}', which is not selected. Pass --embeddings train, or take "
                "--format axolotl."
            )
    matched = {name for text in chosen_by_plugin(entries, fraction) for name in matches_as_axolotl(text, every)}
    confirm(matched, wanted, "Axolotl's SpectrumPlugin")
