"""Which parameters are scored: the default of DESIGN's rules, narrowed or widened by the user."""

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from spectrum.errors import SpectrumError
from spectrum.naming.parameters import SMALLEST_SIDE, Parameter

_WORDS = {"position": "position table", "lookup": "lookup table", "other": "not a weight matrix"}
WIDENED = ("router", "embedding", "head")  # what `--all-modules` adds


@dataclass(frozen=True)
class Scope:
    """What the user wants scored."""

    modules: tuple[str, ...] = ()  # shell patterns on the module type, with or without the common prefix; () takes all
    exclude: tuple[str, ...] = ()  # the same; what they match is left out
    all_modules: bool = False  # embeddings, heads, routers and matrices outside numbered layers as well


def split_by_scope(parameters: Sequence[Parameter], scope: Scope) -> tuple[list[Parameter], dict[str, str]]:
    """Parameters to score, and {name: reason} for the others.

    Raises:
        SpectrumError: a pattern matches no module type; the error names near ones.
    """
    reasons = {parameter.name: _why_not(parameter, all_modules=scope.all_modules) for parameter in parameters}
    candidates = [parameter for parameter in parameters if not reasons[parameter.name]]
    wanted = match_module_types({parameter.module_type for parameter in candidates}, scope.modules, scope.exclude)
    for parameter in candidates:
        if parameter.module_type not in wanted:
            reasons[parameter.name] = "not among the modules asked for"
    scored = [parameter for parameter in parameters if not reasons[parameter.name]]
    return scored, {name: reason for name, reason in reasons.items() if reason}


def match_module_types(module_types: Iterable[str], modules: Sequence[str], exclude: Sequence[str]) -> frozenset[str]:
    """Module types that match one of `modules` (all if it is empty) and none of `exclude`.

    Raises:
        SpectrumError: a pattern matches nothing.
    """
    known = sorted(module_types)
    included, excluded = (
        frozenset(name for pattern in patterns for name in _matching(pattern, known)) for patterns in (modules, exclude)
    )
    return (included if modules else frozenset(known)) - excluded


def common_prefix(module_types: Iterable[str]) -> str:
    """What all module types of numbered layers begin with, up to and including the `*.`; '' if they differ there."""
    prefixes = {name[: name.index("*.") + 2] for name in module_types if "*." in name}
    return prefixes.pop() if len(prefixes) == 1 else ""


def _matching(pattern: str, known: Sequence[str]) -> list[str]:
    prefix = common_prefix(known)
    short = [name.removeprefix(prefix) for name in known]
    matched = [
        name for name, end in zip(known, short, strict=True) if fnmatchcase(name, pattern) or fnmatchcase(end, pattern)
    ]
    if not matched:
        # 'mlp' is part of a name; a multimodal model has several stacks of layers, so its names have no common prefix.
        wider = (f"{pattern}.*", f"*{pattern}", f"*.{pattern}.*")
        longer = [f"'{wide}'" for wide in wider if any(fnmatchcase(name, wide) for name in short)][:1]
        near = longer or difflib.get_close_matches(pattern, short, n=3, cutoff=0.4) or short[:8]
        raise SpectrumError(
            f"No module type matches '{pattern}'. Near ones: {', '.join(near)}. Quote patterns so that the shell does "
            "not expand them; embeddings, heads and routers have scores only with --all-modules."
        )
    return matched


def _why_not(parameter: Parameter, *, all_modules: bool) -> str:
    if len(parameter.shape) < 2:
        return "vector"
    if parameter.kind not in ("matrix", "experts", *WIDENED):
        return _WORDS.get(parameter.kind, parameter.kind)
    if not parameter.matrices:
        return "not a matrix"
    if parameter.kind in WIDENED and not all_modules:
        return parameter.kind
    smallest = min(min(matrix.shape) for matrix in parameter.matrices)
    if smallest < (2 if parameter.kind == "router" else SMALLEST_SIDE):
        return f"smaller side {smallest}, under {SMALLEST_SIDE}"
    return "" if parameter.layer is not None or all_modules else "outside numbered layers"
