"""PEFT: the settings of a LoraConfig as JSON, `LoraConfig(**json.load(file))`."""

import json

from spectrum.exporting.lora import LoraOptions, lora_targets
from spectrum.results.scan import Scan
from spectrum.selection import Selection


def to_peft(selection: Selection, scan: Scan, options: LoraOptions) -> tuple[str, tuple[str, ...]]:
    """The selection as LoraConfig settings, and notes for the user.

    Raises:
        SelectionError: a selection that PEFT cannot express, or would match differently.
    """
    targets = lora_targets(selection, scan, options)
    settings: dict[str, object] = {
        "r": options.r,
        "lora_alpha": options.lora_alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": [],  # never left out: PEFT has defaults of its own per model type
        **targets.settings(),
    }
    return json.dumps(settings, allow_nan=False, indent=1, ensure_ascii=False) + "\n", targets.notes
