"""Quantised formats that are not read: recognised, named, refused."""

from collections.abc import Mapping, Sequence
from typing import Any

from spectrum.checkpoint.tensors import FLOAT_SIZES, Tensor
from spectrum.errors import CheckpointError

# Format -> last segments of the names that its checkpoints have, all of them; the first that fits names the format.
# Sources: quantizers and integrations of transformers 5.23 (`serialized_names`); vLLM's loaders for NVFP4; for the
# others the library that writes them.
_SIGNATURES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("GPTQ", ("qweight", "qzeros", "g_idx")),
    ("AWQ", ("qweight", "qzeros")),
    ("bitsandbytes 4-bit", ("absmax", "quant_map")),
    ("bitsandbytes 8-bit", ("SCB",)),
    ("NVFP4", ("weight_scale_2",)),
    ("NVFP4", ("weight_packed", "weight_global_scale")),
    ("compressed-tensors int4", ("weight_packed",)),
    ("compressed-tensors asymmetric", ("weight_zero_point",)),
    ("torchao", ("_weight_qdata",)),
    ("torchao", ("weight:qdata",)),
    ("HQQ", ("W_q",)),
    ("EETQ", ("weight_scales",)),
    ("quanto", ("_data", "_scale")),
    ("AQLM", ("codes", "codebooks")),
    ("MLX", ("scales", "biases")),
)
# Values of quant_method that say what the weights are, and say it better than the names; the others stand for many
# formats ('compressed-tensors', 'modelopt', 'quark') or for what was dequantised already ('fp8', 'mxfp4').
_METHODS = {
    "gptq": "GPTQ", "awq": "AWQ", "auto-round": "AutoRound", "torchao": "torchao", "hqq": "HQQ", "eetq": "EETQ",
    "quanto": "quanto", "aqlm": "AQLM", "vptq": "VPTQ", "higgs": "HIGGS", "spqr": "SpQR", "bitnet": "BitNet",
    "nvfp4": "NVFP4", "sinq": "SINQ", "fp_quant": "FP-Quant",
}  # fmt: skip

# No format packs into 64 bits: I64 are positions and counters.
_PACKED_DTYPES = ("I8", "U8", "I16", "U16", "I32", "U32")
_CODE_NAMES = {"weight", *(name for _, names in _SIGNATURES for name in names)}
_BUFFERS = {"bias", "masked_bias", "mask", "position_ids", "relative_position_index", "tid2eid"}


def quantization_config(config: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """The quantization_config of a config.json, at its top or in its text_config; {} where there is none."""
    parts = [config or {}, (config or {}).get("text_config")]
    found = [part.get("quantization_config") for part in parts if isinstance(part, dict)]
    return next((value for value in found if isinstance(value, dict)), {})


def refuse_quantized(identity: str, config: Mapping[str, Any] | None, tensors: Sequence[Tensor]) -> None:
    """Refuse a checkpoint if one of these tensors is a quantised weight.

    A config that speaks of quantisation does not matter where all weights are plain floats: it was left behind.

    Args:
        identity: of the checkpoint, for errors.
        config: the parsed config.json.
        tensors: that are not read as weights or scales of FP8 or MXFP4.

    Raises:
        CheckpointError: names the format and what to scan instead.
    """
    method = _method(config)
    suspects = [tensor for tensor in tensors if _is_quantized(tensor, method)]
    if not suspects:
        return
    leaves = {_leaf(tensor) for tensor in tensors}
    signature = next((entry for entry in _SIGNATURES if leaves.issuperset(entry[1])), None)
    known = _METHODS.get(method) or (signature and signature[0])
    first = suspects[0]
    if not known and (first.dtype.startswith("F8") or first.name.endswith("_blocks")):
        raise CheckpointError(
            f"Tensor '{first.name}' of '{identity}' is {first.dtype} without a scale beside it, so its values are "
            "not known. Download the checkpoint again, or scan the unquantised base model instead."
        )
    evidence = ", ".join(signature[1]) if signature else f"'{first.name}' is {first.dtype}"
    floats = known == "NVFP4" or first.dtype.startswith("F")
    why = "this format is not read" if floats else "quantised integers have no spectrum to scan"
    raise CheckpointError(
        f"'{identity}' holds {known or method or first.dtype} weights ({evidence}): {why}. "
        "Scan the unquantised base model instead."
    )


def _method(config: Mapping[str, Any] | None) -> str:
    """The quant_method of a config, as transformers reads it; '' where there is none."""
    stated = quantization_config(config)
    if stated.get("load_in_4bit") or stated.get("load_in_8bit"):
        return "bitsandbytes 4-bit" if stated.get("load_in_4bit") else "bitsandbytes 8-bit"
    return str(stated.get("quant_method", ""))


def _is_quantized(tensor: Tensor, method: str) -> bool:
    """Whether a tensor holds codes: a small float, or packed integers under the name of a weight.

    Masks, position tables and counters are integers too. A config that names a format makes every other table of
    integers suspect, for the formats whose names are not listed.
    """
    if tensor.dtype.startswith("F") and tensor.dtype not in FLOAT_SIZES:
        return True
    if tensor.dtype not in _PACKED_DTYPES or _leaf(tensor) in _BUFFERS:
        return False
    named = method or ".experts." in tensor.name
    return _leaf(tensor) in _CODE_NAMES or bool(named and len(tensor.shape) > 1)


def _leaf(tensor: Tensor) -> str:
    return tensor.name.rpartition(".")[2]
