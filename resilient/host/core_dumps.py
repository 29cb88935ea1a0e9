"""Core dumps: a process that holds a key leaves none, and one that somebody makes by hand is empty.

A limit of one byte is too small for any dump, and keeps the kernel from starting a handler where
``core_pattern`` names one: a limit of zero does not (``do_coredump`` in fs/coredump.c). Where there is no
handler a limit of zero stays zero. The filter says what a dump holds that is made in another way (``gcore``):
no memory. What the process starts inherits both.
"""

from __future__ import annotations

import contextlib
import functools
import os
import resource
from dataclasses import dataclass
from pathlib import Path

_NO_ROOM_BYTES = 1
_NO_MEMORY = b"0"
_PROC = Path("/proc")


@dataclass(frozen=True)
class CoreDumps:
    """What a process may leave: the soft limit in bytes, and the kernel's filter in its own words."""

    limit_bytes: int
    filter: bytes

    def allow(self, pid: int) -> None:
        """Lets another process leave that, as far as the kernel lets us."""
        with contextlib.suppress(OSError, ValueError):
            _, most = resource.prlimit(pid, resource.RLIMIT_CORE)
            resource.prlimit(pid, resource.RLIMIT_CORE, (self.limit_bytes, most))
        _filter(pid, self.filter)


@functools.cache
def forbid() -> CoreDumps:
    """From here on neither this process nor what it starts leaves any; what was allowed at first."""
    before, most = resource.getrlimit(resource.RLIMIT_CORE)
    found = CoreDumps(before, b"")
    with contextlib.suppress(OSError):
        filter_before = (_PROC / "self" / "coredump_filter").read_bytes().strip()
        found = CoreDumps(before, b"0x" + filter_before)
    # Not the hard limit: a command that holds no key gets its own back.
    with contextlib.suppress(OSError, ValueError):
        if before != 0 or _is_handled():
            resource.setrlimit(resource.RLIMIT_CORE, (_NO_ROOM_BYTES, most))
    _filter(os.getpid(), _NO_MEMORY)
    return found


def _is_handled() -> bool:
    """Whether dumps go to a program or a socket: those get them whatever the limit, but for one byte."""
    with contextlib.suppress(OSError):
        return (_PROC / "sys" / "kernel" / "core_pattern").read_bytes().startswith((b"|", b"@"))
    return True


def _filter(pid: int, words: bytes) -> None:
    with contextlib.suppress(OSError):
        (_PROC / str(pid) / "coredump_filter").write_bytes(words)
