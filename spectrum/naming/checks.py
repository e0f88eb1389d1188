"""Check a checkpoint against its model before the slow part begins, and say why a tensor is not a parameter."""

import contextlib
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from spectrum.checkpoint.tensors import Tensor
from spectrum.errors import CheckpointError
from spectrum.naming.classes import ModelClass
from spectrum.naming.conversion import Target, some
from spectrum.naming.model import MetaModel

# If a larger share of the weights has no place in the model, the class is the wrong one. Heads and poolers of other
# tasks stay below it; a language model without its layers does not.
LARGEST_UNEXPECTED_SHARE = 0.05

_PREDICTION = re.compile(r"(^|\.)(mtp|nextn)(_|\.|$)")
_MODALITY = re.compile(r"vision|visual|image|img|video|audio|speech|multi_modal|multimodal|mm_|aligner|resampler")


def check_shapes(
    shapes: Mapping[str, tuple[int, ...]], sources: Mapping[str, str], targets: Mapping[str, Target], chosen: ModelClass
) -> None:
    """Raise CheckpointError if the tensors of a parameter have another shape than the model gives it."""
    for name, source in sources.items():
        target = targets[source]
        if target.shape == shapes[name]:
            continue
        if len(target.tensors) > 1 and target.shape[1:] == shapes[name][1:]:
            raise CheckpointError(
                f"'{name}' needs {shapes[name][0]} experts, and the checkpoint holds {target.shape[0]}, from "
                f"'{target.tensors[0]}' to '{target.tensors[-1]}'. Download the checkpoint again."
            )
        raise CheckpointError(
            f"'{name}' has the shape {list(shapes[name])} in the model that config.json describes, and "
            f"{some(target.tensors)} makes {list(target.shape)}. config.json does not belong to these weights. "
            f"{_hint(chosen)}"
        )


def check_missing(missing: Sequence[str], meta: MetaModel, chosen: ModelClass) -> tuple[str, ...]:
    """A sentence about the parameters that the checkpoint lacks.

    Raises:
        CheckpointError: it lacks a parameter that it must hold.
    """
    needed = [name for name in missing if not _may_be_missing(name, meta)]
    if needed:
        raise CheckpointError(
            f"The checkpoint lacks {len(needed)} of the {len(meta.shapes)} parameters of {chosen.name}: "
            f"{some(needed)}. Download the checkpoint again. {_hint(chosen)}"
        )
    random = [name for name in missing if not _is_computed(name, meta)]
    if not random:
        return ()
    start = "it starts" if len(random) == 1 else "they start"
    return (f"The checkpoint lacks {some(random)} of {chosen.name}; {start} at random in the trainer.",)


def reasons(unexpected: Mapping[str, str], meta: MetaModel, class_name: str) -> dict[str, str]:
    """Why tensors that fill no name of the model are not parameters."""
    ignored = getattr(meta.model, "_keys_to_ignore_on_load_unexpected", None) or ()
    first, end = _prediction_layers(meta.model.config)
    found = {}
    for tensor, name in unexpected.items():
        if name in meta.shapes or name in meta.aliases:
            found[tensor] = f"another tensor fills '{name}'"
        elif _is_buffer(name, meta):
            found[tensor] = "buffer"
        elif _predicts_ahead(name, first, end):
            found[tensor] = "multi-token prediction layer"
        elif any(re.search(pattern, name) for pattern in ignored):
            found[tensor] = f"unexpected: {class_name} ignores it"
        else:
            found[tensor] = f"unexpected: {class_name} has no '{name}'"
    return found


def check_unexpected(found: Mapping[str, str], tensors: Mapping[str, Tensor], chosen: ModelClass) -> None:
    """Raise CheckpointError if a large share of the weights has no place in the model.

    Other modalities do not count: a text model of a multimodal checkpoint leaves them out.
    """
    strangers = [name for name, reason in found.items() if " has no " in reason and not _MODALITY.search(name)]
    sizes = {name: math.prod(tensor.shape) for name, tensor in tensors.items()}
    share = sum(sizes[name] for name in strangers) / max(1, sum(sizes.values()))
    if share > LARGEST_UNEXPECTED_SHARE:
        raise CheckpointError(
            f"{share:.0%} of the weights have no place in {chosen.name}: {some(strangers)}. {_hint(chosen)}"
        )


def _may_be_missing(name: str, meta: MetaModel) -> bool:
    """Whether it is a head that a base model lacks, a pooler, or one that the model class itself lists."""
    base = meta.model.base_model_prefix
    has_base = bool(base) and any(other.startswith(f"{base}.") for other in meta.shapes)
    ignored: Iterable[Any] = getattr(meta.model, "_keys_to_ignore_on_load_missing", None) or ()
    outside = has_base and not name.startswith(f"{base}.")
    if outside or "pooler" in name.split(".") or _is_computed(name, meta):
        return True
    return any(re.search(pattern, name) for pattern in ignored)


def _is_computed(name: str, meta: MetaModel) -> bool:
    """Whether it is a table of sines and cosines of positions, which the model computes when it is made."""
    owner = meta.model.get_submodule(name.rpartition(".")[0])
    return "Sinusoidal" in type(owner).__name__


def _is_buffer(name: str, meta: MetaModel) -> bool:
    """Whether it is a buffer; old checkpoints store rotary frequencies and position numbers under other paths."""
    old = [s for s in ("rotary_emb.inv_freq", "position_ids") if any(buffer.endswith(s) for buffer in meta.buffers)]
    return name in meta.buffers or name.endswith(tuple(old))


# Configs count the layers that predict further tokens, which come after the others, under these names.
_PREDICTION_COUNTS = ("num_nextn_predict_layers", "mtp_num_hidden_layers", "num_mtp_layers", "num_mtp_modules")


def _prediction_layers(config: Any) -> tuple[int, int]:
    """Number of the first layer that only predicts ahead, and of the first that the config does not mention."""
    with contextlib.suppress(ValueError):  # transformers finds several text models, as in Musicgen
        config = config.get_text_config()
    layers, *counts = (getattr(config, name, 0) for name in ("num_hidden_layers", *_PREDICTION_COUNTS))
    if not isinstance(layers, int):
        return (0, 0)
    return layers, layers + max(count if isinstance(count, int) else 0 for count in counts)


def _predicts_ahead(name: str, first: int, end: int) -> bool:
    number = re.search(r"(?:^|\.)layers\.([0-9]+)\.", name)
    return bool(_PREDICTION.search(name)) or (number is not None and first <= int(number.group(1)) < end)


def _hint(chosen: ModelClass) -> str:
    named = f", perhaps {' or '.join(chosen.others)}," if chosen.others else ""
    return (
        f"Pass the class that the trainer loads{named} with --model-class, or scan a copy without config.json, under "
        "the names of the checkpoint."
    )
