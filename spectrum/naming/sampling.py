"""A sample of the experts of each layer: where 256 of them would take days, some tell the median well enough."""

import random
from dataclasses import replace

from spectrum.naming.parameters import Parameter


def sample_experts(parameter: Parameter, count: int) -> Parameter:
    """The parameter with the matrices of `count` of its experts only.

    Which experts is drawn with the module path of the layer's experts as the seed: the same in every scan, the same for
    gate, up and down projection of one layer, and different from layer to layer.

    Args:
        parameter: returned as it is unless it holds more experts than that.
        count: 1 or more.
    """
    numbers = list(dict.fromkeys(_expert(matrix.label) for matrix in parameter.matrices))
    if parameter.kind != "experts" or len(numbers) <= count:
        return parameter
    chosen = frozenset(random.Random(_seed(parameter.name)).sample(numbers, count))  # noqa: S311  no secret
    kept = tuple(matrix for matrix in parameter.matrices if _expert(matrix.label) in chosen)
    return replace(parameter, matrices=kept)


def _expert(label: str) -> str:
    return label.partition(".")[0]


def _seed(name: str) -> str:
    """Everything up to the projection, which stands last (`experts.down_proj`) or behind the `*` (`experts.*.w1`)."""
    return name.removesuffix(".weight").rpartition(".")[0]
