"""Tied parameters: which of the stored tensors feeds which, as transformers decides on loading."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from spectrum.naming.conversion import Target
from spectrum.naming.model import MetaModel


@dataclass(frozen=True)
class Ties:
    """Tied names resolved.

    Attributes:
        sources: {name in named_parameters(): the target that fills it}; without those that nothing fills.
        untied: of these, what is a parameter of its own because its numbers differ from those it should be tied to.
        aliases: {target that fills nothing: the parameter it is an alias of}.
        notes: whole sentences.
    """

    sources: dict[str, str]
    untied: frozenset[str]
    aliases: dict[str, str]
    notes: tuple[str, ...]


def resolve(meta: MetaModel, targets: dict[str, Target], same: Callable[[str, str], bool]) -> Ties:
    """Decide for each parameter which stored name fills it.

    Tied and one stored: that one fills the parameter, whatever its name. Both stored with equal numbers: one parameter.
    Both stored and different: transformers 5 does not tie them, so both are parameters; transformers 4 ties them
    nonetheless and keeps the numbers of the one that named_parameters() names.

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
        elif unties(meta.model):
            sources[alias] = alias
            untied.add(alias)
            notes.append(_note(alias, name, "transformers does not tie them then, and neither are they here"))
        else:
            aliases[alias] = name
            notes.append(_note(alias, name, f"this version of transformers ties them and drops '{alias}'"))
    return Ties(sources, frozenset(untied), aliases, tuple(notes))


def unties(model: Any) -> bool:
    """Whether transformers leaves parameters untied whose stored values differ, as it does since version 5."""
    return hasattr(model, "all_tied_weights_keys")


def _note(alias: str, name: str, consequence: str) -> str:
    return f"The config ties '{alias}' to '{name}', but the checkpoint holds both with different values; {consequence}."


def _equal(first: Target, second: Target, same: Callable[[str, str], bool]) -> bool:
    if first.shape != second.shape or len(first.tensors) != len(second.tensors):
        return False
    return all(same(one, other) for one, other in zip(first.tensors, second.tensors, strict=True))
