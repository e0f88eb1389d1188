"""What of a model lies on the fullest GPU: weights, fp32 copies, gradients, and what the optimizer updates."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Literal

from spectrum.budget.optimizers import FP32, Held
from spectrum.budget.weights import Weight

Precision = Literal["bf16", "fp32-master"]
Sharding = Literal["none", "zero2", "zero3", "fsdp"]

BF16 = 2

# DeepSpeed's defaults and constants.
ALIGNMENT = 2  # elements per rank, stage_1_and_2.py: nccl_start_alignment_factor
PERSISTENT = 100_000  # elements, stage3_param_persistence_threshold: smaller parameters also stay gathered
SUB_GROUP = 1_000_000_000  # elements, sub_group_size: stage 3 steps over flat tensors of about this size


@dataclass(frozen=True)
class Shard:
    """Bytes of model state on one GPU, optimizer state aside.

    Attributes:
        weights: that compute, frozen ones included.
        master: fp32 copies of trained weights.
        gradients: of trained weights.
        held: the tensors that the optimizer updates.
    """

    weights: int
    master: int
    gradients: int
    held: tuple[Held, ...]


def shard(weights: Sequence[Weight], sharding: Sharding, precision: Precision, gpus: int, *, muon: bool) -> Shard:
    """What the fullest GPU holds.

    Frozen weights are bf16 everywhere, without gradient or state (DeepSpeed pull request 2653; torch.optim skips what
    has no gradient). With `fp32-master`, trained weights have an fp32 copy that the optimizer updates.

    Args:
        weights: of the model, adapters included.
        sharding: none repeats everything on every GPU, as DistributedDataParallel does.
        precision: of trained weights, gradients and state.
        gpus: among which it is split.
        muon: whether the optimizer takes hidden matrices and other tensors apart.
    """
    if sharding == "none":
        return _apart(weights, precision, 1, master_in_place=False, muon=muon)
    if sharding == "fsdp":
        return _apart(weights, precision, gpus, master_in_place=True, muon=muon)
    if sharding == "zero2":
        return _zero2(weights, precision, gpus, muon=muon)
    return _zero3(weights, precision, gpus, muon=muon)


def _apart(weights: Sequence[Weight], precision: Precision, gpus: int, *, master_in_place: bool, muon: bool) -> Shard:
    """Tensor by tensor, each split along its first axis; the first rank's part is the largest.

    torch.distributed.fsdp.fully_shard splits rows as torch.chunk does and pads the last ranks' parts to the first's.
    There the sharded weights themselves are the fp32 copy, gradients are fp32 too, and only trained weights are upcast
    (accelerate 1.15, utils/fsdp_utils.py).
    """
    wide = precision == "fp32-master"
    held, computing, master, gradients = [], 0, 0, 0
    for weight in weights:
        shape = (ceil(weight.shape[0] / gpus), *weight.shape[1:]) if weight.shape else ()
        part = Weight(shape, weight.kind, weight.trained, weight.adapter)
        in_place = weight.trained and (weight.adapter or (wide and master_in_place))
        copied = weight.trained and wide and not in_place
        itemsize = FP32 if in_place else BF16
        computing += part.numel * itemsize
        master += part.numel * FP32 * copied
        if weight.trained:
            gradients += part.numel * itemsize
            held.append(Held(shape, FP32 if copied else itemsize, weight.embeds, muon and _is_hidden(weight)))
    return Shard(computing, master, gradients, tuple(held))


def _zero2(weights: Sequence[Weight], precision: Precision, gpus: int, *, muon: bool) -> Shard:
    """DeepSpeed stage 2: all weights on every GPU; the trained ones of a group lie flat, padded, and are split evenly.

    Source: arXiv 1910.02054, sections 5.1 and 5.2; deepspeed/runtime/zero/stage_1_and_2.py.
    """
    alignment = ALIGNMENT * gpus
    frozen = sum(weight.numel for weight in weights if not weight.trained)
    sizes = [sum(weight.numel for weight in group) for group in _groups(weights, muon=muon)]
    padded = [ceil(size / alignment) * alignment for size in sizes]
    return _flat(frozen + sum(padded), [[size // gpus] for size in padded], precision, muon=muon)


def _zero3(weights: Sequence[Weight], precision: Precision, gpus: int, *, muon: bool) -> Shard:
    """DeepSpeed stage 3: every weight, frozen ones too, is padded and split evenly; small ones also stay gathered.

    Source: arXiv 1910.02054, section 5.3; deepspeed/runtime/zero/partition_parameters.py and stage3.py.
    """
    parts = sum(ceil(weight.numel / gpus) for weight in weights)
    gathered = sum(weight.numel for weight in weights if weight.numel <= PERSISTENT)
    groups = [_sub_groups(group, gpus) for group in _groups(weights, muon=muon)]
    return _flat(parts + gathered, groups, precision, muon=muon)


def _flat(computing: int, groups: Sequence[Sequence[int]], precision: Precision, *, muon: bool) -> Shard:
    """From elements that compute, and the sizes of the flat tensors of each group of trained weights."""
    trained = sum(size for group in groups for size in group)
    wide = precision == "fp32-master"
    held = tuple(
        Held((size,), FP32 if wide else BF16, hidden=muon and number == 0)
        for number, group in enumerate(groups)
        for size in group
    )
    return Shard(BF16 * computing, FP32 * trained * wide, BF16 * trained, held)


def _groups(weights: Sequence[Weight], *, muon: bool) -> list[list[Weight]]:
    """Trained weights as the optimizer groups them: all in one, or Muon's first and then AdamW's."""
    trained = [weight for weight in weights if weight.trained]
    if not muon:
        return [trained] if trained else []
    return [[weight for weight in trained if _is_hidden(weight) is hidden] for hidden in (True, False)]


def _sub_groups(group: Sequence[Weight], gpus: int) -> list[int]:
    """Sizes of the flat tensors, each closed once it is large enough."""
    sizes, size = [], 0
    for weight in group:
        size += ceil(weight.numel / gpus)
        if size >= SUB_GROUP:
            sizes.append(size)
            size = 0
    return [*sizes, size] if size else sizes


def _is_hidden(weight: Weight) -> bool:
    """Whether it is for Muon: a 2-D weight of a hidden layer (documentation of torch.optim.Muon)."""
    return len(weight.shape) == 2 and weight.kind in ("matrix", "experts", "router")
