"""PEFT: the settings of a LoraConfig as JSON, `LoraConfig(**json.load(file))`."""

import json
from typing import Any

from spectrum.exporting.lora import LoraOptions, LoraTargets, lora_targets
from spectrum.results.scan import Scan
from spectrum.selection import Selection


def to_peft(selection: Selection, scan: Scan, options: LoraOptions) -> tuple[str, tuple[str, ...]]:
    """The selection as LoraConfig settings, and notes for the user.

    Raises:
        SelectionError: what PEFT cannot express, or would match otherwise.
    """
    targets = lora_targets(selection, scan, options)
    settings = {"r": options.r, "lora_alpha": options.lora_alpha, "lora_dropout": 0.0, "bias": "none"}
    text = json.dumps(settings | _settings(targets), allow_nan=False, indent=1, ensure_ascii=False)
    return f"{text}\n", targets.notes


def _settings(targets: LoraTargets) -> dict[str, Any]:
    settings: dict[str, Any] = {
        # Empty and not left out: PEFT has defaults of its own per model type.
        "target_modules": targets.modules if isinstance(targets.modules, str) else list(targets.modules)
    }
    if targets.parameters:
        settings["target_parameters"] = list(targets.parameters)
    if targets.saved:
        settings["modules_to_save"] = list(targets.saved)
    if targets.tied:
        settings["ensure_weight_tying"] = True
    if targets.ranks:
        settings |= {"rank_pattern": targets.ranks, "alpha_pattern": targets.alphas}
    return settings
