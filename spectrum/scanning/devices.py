"""The device that matrices are decomposed on."""

import re

import torch

from spectrum.errors import CheckpointError


def choose_device(wanted: str, *, local_rank: int = 0) -> str:
    """The device to decompose on.

    Args:
        wanted: 'auto' (CUDA if there is a GPU, else the CPU), or a device as torch names it.
        local_rank: of this process among those on its machine; 'auto' and 'cuda' give each a GPU of its own.

    Returns:
        As torch names it. 'mps' gives 'cpu', because torch has no eigenvalues on Apple's GPU.

    Raises:
        CheckpointError: this machine has no such device.
    """
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if wanted == "auto":
        wanted = "cuda" if count else "cpu"
    if wanted == "cuda" and count > 1:
        return f"cuda:{local_rank % count}"
    number = re.fullmatch(r"cuda(?::([0-9]+))?", wanted)
    if number and int(number.group(1) or 0) >= count:
        raise CheckpointError(
            f"This machine has no device '{wanted}' that torch can use ({count} CUDA devices). "
            "Use --device cpu, or install a CUDA build of torch."
        )
    return "cpu" if wanted == "mps" else wanted
