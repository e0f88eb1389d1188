"""The text a trainer takes, one file per target."""

from spectrum.exporting.axolotl import to_axolotl
from spectrum.exporting.axolotl_lora import to_axolotl_lora
from spectrum.exporting.header import adapted_words, trainable_words
from spectrum.exporting.into import put_into
from spectrum.exporting.lora import LoraOptions
from spectrum.exporting.mlx_lm import to_mlx_lm
from spectrum.exporting.names import to_json, to_names, to_regex
from spectrum.exporting.peft import to_peft
from spectrum.exporting.rehearsal import rehearse
from spectrum.exporting.swift import to_swift
from spectrum.exporting.targets import (
    ADAPTERS,
    REFUSED,
    Exported,
    FormatName,
    check_format,
    default_embeddings,
    export,
    file_name,
    write_beside,
)

__all__ = [
    "ADAPTERS", "REFUSED", "Exported", "FormatName", "LoraOptions", "adapted_words", "check_format",
    "default_embeddings", "export", "file_name", "put_into", "rehearse", "to_axolotl", "to_axolotl_lora", "to_json",
    "to_mlx_lm", "to_names", "to_peft", "to_regex", "to_swift", "trainable_words", "write_beside",
]  # fmt: skip
