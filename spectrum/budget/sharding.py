"""The part of a model on the fullest GPU: weights, fp32 copies, gradients, and what the optimizer updates."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
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
    """Bytes on one GPU, without the optimizer's state.

    Attributes:
        weights: of all weights, in the precision of the forward pass.
        master: of copies of the trained weights that the optimizer updates.
        gradients: of the gradients.
        held: the tensors that the optimizer updates.
    """

    weights: int
    master: int
    gradients: int
    held: tuple[Held, ...]


def shard(weights: Sequence[Weight], sharding: Sharding, precision: Precision, gpus: int) -> Shard:
    """What the fullest GPU holds.

    Frozen weights are in bf16, without gradient or state (DeepSpeed pull request 2653; torch.optim skips parameters
    without a gradient). With `fp32-master`, trained weights have an fp32 copy that the optimizer updates.

    Args:
        weights: of the model, adapters included.
        sharding: 'none' repeats everything on every GPU, as DistributedDataParallel does.
        precision: of trained weights, gradients and state.
        gpus: number of GPUs that share.
    """
    if sharding == "zero2":
        return _zero2(weights, precision, gpus)
    if sharding == "zero3":
        return _zero3(weights, precision, gpus)
    if sharding == "fsdp":
        return _apart(weights, precision, gpus, copies=False)
    return _apart(weights, precision, 1, copies=True)


def _apart(weights: Sequence[Weight], precision: Precision, gpus: int, *, copies: bool) -> Shard:
    """Each tensor is split along its first axis; the first rank's part is the largest.

    torch.distributed.fsdp.fully_shard splits rows as torch.chunk does and pads every part to the size of the first.
    The sharded weights themselves are the fp32 copy, and gradients are fp32, too; only trained weights are upcast
    (accelerate 1.15, utils/fsdp_utils.py). LoRA's adapters are always fp32 (PEFT's autocast_adapter_dtype).
    """
    held, computing, master, gradients = [], 0, 0, 0
    for weight in weights:
        part = replace(weight, shape=(ceil(weight.shape[0] / gpus), *weight.shape[1:]) if weight.shape else ())
        wide = weight.trained and (weight.adapter or precision == "fp32-master")
        copied = wide and copies and not weight.adapter
        itemsize = FP32 if wide and not copied else BF16
        computing += part.numel * itemsize
        if weight.trained:
            master += part.numel * FP32 * copied
            gradients += part.numel * itemsize
            held.append(Held(part.shape, FP32 if wide else BF16, weight.embeds, weight.hidden))
    return Shard(computing, master, gradients, tuple(held))


def _zero2(weights: Sequence[Weight], precision: Precision, gpus: int) -> Shard:
    """DeepSpeed stage 2: all weights on every GPU; the trained ones form one flat vector, padded and split evenly.

    Source: arXiv 1910.02054, sections 5.1 and 5.2; deepspeed/runtime/zero/stage_1_and_2.py.
    """
    alignment = ALIGNMENT * gpus
    frozen = sum(weight.numel for weight in weights if not weight.trained)
    trained = ceil(sum(weight.numel for weight in weights if weight.trained) / alignment) * alignment
    return _flat(frozen + trained, [trained // gpus] if trained else [], precision)


def _zero3(weights: Sequence[Weight], precision: Precision, gpus: int) -> Shard:
    """DeepSpeed stage 3: every weight, trained or frozen, is padded and split evenly; small ones also stay gathered.

    Source: arXiv 1910.02054, section 5.3; deepspeed/runtime/zero/partition_parameters.py and stage3.py.
    """
    parts = sum(ceil(weight.numel / gpus) for weight in weights)
    gathered = sum(weight.numel for weight in weights if weight.numel <= PERSISTENT)
    return _flat(parts + gathered, _sub_groups(weights, gpus), precision)


def _flat(computing: int, sizes: Sequence[int], precision: Precision) -> Shard:
    """The shard of a number of weights, whose optimizer updates flat tensors of these sizes.

    DeepSpeed always copies the trained weights for the optimizer; with bf16_master_weights_and_grads in bf16.
    """
    itemsize = FP32 if precision == "fp32-master" else BF16
    held = tuple(Held((size,), itemsize) for size in sizes)
    return Shard(BF16 * computing, itemsize * sum(sizes), BF16 * sum(sizes), held)


def _sub_groups(weights: Sequence[Weight], gpus: int) -> list[int]:
    """Sizes of the flat tensors of stage 3; a new one begins once the last has SUB_GROUP elements."""
    sizes, size = [], 0
    for weight in weights:
        if weight.trained:
            size += ceil(weight.numel / gpus)
        if size >= SUB_GROUP:
            sizes.append(size)
            size = 0
    return [*sizes, size] if size else sizes
