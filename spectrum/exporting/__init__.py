"""The text a trainer takes, one file per target."""

from spectrum.exporting.axolotl import to_axolotl
from spectrum.exporting.axolotl_lora import to_axolotl_lora
from spectrum.exporting.axolotl_plugin import PluginFile, plugin_path, to_axolotl_plugin
from spectrum.exporting.lora import LoraOptions
from spectrum.exporting.mlx_lm import to_mlx_lm
from spectrum.exporting.names import to_names, to_regex
from spectrum.exporting.peft import to_peft
from spectrum.exporting.refused import refuse
from spectrum.exporting.selection_json import to_json
from spectrum.exporting.swift import to_swift

__all__ = [
    "LoraOptions", "PluginFile", "plugin_path", "refuse", "to_axolotl", "to_axolotl_lora", "to_axolotl_plugin",
    "to_json", "to_mlx_lm", "to_names", "to_peft", "to_regex", "to_swift",
]  # fmt: skip
