"""Exact runtime names: the parameters a trainer will see, from a config and the headers of a checkpoint."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
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
from spectrum.naming.transformers_loading import renamer_of

_WITHOUT_MATRICES = ("bias", "norm", "vector", "position", "convolution", "lookup", "head-bias", "other")


@dataclass(frozen=True)
class Naming:
    """The parameters of a model and how their names were found."""

    parameters: tuple[Parameter, ...]  # every one of the model that the trainer will see, in natural order of name
    skipped: Mapping[str, str]  # {tensor of the checkpoint: why it is not a parameter}
    model_class: str | None  # the class that the trainer is assumed to load; None if no class was consulted
    transformers: str | None  # its version; None if it was not consulted
    name_mapping: Literal["exact", "table", "identity"]  # from the model, transformers' table alone, or the checkpoint
    notes: tuple[str, ...]  # whole sentences the user should read


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
        model_class: name of the transformers class the trainer loads, if it is not the usual one.
        names: 'checkpoint' takes the checkpoint's names as they are.
        same: whether two tensors of the checkpoint hold equal bytes; asked only of tied tensors stored twice.

    Raises:
        CheckpointError: the checkpoint does not fit the model: a parameter or an expert is missing, a shape differs,
            or a large share of the weights has no place in it; or the config asks for far more modules than that.
    """
    if names == "checkpoint":
        return _by_identity(tensors)
    if config is None or "model_type" not in config:
        return _by_identity(tensors, "there is no config.json that names a model type")
    if transformers_version() is None:
        return _by_identity(tensors, "transformers is not installed")
    check_counts(config, len(tensors))
    try:
        chosen, meta = build_first(candidate_classes(config, model_class), config, len(tensors))
    except UnbuildableError as error:
        if error.chosen is None:
            return _by_identity(tensors, str(error))
        return _by_table(tensors, error.chosen, str(error))
    return _by_model(tensors, chosen, meta, same)


@quiet()
def _by_model(
    tensors: Mapping[str, Tensor], chosen: ModelClass, meta: MetaModel, same: Callable[[str, str], bool]
) -> Naming:
    """Names of a model that was built on the meta device."""
    targets, strangers = convert(tensors, renamer_of(meta.model))
    ties = resolve(meta, targets, same)
    shapes = {**meta.shapes, **{name: targets[name].shape for name in ties.untied}}
    unexpected = checks.reasons(strangers, meta, chosen.name)
    checks.check_unexpected(unexpected, tensors, chosen)
    missing = [name for name in meta.shapes if name not in ties.sources]
    notes = (*chosen.notes, *ties.notes, *checks.check_missing(missing, meta, chosen))
    checks.check_shapes(shapes, ties.sources, targets, chosen)
    parameters, untraceable = _parameters(tensors, meta, shapes, targets, ties)
    skipped = {**unexpected, **_skipped(targets, ties)}
    return _naming("exact", parameters, skipped, (*notes, *untraceable), chosen)


def _parameters(
    tensors: Mapping[str, Tensor],
    meta: MetaModel,
    shapes: Mapping[str, tuple[int, ...]],
    targets: Mapping[str, Target],
    ties: Ties,
) -> tuple[list[Parameter], list[str]]:
    """Every parameter with its matrices, and sentences about those whose matrices cannot be found."""
    owners = Owners(meta.model)
    weights = dict(meta.model.named_parameters(remove_duplicate=False))
    usual_dtype = Counter(tensor.dtype for tensor in tensors.values()).most_common(1)[0][0]
    parameters: list[Parameter] = []
    untraceable: dict[str, list[str]] = defaultdict(list)
    for name, shape in shapes.items():
        kind = owners.kind(name, weights[name])
        if name not in ties.sources:  # a head that the trainer starts at random
            parameters.append(Parameter(name, shape, usual_dtype, kind, ()))
            continue
        target = targets[ties.sources[name]]
        parameter = Parameter(name, shape, tensors[target.tensors[0]].dtype, kind, target.tensors)
        try:
            parameter = replace(parameter, matrices=_matrices(parameter, shapes, target, owners))
        except UntraceableError as error:
            untraceable[str(error)].append(name)
        parameters.append(parameter)
    more = {reason: f" and {len(names) - 1} more" * (len(names) > 1) for reason, names in untraceable.items()}
    notes = [f"'{names[0]}'{more[reason]} cannot be scored: {reason}." for reason, names in untraceable.items()]
    return group_experts(parameters, owners.expert_lists()), notes


def _matrices(
    parameter: Parameter, shapes: Mapping[str, tuple[int, ...]], target: Target, owners: Owners
) -> tuple[Matrix, ...]:
    if parameter.kind in _WITHOUT_MATRICES or parameter.dtype not in FLOAT_SIZES:
        return ()
    if parameter.kind == "experts":
        owner = owners.modules[parameter.name.rpartition(".")[0]]
        cuts = cuts_of(parameter.name, shapes, interleaved=interleaves(owner))
        return expert_matrices(target.layout, experts_in(owner, target.shape), cuts)
    where = target.layout
    return (layout.matrix(where),) if len(target.shape) == 2 else ()


def _skipped(targets: Mapping[str, Target], ties: Ties) -> dict[str, str]:
    used = set(ties.sources.values())
    reasons = {name: f"alias of {alias}" for name, alias in ties.aliases.items()}
    unused = {name: target for name, target in targets.items() if name not in used}
    return {tensor: reasons.get(name, "buffer") for name, target in unused.items() for tensor in target.tensors}


@quiet()
def _by_table(tensors: Mapping[str, Tensor], chosen: ModelClass, reason: str) -> Naming:
    """Names from the conversion table alone, because the model cannot be built."""
    note = (
        f"{reason}. Names and experts are taken from the conversion table of transformers {transformers_version()} "
        "without building the model, which may miss renamings of inner models: compare them with the trainer's."
    )
    return _naming("table", *table_parameters(tensors, chosen), (*chosen.notes, note), chosen)


def _by_identity(tensors: Mapping[str, Tensor], reason: str = "") -> Naming:
    """The names of the checkpoint; a reason is the user's to read."""
    note = (
        f"{reason[:1].upper()}{reason[1:]}. The names are those of the checkpoint. The trainer's names differ if it "
        "builds the model differently, as transformers 5 does for mixtures of experts."
    )
    return _naming("identity", *identity_parameters(tensors), (note,) if reason else (), None)


def _naming(
    mapping: Literal["exact", "table", "identity"],
    parameters: Sequence[Parameter],
    skipped: Mapping[str, str],
    notes: Sequence[str],
    chosen: ModelClass | None,
) -> Naming:
    ordered = tuple(sorted(parameters, key=lambda parameter: natural_key(parameter.name)))
    class_name, version = (chosen.name, transformers_version()) if chosen else (None, None)
    return Naming(ordered, skipped, class_name, version, mapping, (*notes, *_shape_notes(parameters)))


def _shape_notes(parameters: Iterable[Parameter]) -> tuple[str, ...]:
    """A sentence about module types with matrices of more than one shape, whose scores are hard to compare."""
    shapes: dict[str, set[tuple[int, ...]]] = defaultdict(set)
    for parameter in parameters:
        if parameter.kind in ("matrix", "experts") and parameter.layer is not None:
            shapes[parameter.module_type].add(parameter.shape)
    texts = {name: " and ".join("x".join(map(str, shape)) for shape in sorted(found)) for name, found in shapes.items()}
    mixed = ", ".join(f"{name} ({texts[name]})" for name, found in shapes.items() if len(found) > 1)
    return (f"Module types with matrices of more than one shape, ranked together: {mixed}.",) if mixed else ()
