"""Exact runtime names: the parameters a trainer will see, from a config and the headers of a checkpoint."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from spectrum.checkpoint.tensors import FLOAT_SIZES, Tensor
from spectrum.naming import checks, layout
from spectrum.naming.classes import ModelClass, UnbuildableError, candidate_classes, transformers_version
from spectrum.naming.conversion import Target, convert
from spectrum.naming.experts import cuts_of, expert_matrices, experts_in, group_experts, interleaves
from spectrum.naming.identity import identity_parameters
from spectrum.naming.kinds import Owners
from spectrum.naming.layout import UntraceableError
from spectrum.naming.limits import check_counts
from spectrum.naming.model import MetaModel, build_first, quiet
from spectrum.naming.parameters import Matrix, Parameter, natural_key
from spectrum.naming.table import table_parameters
from spectrum.naming.ties import Ties, resolve

_WITHOUT_MATRICES = ("bias", "norm", "vector", "position", "convolution", "lookup", "head-bias", "other")


@dataclass(frozen=True)
class Naming:
    """The parameters of a model and how their names were found.

    Attributes:
        parameters: every parameter of the model the trainer will see, scored or not, in natural order of name.
        skipped: {tensor of the checkpoint: why it is no parameter}.
        model_class: the class the trainer is taken to load; None where no class was consulted.
        transformers: its version; None where it was not consulted.
        name_mapping: 'exact' from the model itself, 'table' from transformers' conversion table alone, 'identity' as
            the checkpoint names them.
        notes: whole sentences the user should read.
    """

    parameters: tuple[Parameter, ...]
    skipped: Mapping[str, str]
    model_class: str | None
    transformers: str | None
    name_mapping: Literal["exact", "table", "identity"]
    notes: tuple[str, ...]


def name_parameters(
    tensors: Mapping[str, Tensor],
    config: Mapping[str, object] | None,
    *,
    model_class: str | None = None,
    names: Literal["runtime", "checkpoint"] = "runtime",
    same: Callable[[str, str], bool],
) -> Naming:
    """Name the parameters as the trainer will.

    Args:
        tensors: of the checkpoint, by name; quantised ones already folded into the weights they stand for.
        config: config.json, parsed. Remote code that it names is never executed.
        model_class: name of the transformers class the trainer loads, where it is not the usual one.
        names: 'checkpoint' takes the checkpoint's names as they are.
        same: whether two tensors of the checkpoint hold equal bytes; asked only of tied tensors stored twice.

    Raises:
        CheckpointError: the checkpoint does not fit the model: a parameter or an expert is missing, a shape differs,
            or a large share of the weights has no place in it; or the config asks for far more modules than that.
    """
    if names == "checkpoint":
        return _by_identity(tensors, ())
    if config is None or "model_type" not in config:
        return _by_identity(tensors, (_identity_note("there is no config.json that names a model type"),))
    if transformers_version() is None:
        return _by_identity(tensors, (_identity_note("transformers is not installed"),))
    check_counts(config, len(tensors))
    try:
        chosen, meta = build_first(candidate_classes(config, model_class), config, len(tensors))
    except UnbuildableError as error:
        if error.chosen is None:
            return _by_identity(tensors, (_identity_note(str(error)),))
        return _without_model(tensors, error.chosen, str(error))
    with quiet():
        return _by_model(tensors, chosen, meta, same)


def _by_model(
    tensors: Mapping[str, Tensor], chosen: ModelClass, meta: MetaModel, same: Callable[[str, str], bool]
) -> Naming:
    conversion = convert(tensors, meta.model)
    ties = resolve(meta, conversion.targets, same)
    shapes = {**meta.shapes, **{name: conversion.targets[name].shape for name in ties.untied}}
    unexpected = checks.reasons(conversion.unexpected, meta, chosen.name)
    checks.check_unexpected(unexpected, tensors, chosen)
    missing = [name for name in meta.shapes if name not in ties.sources]
    notes = (*chosen.notes, *ties.notes, *checks.check_missing(missing, meta, chosen))
    checks.check_shapes(shapes, ties.sources, conversion.targets, chosen)
    parameters, untraceable = _parameters(tensors, meta, shapes, conversion.targets, ties)
    skipped = {**unexpected, **_skipped(conversion.targets, ties)}
    notes = (*notes, *untraceable, *_shape_notes(parameters))
    return Naming(_ordered(parameters), skipped, chosen.name, transformers_version(), "exact", notes)


def _parameters(
    tensors: Mapping[str, Tensor],
    meta: MetaModel,
    shapes: Mapping[str, tuple[int, ...]],
    targets: Mapping[str, Target],
    ties: Ties,
) -> tuple[list[Parameter], tuple[str, ...]]:
    """Every parameter with its matrices, and sentences about those whose matrices cannot be told."""
    owners = Owners(meta.model)
    weights = dict(meta.model.named_parameters(remove_duplicate=False))
    usual_dtype = Counter(tensor.dtype for tensor in tensors.values()).most_common(1)[0][0]
    parameters: list[Parameter] = []
    untraceable: dict[str, list[str]] = defaultdict(list)
    for name, shape in shapes.items():
        kind = owners.kind(name, weights[name])
        if name in ties.sources:
            target = targets[ties.sources[name]]
            parameter = Parameter(name, shape, tensors[target.tensors[0]].dtype, kind, target.tensors)
            try:
                parameter = replace(parameter, matrices=_matrices(parameter, shapes, target, owners))
            except UntraceableError as error:
                untraceable[str(error)].append(name)
        else:  # a head that the trainer starts at random
            parameter = Parameter(name, shape, usual_dtype, kind, ())
        parameters.append(parameter)
    notes = tuple(_untraceable_note(reason, names) for reason, names in untraceable.items())
    return group_experts(parameters, owners.expert_lists()), notes


def _matrices(
    parameter: Parameter, shapes: Mapping[str, tuple[int, ...]], target: Target, owners: Owners
) -> tuple[Matrix, ...]:
    if parameter.kind in _WITHOUT_MATRICES or parameter.dtype not in FLOAT_SIZES:
        return ()
    if target.layout is None:
        raise UntraceableError(target.reason)
    if parameter.kind == "experts":
        owner = owners.module(parameter.name.rpartition(".")[0])
        cuts = cuts_of(parameter.name, shapes, interleaved=interleaves(owner))
        return expert_matrices(target.layout, experts_in(owner, target.shape), cuts)
    return (layout.matrix(target.layout),) if len(target.shape) == 2 else ()


def _skipped(targets: Mapping[str, Target], ties: Ties) -> dict[str, str]:
    used = set(ties.sources.values())
    found: dict[str, str] = {}
    for name, target in targets.items():
        if name not in used:
            reason = f"alias of {ties.aliases[name]}" if name in ties.aliases else "buffer"
            found |= dict.fromkeys(target.tensors, reason)
    return found


def _without_model(tensors: Mapping[str, Tensor], chosen: ModelClass, reason: str) -> Naming:
    """Names from the conversion table alone."""
    with quiet():
        parameters, skipped = table_parameters(tensors, chosen)
    note = (
        f"{reason}. Names and experts are taken from the conversion table of transformers {transformers_version()} "
        "without building the model, which may miss renamings of inner models: compare them with the trainer's."
    )
    notes = (*chosen.notes, note, *_shape_notes(parameters))
    return Naming(_ordered(parameters), skipped, chosen.name, transformers_version(), "table", notes)


def _by_identity(tensors: Mapping[str, Tensor], notes: tuple[str, ...]) -> Naming:
    parameters, skipped = identity_parameters(tensors)
    return Naming(_ordered(parameters), skipped, None, None, "identity", (*notes, *_shape_notes(parameters)))


def _ordered(parameters: Iterable[Parameter]) -> tuple[Parameter, ...]:
    return tuple(sorted(parameters, key=lambda parameter: natural_key(parameter.name)))


def _identity_note(reason: str) -> str:
    return (
        f"{reason[0].upper()}{reason[1:]}. The names are those of the checkpoint: the trainer's differ where it builds "
        "the model otherwise, as transformers 5 does for mixtures of experts."
    )


def _untraceable_note(reason: str, names: list[str]) -> str:
    others = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"'{names[0]}'{others} cannot be scored: {reason}."


def _shape_notes(parameters: Iterable[Parameter]) -> tuple[str, ...]:
    """A sentence about module types whose members differ in shape: their scores are not of like matrices."""
    shapes: dict[str, set[tuple[int, ...]]] = defaultdict(set)
    for parameter in parameters:
        if parameter.kind in ("matrix", "experts") and parameter.layer is not None:
            shapes[parameter.module_type].add(parameter.shape)
    mixed = [f"{name} ({' and '.join(map(_times, sorted(found)))})" for name, found in shapes.items() if len(found) > 1]
    if not mixed:
        return ()
    return (f"Module types with matrices of more than one shape, ranked together: {', '.join(mixed)}.",)


def _times(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
