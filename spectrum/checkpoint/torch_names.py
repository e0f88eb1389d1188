"""What a state dict that torch.save wrote may name: dtypes, storages, functions that rebuild tensors, harmless values.

Nothing named here is ever called; what is not named here is refused. After `torch/_weights_only_unpickler.py` of 2.13.
"""

# dtype as safetensors spells it, and bytes per element, by torch's name. Storages of quantised integers have no such
# dtype; those without one (UntypedStorage) count bytes.
DTYPES = {
    "torch.float64": ("F64", 8), "torch.float32": ("F32", 4),
    "torch.float16": ("F16", 2), "torch.bfloat16": ("BF16", 2),
    "torch.int64": ("I64", 8), "torch.int32": ("I32", 4), "torch.int16": ("I16", 2), "torch.int8": ("I8", 1),
    "torch.uint64": ("U64", 8), "torch.uint32": ("U32", 4), "torch.uint16": ("U16", 2), "torch.uint8": ("U8", 1),
    "torch.bool": ("BOOL", 1), "torch.complex64": ("C64", 8), "torch.complex128": ("C128", 16),
    "torch.float8_e4m3fn": ("F8_E4M3", 1), "torch.float8_e5m2": ("F8_E5M2", 1), "torch.float8_e8m0fnu": ("F8_E8M0", 1),
    "torch.float8_e4m3fnuz": ("F8_E4M3FNUZ", 1), "torch.float8_e5m2fnuz": ("F8_E5M2FNUZ", 1),
}  # fmt: skip
_STORAGES = {
    "Double": "float64", "Float": "float32", "Half": "float16", "BFloat16": "bfloat16", "Long": "int64", "Int": "int32",
    "Short": "int16", "Char": "int8", "Byte": "uint8", "Bool": "bool", "ComplexFloat": "complex64",
    "ComplexDouble": "complex128",
}  # fmt: skip
_STORAGE_DTYPES = {f"torch.{name}Storage": DTYPES[f"torch.{dtype}"] for name, dtype in _STORAGES.items()}
_BYTES = dict.fromkeys(("torch.storage.UntypedStorage", "torch.UntypedStorage"), ("U8", 1))
_QUANTIZED = {f"torch.{name}Storage": ("quantised", size) for name, size in
              {"QInt8": 1, "QUInt8": 1, "QInt32": 4, "QUInt4x2": 1, "QUInt2x4": 1}.items()}  # fmt: skip
STORAGES = _STORAGE_DTYPES | _BYTES | _QUANTIZED

# What a state dict may name besides: functions that rebuild tensors, what they are given, and harmless values.
_GLOBALS = {
    "collections.OrderedDict", "collections.Counter", "builtins.set", "builtins.complex", "builtins.bytearray",
    "__builtin__.set", "__builtin__.complex", "__builtin__.bytearray", "_codecs.encode", "torch.Size", "torch.Tensor",
    "torch.device", "torch.nn.parameter.Parameter", "torch.serialization._get_layout",
    "torch._tensor._rebuild_from_type_v2", "torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2",
    "torch._utils._rebuild_tensor_v3", "torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state",
    "torch._utils._rebuild_qtensor", "torch._utils._rebuild_sparse_tensor", "torch._utils._rebuild_nested_tensor",
    "torch._utils._rebuild_meta_tensor_no_storage", "torch._utils._rebuild_wrapper_subclass",
    "torch._utils._rebuild_device_tensor_from_numpy", "torch._utils._rebuild_device_tensor_from_cpu_tensor",
    "torch.per_tensor_affine", "torch.per_tensor_symmetric", "torch.per_channel_affine",
    "torch.per_channel_symmetric", "torch.per_channel_affine_float_qparams",
}  # fmt: skip
ALLOWED = frozenset(_GLOBALS | DTYPES.keys() | STORAGES.keys())
