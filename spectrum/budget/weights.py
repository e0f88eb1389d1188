"""The tensors of a model in training, trained or frozen: the parameters of a scan, and LoRA's adapters."""

from collections.abc import Collection
from dataclasses import dataclass, replace
from math import prod

from spectrum.errors import SelectionError
from spectrum.naming.parameters import Kind
from spectrum.results.scan import ParameterScore, Scan, Unscored


@dataclass(frozen=True)
class Weight:
    """One tensor of the model.

    Attributes:
        shape: of the tensor.
        kind: of the parameter that it belongs to.
        trained: whether it gets gradients.
        adapter: it is one of the two matrices of a LoRA adapter, which PEFT keeps in fp32.
    """

    shape: tuple[int, ...]
    kind: Kind
    trained: bool
    adapter: bool = False

    @property
    def numel(self) -> int:
        """Number of elements."""
        return prod(self.shape)

    @property
    def hidden(self) -> bool:
        """Whether Muon updates it: a 2-D weight of a hidden layer (documentation of torch.optim.Muon)."""
        return len(self.shape) == 2 and self.kind in ("matrix", "experts", "router")

    @property
    def embeds(self) -> bool:
        """Whether it is the weight of an nn.Embedding."""
        return self.kind in ("embedding", "lookup") or (self.kind == "position" and len(self.shape) == 2)


def model_weights(scan: Scan, trained: Collection[str]) -> list[Weight]:
    """Every tensor of the model, once.

    Args:
        scan: of the model.
        trained: names of the trained parameters, as `Selection.names` gives them.

    Raises:
        SelectionError: the scan was imported, and older files hold no shapes.
    """
    names = frozenset(trained)
    return [weight for entry in scan.entries for weight in _weights(entry, scan.model.id, trained=entry.name in names)]


def all_names(scan: Scan) -> tuple[str, ...]:
    """Names of all parameters: what full fine-tuning trains."""
    return tuple(entry.name for entry in scan.entries)


def with_lora(weights: list[Weight], rank: int) -> list[Weight]:
    """The weights, all frozen, and an adapter beside every matrix of the layers.

    A linear layer of shape (out, in) gets A of shape (rank, in) and B of shape (out, rank), as with PEFT's
    `target_modules="all-linear"`. Stacked experts, routers, the embedding and the head get no adapter. (PEFT 0.20
    adapts stacked experts of some model types.)

    Source: arXiv 2106.09685, section 4.1.
    """
    adapters = [
        Weight(shape, weight.kind, trained=True, adapter=True)
        for weight in weights
        if weight.kind in ("matrix", "experts") and len(weight.shape) == 2
        for shape in ((rank, weight.shape[1]), (weight.shape[0], rank))
    ]
    return [*(replace(weight, trained=False) for weight in weights), *adapters]


def _weights(entry: ParameterScore | Unscored, model_id: str, *, trained: bool) -> list[Weight]:
    if entry.shape is None:
        raise SelectionError(
            f"The scan of '{model_id}' was imported and does not hold the shape of '{entry.name}'. Give the model "
            "itself: spectrum budget --model owner/name."
        )
    if "*" in entry.name:  # some scans of 0.1.0 have one entry for the tensors of all experts
        return [Weight(entry.shape[1:], entry.kind, trained)] * entry.shape[0]
    return [Weight(entry.shape, entry.kind, trained)]
