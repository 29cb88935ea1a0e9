"""Descriptors of ours in a process that belongs to somebody else: a script may close what it did not open.

Daemonizing helpers close all numbers up to some limit (3 to 1024, 4096, the soft limit). The kernel gives a
number that was closed to the next file that is opened, because it always takes the lowest free one: a message
of ours would then be written into a file of the script's. So ours go to a high number, above the soft limit
where that can be had: no file that is opened later gets it by chance. A script that closes those as well
(``close_range``, a loop over /proc/self/fd) is found out by comparing identities before each use.
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
    """The same open file under a high number; the number it had is free again, and it is closed on exec.

    Where no high number can be had it stays as it is.
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
    """Where to look for a number, the best first. Numbers above the soft limit go on being valid."""
    if soft < 0 or soft > _MOST:
        yield _MOST
        return
    yield max(soft, _LEAST)
    if hard > soft:
        yield max(soft, hard - _ROOM)
    yield soft - _ROOM


@contextlib.contextmanager
def _limit_of(number: int, soft: int, hard: int) -> Iterator[None]:
    """Raises the limits within it, and not for longer: many programs loop over all below the soft one."""
    if 0 <= soft < number:
        resource.setrlimit(resource.RLIMIT_NOFILE, (number, hard if hard < 0 else max(hard, number)))
    try:
        yield
    finally:
        if 0 <= soft < number:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


Identity = tuple[int, int]


def identity(descriptor: int) -> Identity | None:
    """What is open under a number: device and inode; None for nothing."""
    try:
        status = os.fstat(descriptor)
    except OSError:
        return None
    return status.st_dev, status.st_ino
