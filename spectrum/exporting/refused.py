"""Trainers that have no way to name single weight matrices: errors that say what can be done instead."""

from typing import NoReturn

from spectrum.errors import SelectionError

_WHY = {
    # src/llamafactory/model/adapter.py: freeze_trainable_layers is one number, n first or n last layers.
    "llama-factory": "LLaMA-Factory's freeze training takes a number of first or last layers and module names that are "
    "trained in each of them, so it cannot train single weight matrices. For LoRA, put the target_modules of --format "
    "peft into its lora_target, separated by commas; for full training take --format axolotl or swift.",
    # torchtune names its modules itself (layers.0.attn.q_proj), and its recipes train everything or LoRA by kind.
    "torchtune": "torchtune's recipes train every weight, or LoRA by kind of module, and its models name their modules "
    "differently, so it cannot train single weight matrices. Take --format axolotl or swift, or --format names "
    "in a loop of your own.",
}


def refuse(target: str) -> NoReturn:
    """Raise SelectionError with the reason and the way out."""
    raise SelectionError(_WHY[target])
