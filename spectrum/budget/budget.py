"""Memory that training needs on one GPU: selections of a scan, full fine-tuning and LoRA, counted alike."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from spectrum.budget.optimizers import OptimizerName, state_bytes
from spectrum.budget.sharding import Precision, Sharding, shard
from spectrum.budget.sizes import show_size
from spectrum.budget.weights import Weight
from spectrum.errors import SelectionError

STEPS = 1000  # the search for the largest selection goes in steps of a tenth of a percent
FSDP_OPTIMIZERS = ("adamw", "sgd", "sgd-momentum", "muon")  # the code of the others mixes sharded and plain tensors


@dataclass(frozen=True)
class Setup:
    """How the model is trained.

    Attributes:
        optimizer: of the trained weights.
        precision: 'bf16' keeps everything in bf16, except state that the optimizer itself keeps wider; 'fp32-master'
            adds an fp32 copy of each trained weight, and fp32 state.
        sharding: DeepSpeed's ZeRO stage 2 or 3, torch's fully_shard, or none.
        gpus: number of GPUs.
    """

    optimizer: OptimizerName = "adamw"
    precision: Precision = "bf16"
    sharding: Sharding = "none"
    gpus: int = 1


@dataclass(frozen=True)
class Memory:
    """Bytes on the fullest GPU, and how many weights are trained. Only the activations are an estimate.

    Attributes:
        trainable: number of trained weights on all GPUs together, adapters included.
        frozen: number of the other weights.
        weights: bytes of all weights of the model, in the precision of the forward pass.
        master: bytes of the copies that the optimizer updates, if it keeps any.
        gradients: bytes of the gradients.
        state: bytes of the optimizer's state.
        activations: estimated bytes; 0 if no estimate was asked for.
    """

    trainable: int
    frozen: int
    weights: int
    master: int
    gradients: int
    state: int
    activations: int = 0

    @property
    def total(self) -> int:
        """Sum of the bytes."""
        return self.weights + self.master + self.gradients + self.state + self.activations


def memory(weights: Sequence[Weight], setup: Setup, *, activations: int = 0) -> Memory:
    """Memory of training these weights.

    Raises:
        SelectionError: the optimizer cannot step on shards of this kind.
    """
    _check(setup)
    part = shard(weights, setup.sharding, setup.precision, setup.gpus)
    trainable = sum(weight.numel for weight in weights if weight.trained)
    return Memory(
        trainable=trainable,
        frozen=sum(weight.numel for weight in weights) - trainable,
        weights=part.weights,
        master=part.master,
        gradients=part.gradients,
        state=state_bytes(setup.optimizer, part.held),
        activations=activations,
    )


def largest_that_fits(needed: Callable[[float], Memory], limit: int) -> tuple[float, Memory]:
    """The largest top percent, to a tenth, whose memory is at most `limit` bytes, and that memory.

    Args:
        needed: memory of the top P percent; it does not shrink as P grows.
        limit: in bytes.

    Raises:
        SelectionError: not even the smallest selection fits.
    """
    low, high = 0, STEPS  # `low` is assumed to fit; everything above `high` does not
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if needed(_percent(middle)).total <= limit else (low, middle - 1)
    if low == 0:
        least = show_size(needed(_percent(1)).total)
        raise SelectionError(
            f"No selection fits: the smallest, one parameter of each module type, needs {least} per GPU, and "
            f"{show_size(limit)} may be used. Use more GPUs with --sharding zero3, an 8-bit optimizer or "
            "--embeddings freeze."
        )
    return _percent(low), needed(_percent(low))


def _check(setup: Setup) -> None:
    if setup.sharding == "fsdp" and setup.optimizer not in FSDP_OPTIMIZERS:
        raise SelectionError(
            f"'{setup.optimizer}' does not work with the sharded tensors of torch's fully_shard. Use --optimizer "
            f"{', '.join(FSDP_OPTIMIZERS)}, or --sharding zero2 or zero3."
        )
    if setup.sharding in ("zero2", "zero3") and setup.optimizer == "muon":
        raise SelectionError(
            "'muon' updates matrices, and ZeRO gives the optimizer flat vectors. DeepSpeed's own variant of Muon is "
            "not counted here. Use another --optimizer, or --sharding fsdp."
        )


def _percent(step: int) -> float:
    return step * 100 / STEPS
