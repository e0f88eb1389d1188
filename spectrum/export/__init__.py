"""The text a trainer takes, one file per target."""

from spectrum.export.axolotl import to_axolotl
from spectrum.export.axolotl_lora import to_axolotl_lora
from spectrum.export.axolotl_plugin import PluginFile, plugin_path, to_axolotl_plugin
from spectrum.export.lora import LoraOptions
from spectrum.export.mlx_lm import to_mlx_lm
from spectrum.export.names import to_names, to_regex
from spectrum.export.peft import to_peft
from spectrum.export.refused import refuse
from spectrum.export.selection_json import to_json
from spectrum.export.swift import to_swift

__all__ = [
    "LoraOptions", "PluginFile", "plugin_path", "refuse", "to_axolotl", "to_axolotl_lora", "to_axolotl_plugin",
    "to_json", "to_mlx_lm", "to_names", "to_peft", "to_regex", "to_swift",
]  # fmt: skip
