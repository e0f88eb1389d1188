"""A scan of every kind of entry."""

from scan_value import scan  # noqa: F401  the fixture
