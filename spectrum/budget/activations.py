"""An estimate of the memory of activations, from the numbers of config.json."""

from collections.abc import Mapping
from dataclasses import dataclass

from spectrum.errors import SpectrumError
from spectrum.untrusted import shown

BF16, FP32 = 2, 4


@dataclass(frozen=True)
class Dimensions:
    """Numbers of a decoder's config.json that activations depend on.

    Attributes:
        layers: number of layers.
        hidden: width of the residual stream, h.
        heads: number of attention heads, a.
        head: width of one head.
        key_value_heads: number of heads for keys and values.
        intermediate: width between the projections of the MLP.
        vocabulary: number of tokens.
        experts: of a mixture, how many process each token; 1 for a plain MLP.
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
    """Read the dimensions from a config; a multimodal model has them under text_config.

    Raises:
        SpectrumError: one is missing, or is not a positive integer.
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
    """Bytes that the forward pass keeps for the backward pass, plus the logits. An estimate.

    Counted as in section 4.1 of arXiv 2205.05198, for a decoder without dropout, with a gated MLP and flash attention
    (arXiv 2205.14135), in bf16. A layer keeps for its two RMS norms two bf16 tensors and one fp32 tensor each; the
    query, key, value and output of attention; and gate, up, activation and product of each expert that a token uses.
    With checkpointing each layer keeps only its input (section 5), and one layer at a time is recomputed. The loss
    needs the logits in bf16 and fp32, and their gradient in fp32. What frozen weights save is not subtracted.
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
            f"'{origin}' gives {key} as {shown(value)}, expected a positive integer. Activations can only be estimated "
            "for decoders whose config.json has the fields of Llama's; leave --sequence-length out."
        )
    return value
