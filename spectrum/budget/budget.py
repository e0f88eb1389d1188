"""Memory that training takes on one GPU: selections of a scan, full fine-tuning and LoRA, counted alike."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from spectrum.budget.optimizers import OptimizerName, state_bytes
from spectrum.budget.sharding import Precision, Sharding, shard
from spectrum.budget.sizes import show_size
from spectrum.budget.weights import Weight
from spectrum.errors import SelectionError

STEPS = 1000  # the largest selection that fits is looked for in steps of a tenth of a percent


@dataclass(frozen=True)
class Setup:
    """How the model is trained.

    Attributes:
        optimizer: of the trained weights.
        precision: 'bf16' keeps all in bf16 but what the optimizer itself makes wider; 'fp32-master' has an fp32 copy of
            each trained weight, and state to match.
        sharding: DeepSpeed's ZeRO stage 2 or 3, torch's fully_shard, or none.
        gpus: number of them.
        momentum: whether SGD has any.
    """

    optimizer: OptimizerName = "adamw"
    precision: Precision = "bf16"
    sharding: Sharding = "none"
    gpus: int = 1
    momentum: bool = False


@dataclass(frozen=True)
class Memory:
    """Bytes on the fullest GPU, and how many weights are trained. All but the activations are to the byte.

    Attributes:
        trainable: number of weights that are trained, on all GPUs together; adapters included.
        frozen: number of the others.
        weights: bytes of all weights that compute.
        master: of copies that the optimizer updates, where there are any.
        gradients: of the trained weights.
        state: of the optimizer.
        activations: an estimate; 0 where none was asked for.
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
        state=state_bytes(setup.optimizer, part.held, momentum=setup.momentum),
        activations=activations,
    )


def largest_that_fits(needed: Callable[[float], Memory], limit: int) -> tuple[float, Memory]:
    """The largest top percent, to a tenth, whose memory is at most `limit` bytes, and that memory.

    Args:
        needed: memory of the top P percent; never less for a larger P.
        limit: in bytes.

    Raises:
        SelectionError: not even the smallest selection fits.
    """
    low, high = 0, STEPS  # the first is taken to fit; what lies above the second does not
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if needed(_percent(middle)).total <= limit else (low, middle - 1)
    if low == 0:
        least = show_size(needed(_percent(1)).total)
        raise SelectionError(
            f"No selection fits: the smallest, one parameter of each module type, takes {least} per GPU of "
            f"{show_size(limit)}. Use more GPUs with --sharding zero3, an 8-bit optimizer or --embeddings freeze."
        )
    return _percent(low), needed(_percent(low))


def _check(setup: Setup) -> None:
    if setup.sharding == "fsdp" and setup.optimizer not in ("adamw", "sgd", "muon"):
        raise SelectionError(
            f"'{setup.optimizer}' cannot step on the sharded tensors of torch's fully_shard: its code mixes them with "
            "plain ones. Give another --optimizer (adamw, sgd, muon) or another --sharding (zero2, zero3)."
        )
    if setup.sharding in ("zero2", "zero3") and setup.optimizer == "muon":
        raise SelectionError(
            "'muon' takes matrices, and ZeRO hands the optimizer flat vectors; the variant of its own that DeepSpeed "
            "has is not counted here. Give another --optimizer, or --sharding fsdp."
        )


def _percent(step: int) -> float:
    return step * 100 / STEPS
