"""A row of memory per selection, full fine-tuning and LoRA, and the largest selection that fits."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from spectrum.budget.budget import Memory, Setup, largest_that_fits, memory
from spectrum.budget.sizes import show_size
from spectrum.budget.weights import all_names, model_weights, with_lora
from spectrum.results.scan import Scan
from spectrum.selection import Treatment, select_top

PERCENTS = (5, 10, 15, 20, 25, 30, 40, 50, 60, 70, 80, 90, 100)


@dataclass(frozen=True)
class Limit:
    """The memory of a GPU, and the percentage of it that stays free."""

    memory: int
    reserve_percent: float

    @property
    def usable(self) -> int:
        """Bytes that training may use."""
        return int(self.memory * (100 - self.reserve_percent) / 100)


@dataclass(frozen=True)
class Report:
    """The memory that training a model takes on one GPU.

    Attributes:
        scan: of the model.
        setup: how it is trained.
        rows: label -> memory; the selections first, then full fine-tuning and LoRA.
        limit: of the GPU, or None.
        fits: the largest top percent within the limit, and its memory; None if there is no limit.
    """

    scan: Scan
    setup: Setup
    rows: Mapping[str, Memory]
    limit: Limit | None = None
    fits: tuple[float, Memory] | None = None

    @property
    def activations(self) -> bool:
        """Whether activations are counted."""
        return any(row.activations for row in self.rows.values())

    @property
    def document(self) -> dict[str, Any]:
        """Everything in bytes per GPU, for JSON."""
        document: dict[str, Any] = {
            "model": {"id": self.scan.model.id, "revision": self.scan.model.revision},
            "setup": asdict(self.setup),
            "selections": {label: _sizes(row) for label, row in self.rows.items()},
        }
        if self.limit and self.fits:
            top_percent, row = self.fits
            limit = {**asdict(self.limit), "usable": self.limit.usable}
            document["fits"] = {**limit, "top_percent": top_percent, **_sizes(row)}
        return document

    def assumed(self, *, scored: bool) -> str:
        """The first line: what the figures assume. `scored` is False if the scan is a blank one."""
        setup = self.setup
        gpus = "1 GPU" if setup.gpus == 1 else f"{setup.gpus} GPUs, sharding {setup.sharding}"
        counted = "activations estimated" if self.activations else "activations not counted"
        scores = "" if scored else ", equal scores in all layers (no scan)"
        return f"Assumed: {setup.optimizer}, {setup.precision}, {gpus}, frozen weights in bf16, {counted}{scores}."

    def remarks(self) -> list[str]:
        """The last lines: what fits, and what is not counted."""
        missing = "" if self.activations else "activations, "
        not_counted = (
            f"Not counted: {missing}the CUDA context, memory that the allocator reserves or fragments, and "
            "communication buffers. Leave 10 to 20 % of the GPU's memory free, and more for long sequences."
        )
        if self.limit is None or self.fits is None:
            return [not_counted]
        top_percent, row = self.fits
        fitting = (
            f"{show_size(self.limit.memory)}, of which {self.limit.reserve_percent:g} % stay free (--reserve): the "
            f"largest selection within {show_size(self.limit.usable)} is top {top_percent:g} %, "
            f"{show_size(row.total)} per GPU"
        )
        return [fitting, not_counted]


def make_report(
    scan: Scan,
    setup: Setup,
    *,
    top: float | None = None,
    embeddings: Treatment = "train",
    norms: Treatment = "freeze",
    lora_rank: int = 16,
    activations: int = 0,
    limit: Limit | None = None,
) -> Report:
    """Count the memory of training selections of a scan.

    Args:
        scan: of the model; only its shapes and which parameters are of one module type matter.
        setup: how the model is trained.
        top: the one top percent to count; None is all `PERCENTS`.
        embeddings: whether the selections train the embedding and the head.
        norms: whether they train all norms.
        lora_rank: rank of the LoRA to compare with.
        activations: bytes of them, in every row.
        limit: find the largest selection within it.

    Raises:
        SelectionError: no selection fits, no shapes in the scan, or an optimizer that cannot step on such shards.
    """

    def needed(top_percent: float) -> Memory:
        selection = select_top(scan, top_percent, embeddings=embeddings, norms=norms)
        return memory(model_weights(scan, selection.names), setup, activations=activations)

    rows = {f"top {each:g} %": needed(each) for each in (PERCENTS if top is None else (top,))}
    weights = model_weights(scan, all_names(scan))
    rows["full"] = memory(weights, setup, activations=activations)
    rows[f"LoRA, rank {lora_rank}"] = memory(with_lora(weights, lora_rank), setup, activations=activations)
    return Report(scan, setup, rows, limit, largest_that_fits(needed, limit.usable) if limit else None)


def _sizes(row: Memory) -> dict[str, int]:
    return {**asdict(row), "total": row.total}
