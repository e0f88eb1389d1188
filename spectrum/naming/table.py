"""Names from transformers' conversion table alone, for a model that cannot be built.

Kinds are guessed from names and shapes, and the conversions of inner models are missed; names, experts and matrices
are otherwise those of the built model.
"""

from collections.abc import Mapping
from dataclasses import replace

from spectrum.checkpoint.tensors import Tensor
from spectrum.naming import layout
from spectrum.naming.classes import ModelClass
from spectrum.naming.conversion import Target, convert
from spectrum.naming.experts import cuts_of, expert_matrices
from spectrum.naming.identity import identity_parameters
from spectrum.naming.layout import UntraceableError
from spectrum.naming.parameters import Matrix, Parameter
from spectrum.naming.transformers_loading import renamer_by_key


def table_parameters(tensors: Mapping[str, Tensor], chosen: ModelClass) -> tuple[tuple[Parameter, ...], dict[str, str]]:
    """Parameters as the conversion table names them, and {tensor: why it is not a parameter}.

    Raises:
        CheckpointError: transformers cannot convert the tensors, for example because one of them is missing.
    """
    targets, _ = convert(tensors, renamer_by_key([chosen.name, chosen.model_type]))
    renamed = {
        name: replace(tensors[target.tensors[0]], name=name, shape=target.shape) for name, target in targets.items()
    }
    parameters, skipped = identity_parameters(renamed)
    interleaved = chosen.name.startswith("GptOss")
    traced = tuple(_traced(parameter, targets, interleaved=interleaved) for parameter in parameters)
    return traced, {tensor: why for name, why in skipped.items() for tensor in targets[name].tensors}


def _traced(parameter: Parameter, targets: Mapping[str, Target], *, interleaved: bool) -> Parameter:
    """A parameter made of the table's names, with the tensors of the checkpoint in their place."""
    kind = "experts" if len(parameter.shape) == 3 and "experts" in parameter.name.split(".") else parameter.kind
    tensors = tuple(tensor for name in parameter.tensors for tensor in targets[name].tensors)
    try:
        matrices = _matrices(replace(parameter, kind=kind), targets, interleaved=interleaved)
    except UntraceableError:
        matrices = ()
    return replace(parameter, kind=kind, tensors=tensors, matrices=matrices)


def _matrices(parameter: Parameter, targets: Mapping[str, Target], *, interleaved: bool) -> tuple[Matrix, ...]:
    if parameter.kind == "experts" and len(parameter.tensors) == 1:
        shapes = {name: target.shape for name, target in targets.items()}
        cuts = cuts_of(parameter.name, shapes, interleaved=interleaved)
        return expert_matrices(targets[parameter.name].layout, parameter.shape[0], cuts)
    return tuple(layout.matrix(targets[matrix.tensor].layout, matrix.label) for matrix in parameter.matrices)
