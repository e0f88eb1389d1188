"""What a trainer can train, and the matrices inside it."""

import math
import re
from dataclasses import dataclass
from typing import Literal

Kind = Literal[
    "matrix", "experts", "router",
    "embedding",  # the input embedding of the part that generates text
    "head",  # its output head
    "head-bias",  # the bias of its output head, tied or not
    "lookup",  # any other embedding: token types, n-grams, codebooks, one embedding per layer
    "position", "norm", "bias", "vector", "convolution", "other",
]  # fmt: skip

RANKED: tuple[Kind, ...] = ("matrix", "experts", "router")  # chosen by score; the other kinds follow switches

LONGEST_NUMBER = 9  # digits of a layer; Python refuses to read numbers of thousands of them
SMALLEST_SIDE = 32  # below, quartiles of the singular values mean little; routers and scalar gates are such matrices


@dataclass(frozen=True)
class Matrix:
    """A 2-D array that is decomposed: where its numbers are stored in the checkpoint.

    The numbers are `tensor`, reshaped to `view` if there is one, then indexed by `index` as NumPy indexes:
    `(3,)` is the fourth expert of a stack, `(3, slice(None, 512))` its first 512 rows,
    `(3, slice(None), slice(0, None, 2))` every second column.

    A matrix stored in several tensors has them as `pieces`, to be put together along `axis` (0: one below the other,
    1: side by side); tensor, index and view are then those of the first piece.
    """

    label: str  # distinguishes it from the other matrices of its parameter, such as '3.gate_proj'; '' for a single one
    shape: tuple[int, int]  # after view and index
    tensor: str  # the checkpoint's name
    index: tuple[int | slice, ...] = ()  # () takes all of it
    view: tuple[int, ...] | None = None
    pieces: tuple["Matrix", ...] = ()
    axis: Literal[0, 1] = 0


@dataclass(frozen=True)
class Parameter:
    """The unit of selection: one entry of `model.named_parameters()`, or the experts of one layer and projection."""

    name: str  # as the trainer sees it; the number of an expert is `*` if the trainer keeps one module per expert
    shape: tuple[int, ...]  # (experts, rows, cols) for a group of experts
    dtype: str  # of the tensors that hold it, as safetensors spells it
    kind: Kind  # only 'matrix' and 'experts' are scored by default
    tensors: tuple[str, ...]  # the checkpoint's tensors that hold it
    matrices: tuple[Matrix, ...] = ()  # decomposed to score it; empty if it has no spectrum

    @property
    def numel(self) -> int:
        """Number of weights."""
        return math.prod(self.shape)

    @property
    def module_type(self) -> str:
        """The module path with its first all-digit segment replaced by `*`."""
        return module_type(self.name)

    @property
    def layer(self) -> int | None:
        """The number that the `*` of the module type replaces; None outside numbered layers."""
        return layer(self.name)


def module_type(name: str) -> str:
    """Module path of a parameter with its first all-digit segment replaced by `*`, without a final `.weight`.

    The number of an expert is replaced, too: the experts of one projection belong to one module type.
    """
    segments = name.removesuffix(".weight").split(".")
    first = next((position for position, segment in enumerate(segments) if _is_number(segment)), None)
    return ".".join(
        "*" if position == first or (_is_number(segment) and segments[position - 1] == "experts") else segment
        for position, segment in enumerate(segments)
    )


def layer(name: str) -> int | None:
    """First all-digit segment of a name, as a number."""
    return next((int(segment) for segment in name.split(".") if _is_number(segment)), None)


def natural_key(name: str) -> tuple[tuple[int, int | str], ...]:
    """Sort key that places `layers.2` before `layers.10`."""
    parts = re.split(r"([0-9]{1,18})", name)
    return tuple((0, int(part)) if part.isdigit() and part.isascii() else (1, part) for part in parts)


def _is_number(segment: str) -> bool:
    return segment.isascii() and segment.isdigit() and len(segment) <= LONGEST_NUMBER
