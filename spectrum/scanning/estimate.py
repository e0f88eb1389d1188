"""What a scan will read and how long it will compute, before it does."""

from collections.abc import Sequence
from time import perf_counter

from spectrum.checkpoint import Checkpoint
from spectrum.scanning.plan import Plan
from spectrum.scanning.tasks import Task, bytes_to_read, estimated_cost

SAMPLE_SIDE = 1024  # of the matrix that is timed: large enough to use every core, done in a tenth of a second


def describe_work(checkpoint: Checkpoint, plan: Plan, tasks: Sequence[Task]) -> list[str]:
    """What will be read and how long computing will take, a line each.

    Args:
        checkpoint: that the plan was made from.
        plan: with its device. A matrix is decomposed there now, to see how long that takes.
        tasks: the planned ones that are left to do.
    """
    device = plan.settings.device or "cpu"
    size_bytes = sum(tensor.size_bytes for tensor in checkpoint.stored_tensors.values())
    place = "fetch, straight into memory" if checkpoint.remote else "read"
    seconds = _sample_seconds(device) * sum(task.cost for task in tasks) / estimated_cost((SAMPLE_SIDE, SAMPLE_SIDE))
    return [
        f"to {place}: {_amount(bytes_to_read(checkpoint, tasks, device=device))} of {_amount(size_bytes)}",
        f"computing: about {_duration(seconds)} on {device}, beside the reading",
    ]


def _sample_seconds(device: str) -> float:
    import torch  # noqa: PLC0415

    from spectrum.spectra.solver import singular_values  # noqa: PLC0415

    sample = torch.randn(SAMPLE_SIDE, SAMPLE_SIDE, generator=torch.Generator().manual_seed(0))
    singular_values(sample, device=device)  # the first is slower: libraries are loaded
    start = perf_counter()
    singular_values(sample, device=device)
    return perf_counter() - start


def _amount(size_bytes: int) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size_bytes >= size:
            return f"{size_bytes / size:.1f} {unit}"
    return f"{size_bytes} bytes"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"
