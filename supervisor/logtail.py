"""The end of what a worker has said, out of its log."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

_BYTES = 64 * 1024


def read(log: Path) -> str:
    """The last 64 KiB of a log; empty for one that cannot be read."""
    with contextlib.suppress(OSError):
        descriptor = os.open(log, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            start = max(0, os.fstat(descriptor).st_size - _BYTES)
            return os.pread(descriptor, _BYTES, start).decode("utf-8", "replace")
        finally:
            os.close(descriptor)
    return ""
