"""Dead children of ours: we are a subreaper, so what a worker has left behind becomes our child."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection

import psutil

_MOST_NAMED = 5
_MOST_CHARACTERS = 60  # of a command line, its end: the script and its arguments


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


def detached(ourselves: psutil.Process, spared: Collection[int], sessions: Collection[int]) -> str:
    """Names our descendants that have left these sessions, as a daemon does, but the spared; "" for none."""
    found = []
    for child in ourselves.children(recursive=True):
        with contextlib.suppress(OSError, psutil.Error):
            if child.pid not in spared and os.getsid(child.pid) not in sessions and is_alive(child):
                found.append(f"process {child.pid}, {' '.join(child.cmdline())[-_MOST_CHARACTERS:]}")
    return "; ".join(found[:_MOST_NAMED])


def is_alive(process: psutil.Process) -> bool:
    """Whether a process still runs; a zombie that has become our child is reaped here."""
    try:
        if process.status() != psutil.STATUS_ZOMBIE:
            return True
        os.waitpid(process.pid, os.WNOHANG)
    except (psutil.Error, ChildProcessError):
        pass
    return False
