"""Axolotl: the config lines for LoRA or QLoRA on the selected modules.

Axolotl 0.19.0 (loaders/adapter.py) hands them to PEFT as they stand; see `lora` for how PEFT reads them.
Without dropout: PEFT cannot drop out the input of a parameter, and Axolotl refuses the two together.
"""

import re
from collections.abc import Iterable, Iterator

from spectrum.errors import SelectionError
from spectrum.exporting.header import header, scalar
from spectrum.exporting.lora import LoraOptions, LoraTargets, lora_targets
from spectrum.results.scan import Scan
from spectrum.selection import Selection

# A mapping's key on one line may have 1024 characters (YAML 1.2, section 7.4.2).
_LONGEST_KEY = 1000


def to_axolotl_lora(selection: Selection, scan: Scan, options: LoraOptions) -> tuple[str, tuple[str, ...]]:
    """The selection as YAML to paste into an Axolotl config, and notes for the user.

    Raises:
        SelectionError: what PEFT or Axolotl cannot express, or would match otherwise.
    """
    targets = lora_targets(selection, scan, options)
    _check(targets)
    lines = [*header(selection, scan, adapters=True), *_scalars(options, targets)]
    return "\n".join([*lines, *_lists(targets)]) + "\n", targets.notes


def _scalars(options: LoraOptions, targets: LoraTargets) -> Iterator[str]:
    yield f"adapter: {'qlora' if options.four_bit else 'lora'}"
    if options.four_bit:
        yield "load_in_4bit: true"
    yield f"lora_r: {options.r}"
    yield f"lora_alpha: {options.lora_alpha}"
    yield "lora_dropout: 0.0"
    if targets.tied:
        yield "peft_ensure_weight_tying: true"


def _lists(targets: LoraTargets) -> Iterator[str]:
    if isinstance(targets.modules, str):
        yield f"lora_target_modules: {scalar(targets.modules)}"
    else:
        yield from _list("lora_target_modules", targets.modules)
    yield from _list("lora_target_parameters", targets.parameters)
    yield from _list("lora_modules_to_save", targets.saved)
    yield from _mapping("lora_rank_pattern", targets.ranks)
    yield from _mapping("lora_alpha_pattern", targets.alphas)


def _list(key: str, names: Iterable[str]) -> Iterator[str]:
    lines = [f"- {scalar(name)}" for name in names]
    if lines:
        yield f"{key}:"
        yield from lines


def _mapping(key: str, numbers: dict[str, int]) -> Iterator[str]:
    if numbers:
        yield f"{key}:"
        yield from (f"  {scalar(name)}: {number}" for name, number in numbers.items())


def _check(targets: LoraTargets) -> None:
    """Axolotl compiles every entry of the list (utils/schemas/config.py, check_lora_target_modules_regex)."""
    for name in (*([] if isinstance(targets.modules, str) else targets.modules), *targets.ranks):
        try:
            re.compile(name)
        except re.error as error:
            raise SelectionError(
                f"Axolotl reads lora_target_modules as expressions, and '{name}' is none. Leave it out with --exclude."
            ) from error
        if len(name) > _LONGEST_KEY:
            raise SelectionError(
                f"'{name[:60]}...' is too long a name for a key in YAML. Train without --rank-pattern."
            )
