"""The tensors of a checkpoint, as its headers describe them."""

import math
from dataclasses import dataclass

# Bytes per element of every dtype that a safetensors header may name and that a weight can have.
FLOAT_SIZES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}


@dataclass(frozen=True)
class Tensor:
    """One entry of a checkpoint, named as the file names it.

    Attributes:
        name: as in the file.
        dtype: as safetensors spells it, for example 'BF16'.
        shape: in elements.
        shard: file name within the checkpoint's folder.
        start: first byte of the data, counted from the beginning of the shard.
        stop: byte after the last one.
        stored_as: the format it is quantised in, 'F8_E4M3' or 'MXFP4', where `dtype` is what it is read as; else None.
        strides: steps along each dimension, in elements of the file, where the elements do not stand there in order, as
            a .bin may have them; else None. `stop` is then behind the last element, and others may stand in between.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    shard: str
    start: int
    stop: int
    stored_as: str | None = None
    strides: tuple[int, ...] | None = None

    @property
    def numel(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def size_bytes(self) -> int:
        """Bytes in the shard."""
        return self.stop - self.start
