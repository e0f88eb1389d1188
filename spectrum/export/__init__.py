"""The text a trainer takes, one file per target."""

from spectrum.export.axolotl import to_axolotl
from spectrum.export.selection_json import to_json

__all__ = ["to_axolotl", "to_json"]
