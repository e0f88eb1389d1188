"""Bytes of optimizer state, computed for each tensor as the optimizer's own code allocates them."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, prod
from typing import Literal

OptimizerName = Literal["adamw", "adamw-8bit", "paged-adamw-8bit", "adafactor", "sgd", "sgd-momentum", "muon"]

FP32 = 4
STEP = 4  # torch.optim.AdamW counts its steps in one fp32 scalar per tensor
RMS = 4  # transformers.Adafactor keeps the root mean square of each tensor in one fp32 scalar

# bitsandbytes.optim.AdamW8bit (0.50): 8-bit state in blocks, each with an fp32 maximum (arXiv 2110.02861, section 2).
BLOCK = 256
SMALLEST_8BIT = 4096  # `min_8bit_size`: tensors of fewer elements keep fp32 state
QMAPS = 2 * 256 * FP32  # two code books, shared by all tensors


@dataclass(frozen=True)
class Held:
    """A trained tensor as the optimizer of one GPU sees it.

    Attributes:
        shape: of the part on this GPU.
        itemsize: bytes per element of the tensor and of its gradient.
        embeds: it is the weight of an nn.Embedding, and the optimizer can see that.
        hidden: it is a matrix that Muon updates; AdamW updates the others.
    """

    shape: tuple[int, ...]
    itemsize: int
    embeds: bool = False
    hidden: bool = False

    @property
    def numel(self) -> int:
        """Number of elements."""
        return prod(self.shape)


def state_bytes(optimizer: OptimizerName, tensors: Sequence[Held]) -> int:
    """Bytes of the optimizer's state for all tensors that it updates on one GPU."""
    if optimizer == "adamw":
        return sum(map(_adamw, tensors))
    if optimizer in ("adamw-8bit", "paged-adamw-8bit"):
        return _adamw_8bit(tensors)
    if optimizer == "adafactor":
        return sum(map(_adafactor, tensors))
    if optimizer == "muon":
        return sum(_momentum(tensor) if tensor.hidden else _adamw(tensor) for tensor in tensors)
    return sum(map(_momentum, tensors)) if optimizer == "sgd-momentum" else 0


def _adamw(tensor: Held) -> int:
    """torch.optim.AdamW: exp_avg and exp_avg_sq in the tensor's dtype, and the step."""
    return 2 * tensor.numel * tensor.itemsize + STEP


def _momentum(tensor: Held) -> int:
    """torch.optim.SGD with momentum, torch.optim.Muon (2-D only): one buffer in the gradient's dtype, no step."""
    return tensor.numel * tensor.itemsize


def _adafactor(tensor: Held) -> int:
    """transformers.Adafactor without a first moment: fp32 sums over rows and columns; a vector in full.

    Source: arXiv 1804.04235, section 4. torch.optim.Adafactor, which keeps its sums in the gradient's dtype, is not
    counted.
    """
    if len(tensor.shape) < 2:
        return FP32 * tensor.numel + RMS
    *stack, rows, cols = tensor.shape
    return FP32 * prod(stack) * (rows + cols) + RMS


def _adamw_8bit(tensors: Sequence[Held]) -> int:
    quantized = [tensor for tensor in tensors if tensor.numel >= SMALLEST_8BIT and not tensor.embeds]
    # Embeddings: transformers' Trainer registers them with bitsandbytes for 32 bits.
    plain = sum(tensor.numel for tensor in tensors) - sum(tensor.numel for tensor in quantized)
    blocks = sum(ceil(tensor.numel / BLOCK) for tensor in quantized)
    codes = sum(tensor.numel for tensor in quantized)
    return 2 * (FP32 * plain + codes + FP32 * blocks) + (QMAPS if quantized else 0)
