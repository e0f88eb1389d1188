"""Which files, and what their headers say. Knows nothing of models or of singular values."""

from spectrum.checkpoint.checkpoint import Checkpoint, open_checkpoint
from spectrum.checkpoint.fingerprint import Fingerprint, fingerprint, written_since
from spectrum.checkpoint.hub import Fetch, open_model
from spectrum.checkpoint.tensors import FLOAT_SIZES, Tensor

__all__ = [
    "FLOAT_SIZES",
    "Checkpoint",
    "Fetch",
    "Fingerprint",
    "Tensor",
    "fingerprint",
    "open_checkpoint",
    "open_model",
    "written_since",
]
