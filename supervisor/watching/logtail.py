"""The end of what a worker has said, out of its log."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from resilient.host import inside

_BYTES = 64 * 1024


def read(log: Path) -> str:
    """The last 64 KiB of a log; empty for one that cannot be read."""
    with contextlib.suppress(OSError):
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        with inside.way_to(log) as (name, folder):
            descriptor = os.open(name, flags, dir_fd=folder)
        try:
            start = max(0, os.fstat(descriptor).st_size - _BYTES)
            return os.pread(descriptor, _BYTES, start).decode("utf-8", "replace")
        finally:
            os.close(descriptor)
    return ""
