"""Core dumps: a process that holds a key leaves none, and a dump made by hand holds no memory.

A limit of one byte is too small for any dump. It also keeps the kernel from starting a handler named in
``core_pattern``, which a limit of zero does not (``do_coredump`` in fs/coredump.c). Without a handler, a
limit of zero stays zero. The filter excludes all memory from dumps made another way (``gcore``). Child
processes inherit both.
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
    """The dumps that a process may leave: the soft limit in bytes, and the kernel's filter as text."""

    limit_bytes: int
    filter: bytes

    def allow(self, pid: int) -> None:
        """Applies these settings to another process, as far as the kernel permits."""
        with contextlib.suppress(OSError, ValueError):
            _, most = resource.prlimit(pid, resource.RLIMIT_CORE)
            resource.prlimit(pid, resource.RLIMIT_CORE, (self.limit_bytes, most))
        _filter(pid, self.filter)


@functools.cache
def forbid() -> CoreDumps:
    """Forbids dumps of this process and its children; returns the settings from before."""
    before, most = resource.getrlimit(resource.RLIMIT_CORE)
    found = CoreDumps(before, b"")
    with contextlib.suppress(OSError):
        filter_before = (_PROC / "self" / "coredump_filter").read_bytes().strip()
        found = CoreDumps(before, b"0x" + filter_before)
    # Not the hard limit: a command that holds no key gets its soft limit back.
    with contextlib.suppress(OSError, ValueError):
        if before != 0 or _is_handled():
            resource.setrlimit(resource.RLIMIT_CORE, (_NO_ROOM_BYTES, most))
    _filter(os.getpid(), _NO_MEMORY)
    return found


def _is_handled() -> bool:
    """Whether dumps go to a program or a socket, which get them at any limit except one byte."""
    with contextlib.suppress(OSError):
        return (_PROC / "sys" / "kernel" / "core_pattern").read_bytes().startswith((b"|", b"@"))
    return True


def _filter(pid: int, words: bytes) -> None:
    with contextlib.suppress(OSError):
        (_PROC / str(pid) / "coredump_filter").write_bytes(words)
