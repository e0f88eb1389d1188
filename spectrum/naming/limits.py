"""What a config.json may ask for: one that does not belong to its weights must not keep transformers building for ever.

Nothing here judges whether config and weights fit: that is found out on the model, once it is built.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from spectrum.errors import CheckpointError

# What is counted out one by one while a config is parsed or a model is built. The most of any model of transformers
# are 2048 experts (Switch-C); a checkpoint whose layers and experts lie apart has a tensor for each of them.
_COUNTED = re.compile(r"layers$|n_layers?$|depths?$|experts$|heads?$|blocks$|stages$|cycles$|num_block|codebooks?$")
LARGEST_COUNT = 4_096
# Other sizes, of which some models make lists (decoder_n_points, the head_dim of diffllama); vocabularies have under
# 2^19. Not meant are what a trainer notes down, and lengths of a context, which are given in millions and cost nothing.
LARGEST_SIZE = 2**22
_SIZE = re.compile(r"size|dim|hidden|channel|points|levels|codes|num_|^n_|^d_|width|height")
_NO_SIZE = re.compile(r"param|train|step|byte|seed|token|position|length|context|ctx|window|_id$|^max_")
_LABELS = ("id2label", "label2id")
# Modules and parameters: a layer of a dense model has 13 modules and 9 tensors, one whose experts are stacked in the
# file and apart in the model of transformers 4 several for each expert.
SMALLEST_BUDGET = 4_000
MODULES_A_TENSOR = 20


def check_counts(config: Mapping[str, Any], tensors: int) -> None:
    """See that no count in a config is beyond what the checkpoint's tensors can stand for, and no size beyond reason.

    Raises:
        CheckpointError: one is, or the config is nested too deep.
    """
    for name, value in _numbers(config):
        counted = _COUNTED.search(name)
        most = max(LARGEST_COUNT, tensors) if counted else LARGEST_SIZE
        meant = counted or (_SIZE.search(name) and not _NO_SIZE.search(name))
        if meant and not -most <= value <= most:
            raise CheckpointError(
                f"config.json has {_shown(value)} as {name!r}, and the checkpoint has {tensors} tensors: it does not "
                "belong to these weights. Download it again, or take the names as they are with --names checkpoint."
            )


@contextmanager
def limited_building(tensors: int) -> Iterator[None]:
    """End the building of a model that gets many times as many modules as the checkpoint has tensors.

    Raises:
        CheckpointError: it does.
    """
    from torch.nn.modules import module  # noqa: PLC0415

    left = max(SMALLEST_BUDGET, MODULES_A_TENSOR * tensors)

    def count(*_: object) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise CheckpointError(
                f"config.json describes a model of far more modules than the {tensors} tensors of the checkpoint: it "
                "does not belong to these weights. Download it again, or take the names as they are with --names "
                "checkpoint."
            )

    hooks = (
        module.register_module_module_registration_hook(count),
        module.register_module_parameter_registration_hook(count),
    )
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _numbers(value: Any, name: str = "") -> Iterator[tuple[str, int | float]]:
    """Every number in a config, with the name that it or the list around it has."""
    waiting = [(name, value)]
    while waiting:
        name, value = waiting.pop()
        if isinstance(value, Mapping):
            waiting.extend((str(key), entry) for key, entry in value.items() if key not in _LABELS)
        elif isinstance(value, list):
            waiting.extend((name, entry) for entry in value)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield name, value


def _shown(value: float) -> str:
    return f"{float(value):.3g}" if not abs(value) >= 1e300 else "a number of hundreds of digits"
