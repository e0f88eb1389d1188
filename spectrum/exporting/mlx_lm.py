"""MLX-LM: `lora_parameters` for `mlx_lm.lora --config`.

How MLX-LM reads it (0.32, mlx_lm/tuner/utils.py, linear_to_lora_layers): a key is a module's path inside a block, for
the last `num_layers` blocks, or its full path in the model. Full paths are written, so each key is one module. Its
models follow the names of transformers 4, with the experts of a layer in one `switch_mlp`. The tables below list the
classes known from its model files to agree; every other class is an error.
"""

import re
from collections.abc import Iterator

from spectrum.errors import SelectionError
from spectrum.exporting.header import header, refuse_control, scalar
from spectrum.exporting.lora import LoraOptions, bias_notes
from spectrum.results.scan import Scan
from spectrum.selection import Selection

# Classes whose linear layers MLX-LM calls as transformers does. Not DeepSeek-V3: it splits kv_b_proj in two.
_SAME = frozenset(
    f"{name}ForCausalLM"
    for name in ("Cohere2", "Gemma2", "Gemma3", "Granite", "Llama", "Mistral", "Olmo2", "Phi3", "Qwen2", "Qwen3")
)
# Class -> (the module before `experts` in transformers 5, its name in MLX-LM).
_EXPERTS = {
    "MixtralForCausalLM": ("mlp", "block_sparse_moe"),
    "OlmoeForCausalLM": ("mlp", "mlp"),
    "Qwen2MoeForCausalLM": ("mlp", "mlp"),
    "Qwen3MoeForCausalLM": ("mlp", "mlp"),
}
_STACKED = re.compile(r"(.*)\.experts\.(gate_up_proj|down_proj)")  # transformers 5
_SINGLE = re.compile(r"(.*)\.experts\.\*\.(\w+)\.weight")  # transformers 4
_PROJECTIONS = {
    "gate_up_proj": ("gate_proj", "up_proj"),
    "gate_proj": ("gate_proj",),
    "up_proj": ("up_proj",),
    "down_proj": ("down_proj",),
    "w1": ("gate_proj",),
    "w3": ("up_proj",),
    "w2": ("down_proj",),
}


def to_mlx_lm(selection: Selection, scan: Scan, options: LoraOptions) -> tuple[str, tuple[str, ...]]:
    """The selection as LoRA keys of MLX-LM, and notes for the user.

    Raises:
        SelectionError: a class whose names in MLX-LM are not known here, or a parameter that it cannot adapt.
    """
    if options.by_snr:
        raise SelectionError("MLX-LM has one rank for all modules. Leave --rank-pattern out.")
    if selection.norms:
        raise SelectionError("MLX-LM trains nothing beside its adapters, so no norms. Pass --norms freeze.")
    keys = [key for name in (*selection.embeddings, *selection.weights) for key in _keys(name, scan)]
    if len(set(keys)) != len(keys) or not keys:
        raise SelectionError("The selection does not map to modules of MLX-LM one to one. Take --format peft instead.")
    lines = [
        *header(selection, scan, adapters=True),
        "fine_tune_type: lora",
        "num_layers: -1",
        "lora_parameters:",
        f"  rank: {options.r}",
        f"  scale: {options.lora_alpha / options.r:.4g}",
        "  dropout: 0.0",
        "  keys:",
        *(f"  - {scalar(key)}" for key in keys),
    ]
    return "\n".join(lines) + "\n", tuple(_notes(selection))


def _keys(name: str, scan: Scan) -> Iterator[str]:
    """Paths of the modules of MLX-LM that hold a parameter."""
    refuse_control(name)
    known = scan.model.model_class or ""
    if known not in _SAME and known not in _EXPERTS:
        raise SelectionError(
            f"How MLX-LM names the modules of {known or 'a model of unknown class'} is not known here, only those of "
            f"{', '.join(sorted({*_SAME, *_EXPERTS}))}. Take --format peft instead."
        )
    block, renamed = _EXPERTS.get(known, ("mlp", "mlp"))

    def path(module: str) -> str:
        return ".".join(renamed if segment == block else segment for segment in module.split("."))

    experts = _STACKED.fullmatch(name) or _SINGLE.fullmatch(name)
    if experts and known in _EXPERTS and experts[2] in _PROJECTIONS:
        yield from (f"{path(experts[1])}.switch_mlp.{projection}" for projection in _PROJECTIONS[experts[2]])
    elif name.endswith(".weight") and "*" not in name:
        yield path(name.removesuffix(".weight"))
    else:
        raise SelectionError(f"'{name}' is not a linear layer of MLX-LM's {known}. Leave it out with --exclude.")


def _notes(selection: Selection) -> Iterator[str]:
    if selection.embeddings:
        yield "MLX-LM trains adapters only: embedding and head get one as well. --embeddings freeze leaves them out."
    else:
        yield "Embedding and head are frozen, as is usual with adapters. --embeddings train adapts them as well."
    yield from bias_notes(selection)
