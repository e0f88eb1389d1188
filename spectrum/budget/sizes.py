"""Sizes of memory as people write them: GB is 10^9 bytes, GiB 2^30."""

import re
from fractions import Fraction

_POWERS = {"k": 1, "m": 2, "g": 3, "t": 4}


def parse_size(text: str) -> int:
    """Bytes of '48GB' or '80G' (10^9), '48GiB' (2^30); K, M and T alike, upper or lower case, with or without a space.

    Raises:
        ValueError: the text is not a size.
    """
    found = re.fullmatch(r"\s*([0-9]{1,15}(?:\.[0-9]{1,15})?)\s*([kmgt])(i?)(b?)\s*", text, re.IGNORECASE | re.ASCII)
    if found and Fraction(found[1]) > 0:
        return int(Fraction(found[1]) * (1024 if found[3] else 1000) ** _POWERS[found[2].lower()])
    raise ValueError(f"'{text}' is not a size of memory: give a number and a unit, such as 48GB (10^9) or 48GiB (2^30)")


def unit(size_bytes: int) -> tuple[str, float]:
    """GB, or MB for less than one GB, and how many bytes it is."""
    return ("GB", 1e9) if size_bytes >= 1e9 else ("MB", 1e6)


def show_size(size_bytes: int) -> str:
    """In GB or MB, with two decimals."""
    name, scale = unit(size_bytes)
    return f"{size_bytes / scale:.2f} {name}"
