"""Bounds on what a config.json may ask for, so that transformers does not build forever.

Whether config and weights belong together is decided later, from the built model.
"""

import math
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from spectrum.errors import CheckpointError
from spectrum.naming.offline import offline
from spectrum.untrusted import shown

# Names of what Python loops over while a config is parsed or a model is built. The largest default in transformers 5.23
# are the 16,384 experts of Doge. A checkpoint may store each layer or expert as a tensor.
_COUNTED = re.compile(
    r"layers$|n_layers?$|depths?$|experts$|heads?$|blocks$|stages$|cycles$|num_block|codebooks?$|points$|levels$"
)
LARGEST_COUNT = 2**16
# Other sizes cost nothing on the meta device, except the few of which a model makes a list (head_dim of DiffLlama). The
# largest default are the 20,000,000 n-grams of Qwen4Exp. The length of a context costs nothing.
_SIZE = re.compile(r"size|dim|hidden|channel|codes|num_|^n_|^d_|width|height")
_NO_SIZE = re.compile(r"position|length|context|ctx|window|token|_id$|^max_")
LARGEST_SIZE = 2**26
_LABELS = ("id2label", "label2id")
# Modules and parameters: a layer of a dense model has 13 modules and 9 tensors.
SMALLEST_BUDGET = 4_000
MODULES_A_TENSOR = 20
_ADVICE = "it does not belong to these weights. Download it again, or scan a copy without it."


def check_counts(config: Mapping[str, Any], tensors: int) -> None:
    """Check that no count in a config exceeds what the checkpoint's tensors can account for, and that sizes are sane.

    Sizes are checked only under names that the config classes know: a trainer may add notes of its own.

    Raises:
        CheckpointError: one is too large.
    """
    for name, value in _entries(config):
        if not isinstance(value, int | float) or isinstance(value, bool):
            continue
        counted = _COUNTED.search(name)
        most = max(LARGEST_COUNT, tensors) if counted else LARGEST_SIZE
        sized = counted or (_SIZE.search(name) and not _NO_SIZE.search(name))
        if sized and not -most <= value <= most and (counted or _is_known(name, config)):
            raise CheckpointError(
                f"config.json has {_shown(value)} as {shown(name)}, and the checkpoint has {tensors} tensors: {_ADVICE}"
            )


@contextmanager
def limited_building(tensors: int) -> Iterator[None]:
    """Stop building a model that gets many times as many modules as the checkpoint has tensors.

    Raises:
        CheckpointError: the model does.
    """
    from torch.nn.modules.module import register_module_module_registration_hook as on_module  # noqa: PLC0415
    from torch.nn.modules.module import register_module_parameter_registration_hook as on_parameter  # noqa: PLC0415

    left = max(SMALLEST_BUDGET, MODULES_A_TENSOR * tensors)

    def count(*_: object) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise CheckpointError(
                f"config.json describes a model of far more modules than the {tensors} tensors of the checkpoint: "
                f"{_ADVICE}"
            )

    with on_module(count), on_parameter(count):
        yield


def _is_known(name: str, config: Mapping[str, Any]) -> bool:
    """Whether a config class that this config names, at any depth, has a field of this name."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING  # noqa: PLC0415 - costs a second

    types = {value for key, value in _entries(config) if key == "model_type" and isinstance(value, str)}
    for model_type in types & set(CONFIG_MAPPING):
        try:
            with offline():
                default = CONFIG_MAPPING[model_type]()
        except Exception:  # noqa: BLE001 - some config classes have no default: any name may be theirs
            return True
        if name in default.attribute_map or any(key == name for key, _ in _entries(default.to_dict())):
            return True
    return False


def _entries(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Every value in a config with its name; the entries of a list have the name of the list."""
    waiting = [(name, value)]
    while waiting:
        name, value = waiting.pop()
        if isinstance(value, Mapping):
            yield name, value
            waiting.extend((str(key), entry) for key, entry in value.items() if key not in _LABELS)
        elif isinstance(value, list | tuple):
            waiting.extend((name, entry) for entry in value)
        else:
            yield name, value


def _shown(value: float) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return f"{float(value):.3g}" if abs(value) < 1e300 else "a number of hundreds of digits"
