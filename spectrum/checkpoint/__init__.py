"""Which files, and what their headers say. Knows nothing of models or of singular values."""

from spectrum.checkpoint.fingerprint import Fingerprint, file_states, fingerprint, written_since
from spectrum.checkpoint.local import Checkpoint
from spectrum.checkpoint.opening import open_checkpoint
from spectrum.checkpoint.tensors import FLOAT_SIZES, Tensor

__all__ = [
    "FLOAT_SIZES",
    "Checkpoint",
    "Fingerprint",
    "Tensor",
    "file_states",
    "fingerprint",
    "open_checkpoint",
    "written_since",
]
