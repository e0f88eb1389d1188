"""All commands, each registered by its file."""

from spectrum.cli import bench, check, import_, scan, select, show
from spectrum.cli.app import app

__all__ = ["app", "bench", "check", "import_", "scan", "select", "show"]
