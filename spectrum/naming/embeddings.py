"""The input embedding and the output head of the part of a model that generates text."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class Embeddings:
    """What a model looks tokens up in, and what it predicts them with.

    Attributes:
        inputs: modules of the input embedding; several if the model has one for each codebook.
        outputs: modules of the output head.
    """

    inputs: tuple[Any, ...]
    outputs: tuple[Any, ...]

    def kind(self, owner: Any, parameter: Any) -> Literal["embedding", "head", "head-bias"] | None:
        """'embedding', 'head' or 'head-bias'; None for a parameter of anything else.

        Args:
            owner: the module that the parameter's name leads to.
            parameter: of the model; tied ones belong to several modules.
        """
        if parameter.ndim < 2:
            return "head-bias" if _holds(self.outputs, parameter) else None
        if owner in self.inputs:
            return "embedding"
        if owner in self.outputs:
            return "head"
        if _holds(self.inputs, parameter):
            return "embedding"
        return "head" if _holds(self.outputs, parameter) else None


def embeddings_of(model: Any) -> Embeddings:
    """By transformers' own getters.

    A model of several parts, such as a thinker and a talker, may leave them to the parts: the first that has a head
    counts. If encoder and decoder share no embedding, the decoder's counts. One that has an embedding for each codebook
    does not generate text: then the encoder's counts.
    """
    parts = [module for module in model.modules() if hasattr(module, "get_input_embeddings")]
    generator = next((part for part in parts if _leaves(_got(part, "get_output_embeddings"))), None)
    decoder = _got(generator, "get_decoder") if _has_encoder(generator) else None
    own = _inputs(decoder)
    inputs = own if len(own) == 1 else next(filter(None, (_inputs(part) for part in (generator, *parts))), ())
    return Embeddings(inputs, tuple(_leaves(_got(generator, "get_output_embeddings"))))


def _inputs(part: Any) -> tuple[Any, ...]:
    """Modules of the input embedding of one part; () for the patch projection of a vision model."""
    from torch import nn  # noqa: PLC0415 - costs a second

    computed = (nn.Linear, nn.modules.conv._ConvNd)  # noqa: SLF001 - the common base of all convolutions
    leaves = _leaves(_got(part, "get_input_embeddings"))
    return tuple(leaf for leaf in leaves if not isinstance(leaf, computed) and _is_table(leaf))


def _is_table(module: Any) -> bool:
    return any(parameter.ndim == 2 for parameter in module.parameters(recurse=False))


def _leaves(module: Any) -> list[Any]:
    """The module itself if it holds parameters; of a list or a wrapper, the modules inside that do."""
    return list(_owners(module)) if hasattr(module, "named_children") else []  # Perceiver returns a bare parameter


def _owners(module: Any) -> Iterator[Any]:
    if next(module.parameters(recurse=False), None) is not None:
        yield module
        return
    for name, child in module.named_children():
        if "position" not in name:
            yield from _owners(child)


def _holds(modules: tuple[Any, ...], parameter: Any) -> bool:
    return any(parameter is held for module in modules for held in module.parameters(recurse=False))


def _has_encoder(part: Any) -> bool:
    return bool(getattr(getattr(part, "config", None), "is_encoder_decoder", False))


def _got(part: Any, getter: str) -> Any:
    """What a getter returns; None if the part has none, or lacks what its getter looks for."""
    try:
        return getattr(part, getter)()
    except (AttributeError, NotImplementedError, TypeError, ValueError):
        return None
