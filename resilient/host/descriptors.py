"""Protects our descriptors in the script's process: a script may close descriptors that it did not open.

Daemonizing helpers close all numbers up to some limit (3 to 1024, 4096, the soft limit). The kernel gives
each new file the lowest free number, so the next file gets the closed number, and our message would go into a
file of the script's. So we move ours to a high number, above the soft limit if possible: no later file gets
it by chance. If a script closes those too (``close_range``, a loop over /proc/self/fd), we detect that by
comparing identities before each use.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import resource
from collections.abc import Iterator

_LEAST = 8192
_MOST = 65536
"""The kernel keeps a table as long as the highest number, and copies it at each fork."""

_ROOM = 64


def out_of_reach(descriptor: int) -> int:
    """Moves an open file to a high number, which exec closes; frees the old number and returns the new one.

    If no high number is available, the file keeps its number.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for floor in _floors(soft, hard):
        with contextlib.suppress(OSError, ValueError), _limit_of(floor + _ROOM, soft, hard):
            moved = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, floor)
            os.close(descriptor)
            return moved
    with contextlib.suppress(OSError):
        os.set_inheritable(descriptor, False)
    return descriptor


def _floors(soft: int, hard: int) -> Iterator[int]:
    """Where to search for a number, the best first. Numbers above the soft limit stay valid."""
    if soft < 0 or soft > _MOST:
        yield _MOST
        return
    yield max(soft, _LEAST)
    if hard > soft:
        yield max(soft, hard - _ROOM)
    yield soft - _ROOM


@contextlib.contextmanager
def _limit_of(number: int, soft: int, hard: int) -> Iterator[None]:
    """Raises the limits only during the block: many programs loop over all numbers below the soft limit."""
    if 0 <= soft < number:
        resource.setrlimit(resource.RLIMIT_NOFILE, (number, hard if hard < 0 else max(hard, number)))
    try:
        yield
    finally:
        if 0 <= soft < number:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


Identity = tuple[int, int]


def identity(descriptor: int) -> Identity | None:
    """Device and inode of the file open under a number; None when it is closed."""
    try:
        status = os.fstat(descriptor)
    except OSError:
        return None
    return status.st_dev, status.st_ino
