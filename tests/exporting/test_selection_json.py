"""The selection as JSON."""

from exporting.models import example, golden

from spectrum.exporting import to_json
from spectrum.selection import select_top


def test_golden():
    """The whole text."""
    scan = example()
    assert to_json(select_top(scan, 50), scan) == golden("selection.json")
