"""An estimate of the memory of activations, from the numbers of config.json."""

from collections.abc import Mapping
from dataclasses import dataclass

from spectrum.errors import SpectrumError

BF16, FP32 = 2, 4


@dataclass(frozen=True)
class Dimensions:
    """Numbers of a decoder's config.json that activations depend on.

    Attributes:
        layers: number of them.
        hidden: width of the residual stream, h.
        heads: of attention, a.
        head: width of one of them.
        key_value_heads: of keys and values.
        intermediate: width between the projections of the MLP.
        vocabulary: number of tokens.
        experts: of a mixture, how many each token passes; 1 where there is but one MLP.
    """

    layers: int
    hidden: int
    heads: int
    head: int
    key_value_heads: int
    intermediate: int
    vocabulary: int
    experts: int = 1


def dimensions(config: Mapping[str, object], origin: str) -> Dimensions:
    """Read them from a config; that of a multimodal model names them under text_config.

    Raises:
        SpectrumError: one is missing, or no positive integer.
    """
    nested = config.get("text_config")
    source: Mapping[str, object] = nested if isinstance(nested, Mapping) else config
    heads, hidden = _number(source, origin, "num_attention_heads"), _number(source, origin, "hidden_size")
    return Dimensions(
        layers=_number(source, origin, "num_hidden_layers"),
        hidden=hidden,
        heads=heads,
        head=_number(source, origin, "head_dim", hidden // heads),
        key_value_heads=_number(source, origin, "num_key_value_heads", heads),
        intermediate=_number(source, origin, "moe_intermediate_size" if _routed(source) else "intermediate_size"),
        vocabulary=_number(source, origin, "vocab_size"),
        experts=_number(source, origin, "num_experts_per_tok", 1),
    )


def activation_bytes(size: Dimensions, *, sequence_length: int, micro_batch: int, checkpointing: bool) -> int:
    """Bytes that the forward pass keeps for the backward pass, plus the logits. An estimate, not to the byte.

    A layer of arXiv 2205.05198 (section 4.1) keeps sbh(34 + 5as/h) bytes; that is GPT: dropout, a GELU MLP of 4h, as
    many key-value heads as heads, attention scores written out. Counted the same way, in bf16, a layer of today's
    decoders has no dropout, a gated MLP and flash attention, which recomputes the scores (arXiv 2205.14135):
    two RMS norms of two bf16 and, in transformers, one fp32 tensor each; attention's q and output, k and v; the MLP's
    gate, up, activation and product for each expert a token passes. With checkpointing only each layer's input, 2sbhL
    bytes (section 5), and one layer while it is recomputed. The loss takes logits in bf16 and fp32, and their gradient
    in fp32. Frozen weights save some of this; it is not subtracted.
    """
    tokens = sequence_length * micro_batch
    attention = 2 * size.heads * size.head + 2 * size.key_value_heads * size.head
    mlp = 4 * size.intermediate * size.experts
    layer = tokens * (BF16 * (4 * size.hidden + attention + mlp) + FP32 * 2 * size.hidden)
    kept = BF16 * tokens * size.hidden * size.layers + layer if checkpointing else layer * size.layers
    return kept + tokens * size.vocabulary * (BF16 + FP32 + FP32)


def _routed(source: Mapping[str, object]) -> bool:
    return source.get("moe_intermediate_size") is not None and source.get("num_experts_per_tok") is not None


def _number(source: Mapping[str, object], origin: str, key: str, default: int | None = None) -> int:
    value = source.get(key)
    value = default if value is None else value
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise SpectrumError(
            f"'{origin}' gives {key} as {value!r}, expected a positive integer. Activations can only be estimated for "
            "decoders whose config.json names their sizes as Llama's does; leave --sequence-length out."
        )
    return value
