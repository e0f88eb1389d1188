"""Tied parameters: which stored tensor fills which parameter, decided as transformers does on loading."""

from collections.abc import Callable
from dataclasses import dataclass

from spectrum.naming.conversion import Target
from spectrum.naming.model import MetaModel


@dataclass(frozen=True)
class Ties:
    """Tied names resolved."""

    sources: dict[str, str]  # {name in named_parameters(): the target that fills it}, without those that nothing fills
    untied: frozenset[str]  # those that the config ties, but whose numbers differ from the other's
    aliases: dict[str, str]  # {target that fills nothing: the parameter that it is an alias of}
    notes: tuple[str, ...]  # whole sentences


def resolve(meta: MetaModel, targets: dict[str, Target], same: Callable[[str, str], bool]) -> Ties:
    """Decide for each parameter which stored name fills it.

    If one of the tied names is stored, it fills the parameter. If both are stored with equal numbers, they are one
    parameter. If both are stored and differ, transformers does not tie them, so both are parameters.

    Args:
        meta: the model.
        targets: what the checkpoint holds.
        same: whether two tensors of the checkpoint hold equal bytes.
    """
    sources = {name: name for name in meta.shapes if name in targets}
    untied, aliases, notes = set(), {}, []
    for alias, name in meta.aliases.items():
        if alias not in targets:
            continue
        if name not in sources:
            sources[name] = alias
        elif _equal(targets[sources[name]], targets[alias], same):
            aliases[alias] = name
        else:
            sources[alias] = alias
            untied.add(alias)
            notes.append(
                f"The config ties '{alias}' to '{name}', but the checkpoint holds both with different values; "
                "transformers does not tie them then, and neither are they here."
            )
    return Ties(sources, frozenset(untied), aliases, tuple(notes))


def _equal(first: Target, second: Target, same: Callable[[str, str], bool]) -> bool:
    if first.shape != second.shape or len(first.tensors) != len(second.tensors):
        return False
    return all(same(one, other) for one, other in zip(first.tensors, second.tensors, strict=True))
