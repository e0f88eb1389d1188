"""The input embedding and the output head of the part of a model that generates text."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class Embeddings:
    """What a model looks tokens up in, and what it predicts them with."""

    inputs: tuple[Any, ...]  # modules of the input embedding; several if there is one for each codebook
    outputs: tuple[Any, ...]  # modules of the output head

    def kind(self, owner: Any, parameter: Any) -> Literal["embedding", "head", "head-bias"] | None:
        """Kind of a parameter of the embedding or the head; None for any other parameter.

        Args:
            owner: the module that the parameter's name leads to. It decides if the parameter is tied to several.
            parameter: of the model.
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
    """Embedding and head by transformers' own getters.

    A model of several parts, such as a thinker and a talker, may leave them to the parts: the first one with a head
    counts. If encoder and decoder share no embedding, the decoder's counts, unless it has one for each codebook: such a
    decoder does not generate text, so the encoder's counts.
    """
    parts = [module for module in model.modules() if hasattr(module, "get_input_embeddings")]
    generator = next((part for part in parts if _leaves(part, "get_output_embeddings")), None)
    has_encoder = getattr(getattr(generator, "config", None), "is_encoder_decoder", False)
    own = _inputs(_got(generator, "get_decoder")) if has_encoder else ()
    inputs = own if len(own) == 1 else next(filter(None, (_inputs(part) for part in (generator, *parts))), ())
    return Embeddings(inputs, _leaves(generator, "get_output_embeddings"))


def _inputs(part: Any) -> tuple[Any, ...]:
    """Modules of the input embedding of one part; () for the patch projection of a vision model."""
    from torch import nn  # noqa: PLC0415 - costs a second

    computed = (nn.Linear, nn.modules.conv._ConvNd)  # noqa: SLF001 - the common base of all convolutions
    tables = (leaf for leaf in _leaves(part, "get_input_embeddings") if not isinstance(leaf, computed))
    return tuple(leaf for leaf in tables if any(parameter.ndim == 2 for parameter in leaf.parameters(recurse=False)))


def _leaves(part: Any, getter: str) -> tuple[Any, ...]:
    """The module that a getter returns if it holds parameters; of a list or a wrapper, the modules inside that do."""
    module = _got(part, getter)
    return tuple(_owners(module)) if hasattr(module, "named_children") else ()  # Perceiver returns a bare parameter


def _owners(module: Any) -> Iterator[Any]:
    if next(module.parameters(recurse=False), None) is not None:
        yield module
        return
    for name, child in module.named_children():
        if "position" not in name:
            yield from _owners(child)


def _holds(modules: tuple[Any, ...], parameter: Any) -> bool:
    return any(parameter is held for module in modules for held in module.parameters(recurse=False))


def _got(part: Any, getter: str) -> Any:
    """What a getter returns; None if the part does not have it, or lacks what it looks for."""
    try:
        return getattr(part, getter)()
    except (AttributeError, NotImplementedError, TypeError, ValueError):
        return None
