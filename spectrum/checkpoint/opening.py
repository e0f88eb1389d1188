"""Opening a checkpoint: what stands at a path, its headers checked, its quantised weights folded."""

from pathlib import Path

from spectrum.checkpoint.files import find_files
from spectrum.checkpoint.local import Checkpoint
from spectrum.checkpoint.quantized import unquantized


def open_checkpoint(path: str | Path) -> Checkpoint:
    """Open a folder, a Hub cache snapshot or one .safetensors file; headers are read and checked at once.

    FP8 and MXFP4 weights appear under the names and shapes they had before they were quantised.

    Raises:
        CheckpointError: whatever the files' names and headers can tell; a quantisation that has no spectrum to scan.
    """
    return folded(Checkpoint(find_files(Path(path))))


def folded(checkpoint: Checkpoint) -> Checkpoint:
    """The checkpoint with its quantised weights folded; closed where it holds what has no spectrum to scan."""
    try:
        return unquantized(checkpoint)
    except BaseException:
        checkpoint.close()
        raise
