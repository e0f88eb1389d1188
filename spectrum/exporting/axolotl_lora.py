"""Axolotl: the config lines for LoRA or QLoRA on the selected modules.

Axolotl 0.19.0 (loaders/adapter.py) passes them to PEFT unchanged; see `lora` for how PEFT reads them. There is no
dropout: PEFT cannot drop out the input of a parameter, and Axolotl refuses the two together.
"""

import re
from collections.abc import Iterator

from spectrum.errors import SelectionError
from spectrum.exporting.header import header, scalar
from spectrum.exporting.lora import LoraOptions, LoraTargets, Setting, lora_targets
from spectrum.results.scan import Scan
from spectrum.selection import Selection

# A mapping's key on one line may have 1024 characters (YAML 1.2, section 7.4.2).
_LONGEST_KEY = 1000


def to_axolotl_lora(selection: Selection, scan: Scan, options: LoraOptions) -> tuple[str, tuple[str, ...]]:
    """The selection as YAML to paste into an Axolotl config, and notes for the user.

    Raises:
        SelectionError: a selection that PEFT or Axolotl cannot express, or would match differently.
    """
    targets = lora_targets(selection, scan, options)
    _check(targets)
    settings = targets.settings()
    lines = [
        *header(selection, scan, adapters=True),
        f"adapter: {'qlora' if options.four_bit else 'lora'}",
        *(["load_in_4bit: true"] if options.four_bit else []),
        f"lora_r: {options.r}",
        f"lora_alpha: {options.lora_alpha}",
        "lora_dropout: 0.0",
        *(["peft_ensure_weight_tying: true"] if settings.pop("ensure_weight_tying", False) else []),
        *(line for name, value in settings.items() for line in _entry(f"lora_{name}", value)),
    ]
    return "\n".join(lines) + "\n", targets.notes


def _entry(key: str, value: Setting) -> Iterator[str]:
    if isinstance(value, str):
        yield f"{key}: {scalar(value)}"
    elif isinstance(value, dict):
        yield f"{key}:"
        yield from (f"  {scalar(name)}: {number}" for name, number in value.items())
    elif isinstance(value, tuple):
        yield f"{key}:"
        yield from (f"- {scalar(name)}" for name in value)


def _check(targets: LoraTargets) -> None:
    """Axolotl compiles every entry of the list (utils/schemas/config.py, check_lora_target_modules_regex)."""
    for name in (*([] if isinstance(targets.modules, str) else targets.modules), *targets.ranks):
        try:
            re.compile(name)
        except re.error as error:
            raise SelectionError(
                f"Axolotl reads lora_target_modules as expressions, and '{name}' is not one. Leave it out with "
                "--exclude."
            ) from error
        if len(name) > _LONGEST_KEY:
            raise SelectionError(
                f"'{name[:60]}...' is too long a name for a key in YAML. Train without --rank-pattern."
            )
