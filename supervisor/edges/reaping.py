"""Dead children of ours: we are a subreaper, so what a worker has left behind becomes our child."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection

import psutil


def reap(spared: Collection[int]) -> None:
    """Collects our dead children, but those, by pid."""
    with contextlib.suppress(ChildProcessError):
        while (dead := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) is not None:
            if dead.si_pid in spared:
                # The kernel would name this one again and again, and none that comes after it.
                _reap_each(spared)
                return
            os.waitpid(dead.si_pid, os.WNOHANG)


def _reap_each(spared: Collection[int]) -> None:
    for child in psutil.Process().children():
        if child.pid not in spared:
            is_alive(child)


def is_alive(process: psutil.Process) -> bool:
    """Whether a process still runs; a zombie that has become our child is reaped here."""
    try:
        if process.status() != psutil.STATUS_ZOMBIE:
            return True
        os.waitpid(process.pid, os.WNOHANG)
    except (psutil.Error, ChildProcessError):
        pass
    return False
