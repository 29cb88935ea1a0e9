"""Sizes as people write them: 12G, 1.5GiB, 800MB on a command line; 1.5 GB in our own words.

K, M, G, T and KiB, MiB, ... are powers of 1024, as systemd and Docker have them; KB, MB, GB, TB are powers of
1000. A number alone counts bytes.
"""

from __future__ import annotations

import re

_SIZE = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,9})?)\s*(?:([kmgt])(ib|b)?|b)?", re.IGNORECASE)
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}
_MOST_BYTES = 2**62


def parse_size(text: str) -> int:
    """The size in bytes. Raises ValueError, whose text is for people."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is no size: write 12G, 1.5GiB or 800MB")
    base = 1000 if (match[3] or "").lower() == "b" else 1024
    unit_bytes: int = base ** _POWERS[(match[2] or "").lower()]
    size_bytes = round(float(match[1]) * unit_bytes)
    if size_bytes < 1:
        raise ValueError(f"{text!r} is no size: it must be more than nothing")
    if size_bytes > _MOST_BYTES:
        raise ValueError(f"{text!r} is more than any machine has")
    return size_bytes


def size(size_bytes: float) -> str:
    """A size for people, in powers of 1000."""
    for unit, length in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size_bytes >= length:
            return f"{size_bytes / length:.1f} {unit}"
    return f"{size_bytes:.0f} B"
