"""Names from transformers' conversion table alone, for a model that cannot be built.

Kinds are guessed from names and shapes, and the conversions of inner models are missed; names, experts and matrices
are otherwise those of the built model.
"""

from collections.abc import Mapping
from dataclasses import replace

from spectrum.checkpoint.tensors import Tensor
from spectrum.naming import layout
from spectrum.naming.classes import ModelClass
from spectrum.naming.conversion import Target, convert_by_table
from spectrum.naming.experts import cuts_of, expert_matrices
from spectrum.naming.identity import identity_parameters
from spectrum.naming.layout import Layout, UntraceableError
from spectrum.naming.parameters import Matrix, Parameter


def table_parameters(tensors: Mapping[str, Tensor], chosen: ModelClass) -> tuple[tuple[Parameter, ...], dict[str, str]]:
    """Parameters as the conversion table names them, and {tensor: why it is no parameter}.

    Raises:
        CheckpointError: tensors that transformers cannot convert, for example because one of them is missing.
    """
    targets = convert_by_table(tensors, [chosen.name, chosen.model_type]).targets
    renamed = {
        name: replace(tensors[target.tensors[0]], name=name, shape=target.shape) for name, target in targets.items()
    }
    parameters, skipped = identity_parameters(renamed)
    interleaved = chosen.name.startswith("GptOss")
    traced = tuple(_traced(parameter, targets, interleaved=interleaved) for parameter in parameters)
    return traced, {tensor: why for name, why in skipped.items() for tensor in targets[name].tensors}


def _traced(parameter: Parameter, targets: Mapping[str, Target], *, interleaved: bool) -> Parameter:
    """A parameter whose tensor is one of the table's names, with the tensors of the checkpoint in its place."""
    kind = "experts" if len(parameter.shape) == 3 and "experts" in parameter.name.split(".") else parameter.kind
    traced = replace(parameter, kind=kind, tensors=_tensors(parameter, targets))
    try:
        return replace(traced, matrices=_matrices(traced, parameter, targets, interleaved=interleaved))
    except UntraceableError:
        return replace(traced, matrices=())


def _matrices(
    traced: Parameter, parameter: Parameter, targets: Mapping[str, Target], *, interleaved: bool
) -> tuple[Matrix, ...]:
    if traced.kind == "experts" and len(parameter.tensors) == 1:
        shapes = {name: target.shape for name, target in targets.items()}
        cuts = cuts_of(parameter.name, shapes, interleaved=interleaved)
        return expert_matrices(_layout(targets[parameter.name]), parameter.shape[0], cuts)
    return tuple(layout.matrix(_layout(targets[matrix.tensor]), matrix.label) for matrix in parameter.matrices)


def _tensors(parameter: Parameter, targets: Mapping[str, Target]) -> tuple[str, ...]:
    return tuple(tensor for name in parameter.tensors for tensor in targets[name].tensors)


def _layout(target: Target) -> Layout:
    if target.layout is None:
        raise UntraceableError(target.reason)
    return target.layout
