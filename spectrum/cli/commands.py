"""All commands, each registered by its file."""

from spectrum.cli import bench, budget, check, diff, import_, scan, select, show
from spectrum.cli.app import app

__all__ = ["app", "bench", "budget", "check", "diff", "import_", "scan", "select", "show"]
