"""ms-swift: the YAML that `swift sft` takes as its first argument.

How ms-swift reads it (4.6, swift/cli/main.py, swift/utils/transformers_utils.py): every key becomes an option; a ratio
of 1 freezes all parameters; `trainable_parameters` are prefixes, so that `gate_up_proj` would train `gate_up_proj_bias`
as well, while `trainable_parameters_regex` is one expression for re.search, applied last: that one is exact.
"""

from spectrum.errors import SelectionError
from spectrum.exporting.header import header, scalar
from spectrum.exporting.names import to_regex
from spectrum.results.scan import Scan
from spectrum.selection import Selection

# ms-swift hands the expression to the training process as one argument; Linux takes 128 KiB of one (MAX_ARG_STRLEN).
_LONGEST = 131_000


def to_swift(selection: Selection, scan: Scan) -> str:
    """The selection as arguments of ms-swift, for full training.

    Raises:
        SelectionError: an expression that does not match exactly the selection, or is too long for a command line.
    """
    text = to_regex(selection, scan).rstrip("\n")
    if len(text.encode()) > _LONGEST:
        raise SelectionError(
            f"The expression for ms-swift has {len(text.encode()):,} bytes, and Linux takes 128 KiB as one argument. "
            "Select fewer module types with --modules."
        )
    lines = ["tuner_type: full", "freeze_parameters_ratio: 1", f"trainable_parameters_regex: {scalar(text)}"]
    return "\n".join([*header(selection, scan), *lines]) + "\n"
