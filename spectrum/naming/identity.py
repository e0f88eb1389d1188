"""Identity mapping: every parameter has the name of its tensor, and its kind is guessed from name and shape.

The last resort. It is right for dense text models and for models whose code is remote; a trainer on transformers 5 has
other names for the parameters of a mixture of experts.
"""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence

from spectrum.checkpoint.tensors import FLOAT_SIZES, Tensor
from spectrum.naming.parameters import SMALLEST_SIDE, Kind, Matrix, Parameter, layer, natural_key

EXPERT = re.compile(r"(?<=\.experts\.)([0-9]+)(?=\.)")
_NORM = re.compile(r"norm|^ln($|_)")
_BUFFER = re.compile(
    r"(^|\.)(inv_freq|masked_bias|position_ids|attn\.bias|running_mean|running_var"
    r"|codebook\.(embed|embed_avg|cluster_size|inited))$"
)

# Last segments of module paths, lower case. Sources: the model classes of transformers 5.23.
_KINDS: dict[str, Kind] = {
    **dict.fromkeys(("wpe", "embed_positions", "position_embeddings", "position_embedding"), "position"),
    **dict.fromkeys(("token_type_embeddings", "embed_tokens_per_layer"), "lookup"),
    **dict.fromkeys(("gate", "router", "shared_expert_gate", "gate_inp"), "router"),
    "relative_attention_bias": "position",
    "a_log": "other",
}
_EMBEDDINGS = (
    "embed_tokens", "wte", "word_embeddings", "embed_in", "tok_embeddings", "embeddings", "embedding", "embed",
    "shared", "token_embedding",
)  # fmt: skip
_HEADS = ("lm_head", "embed_out", "output_layer", "output", "head", "score")
_KINDS_OUTSIDE_LAYERS: dict[str, Kind] = {**dict.fromkeys(_EMBEDDINGS, "embedding"), **dict.fromkeys(_HEADS, "head")}


def identity_parameters(tensors: Mapping[str, Tensor]) -> tuple[tuple[Parameter, ...], dict[str, str]]:
    """Parameters in natural order of name, and {tensor: why it is not a parameter}.

    Tensors of one layer and projection that differ in the number after `experts` are one parameter: its name has `*` in
    place of the number, and the number is the label of the matrix.
    """
    groups: dict[str, list[Tensor]] = defaultdict(list)
    skipped = {}
    for tensor in sorted(tensors.values(), key=lambda tensor: natural_key(tensor.name)):
        reason = _no_parameter(tensor)
        if reason:
            skipped[tensor.name] = reason
        else:
            groups[EXPERT.sub("*", tensor.name, count=1)].append(tensor)
    parameters = [parameter for name, group in groups.items() for parameter in _parameters(name, group)]
    return tuple(sorted(parameters, key=lambda parameter: natural_key(parameter.name))), skipped


def kind_by_name(name: str) -> Kind:
    """Kind of a weight from its name alone: a norm, or one of the kinds of a 2-D weight."""
    leaf = _leaf(name)
    return "norm" if _NORM.search(leaf) else _kind_of_2d(name, leaf)


def _no_parameter(tensor: Tensor) -> str | None:
    if tensor.dtype.startswith(("I", "U", "BOOL")):
        return "integer tensor"
    if tensor.dtype not in FLOAT_SIZES:
        return f"dtype {tensor.dtype}"
    return "buffer" if _BUFFER.search(tensor.name) else None


def _parameters(name: str, group: Sequence[Tensor]) -> list[Parameter]:
    """One parameter, or one for each tensor if the experts of one projection differ in shape or dtype."""
    if len({(tensor.shape, tensor.dtype) for tensor in group}) > 1:
        return [parameter for tensor in group for parameter in _parameters(tensor.name, [tensor])]
    first, grouped = group[0], name != group[0].name
    kind = _kind(first.name, first.shape)
    if grouped and kind == "matrix":
        kind = "experts"
    matrices = tuple(matrix for tensor in group for matrix in _matrices(tensor, kind, grouped=grouped))
    shape = (len(group), *first.shape) if grouped else first.shape
    return [Parameter(name, shape, first.dtype, kind, tuple(tensor.name for tensor in group), matrices)]


def _matrices(tensor: Tensor, kind: Kind, *, grouped: bool) -> list[Matrix]:
    number = EXPERT.search(tensor.name) if grouped else None
    label = number.group(1) if number else ""
    if len(tensor.shape) == 2 and kind not in ("bias", "position", "lookup", "other"):
        return [Matrix(label, (tensor.shape[0], tensor.shape[1]), tensor.name)]
    if kind != "experts":
        return []
    experts, *shape = tensor.shape
    labels = (f"{label}.{each}".removeprefix(".") for each in range(experts))
    return [Matrix(text, (shape[0], shape[1]), tensor.name, (each,)) for each, text in enumerate(labels)]


def _kind(name: str, shape: tuple[int, ...]) -> Kind:
    leaf = _leaf(name)
    owner = _leaf(name.removesuffix(".bias"))
    if len(shape) < 2 and _NORM.search(owner):
        return "norm"
    if leaf == "bias" or leaf.endswith("_bias"):
        return "head-bias" if layer(name) is None and leaf == "bias" and owner in _HEADS else "bias"
    if len(shape) < 2:
        return "vector"
    if len(shape) == 2:
        return _kind_of_2d(name, leaf)
    if "conv" in leaf or len(shape) > 3:
        return "convolution"
    return "experts" if layer(name) is not None and min(shape[1:]) >= SMALLEST_SIDE else "other"


def _kind_of_2d(name: str, leaf: str) -> Kind:
    anywhere = _KINDS.get(leaf, "matrix")
    return anywhere if layer(name) is not None else _KINDS_OUTSIDE_LAYERS.get(leaf, anywhere)


def _leaf(name: str) -> str:
    return name.lower().removesuffix(".weight").rpartition(".")[2]
