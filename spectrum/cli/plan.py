"""What a scan will read and compute, before it does."""

from time import perf_counter

from spectrum.checkpoint import Checkpoint
from spectrum.scanning.run import Plan, total_cost

SAMPLE_SIDE = 1024  # of the matrix that is timed: large enough for every core, done in a tenth of a second


def plan_lines(checkpoint: Checkpoint, plan: Plan) -> list[str]:
    """Whole lines: the model and how much of it is scored, what will be read, how long computing will take."""
    from spectrum.scanning.decompose import bytes_to_read  # noqa: PLC0415  it imports torch

    device = plan.settings.device or "cpu"
    size_bytes = sum(tensor.size_bytes for tensor in checkpoint.stored_tensors.values())
    read_bytes = bytes_to_read(checkpoint, plan.scored, device=device)
    revision = f" @ {plan.model.revision}" if plan.model.revision else ""
    place = "fetch, straight into memory" if checkpoint.remote else "read"
    return [
        f"'{plan.model.id}'{revision}: {plan.matrix_count} matrices of {len(plan.scored)} parameters",
        f"to {place}: {_amount(read_bytes)} of {_amount(size_bytes)}",
        f"computing: about {_duration(_estimated_seconds(plan, device))} on {device}, beside the reading",
    ]


def _estimated_seconds(plan: Plan, device: str) -> float:
    """By the time that one matrix takes on this device now."""
    import torch  # noqa: PLC0415

    from spectrum.scanning.decompose import estimated_cost  # noqa: PLC0415
    from spectrum.spectra.solver import singular_values  # noqa: PLC0415

    sample = torch.randn(SAMPLE_SIDE, SAMPLE_SIDE, generator=torch.Generator().manual_seed(0))
    singular_values(sample, device=device)  # the first is slower: libraries are loaded
    start = perf_counter()
    singular_values(sample, device=device)
    return (perf_counter() - start) * total_cost(plan) / estimated_cost((SAMPLE_SIDE, SAMPLE_SIDE))


def _amount(size_bytes: int) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size_bytes >= size:
            return f"{size_bytes / size:.1f} {unit}"
    return f"{size_bytes} bytes"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"
