"""What a supervisor of this run that was killed has left behind: it is ended before anything is launched.

A worker whose supervisor dies gets SIGTERM from the kernel, saves, and ends. What it has started itself
gets nothing, and goes on: with the device, the memory or the port that the next attempt needs. It is found
by the attempt's control group, whose name bears the mark of the run's lock: whoever holds the lock knows
that all others that ever bore this mark are dead.
"""

from __future__ import annotations

import contextlib
import os
import select
import time
from collections.abc import Callable

from resilient.host.cgroup import Groups
from resilient.store.rundir import RunDirectory

_MOST_S = 600.0
_KILL_S = 10.0


def mark_of(directory: RunDirectory) -> str:
    """What tells the lock of this run from all others of this machine; "" where somebody has removed it."""
    try:
        lock = os.stat(directory.root / "lock")
    except OSError:
        return ""
    return f"{lock.st_dev:x}i{lock.st_ino:x}"


def end_orphans(groups: Groups, grace_s: float, tell: Callable[[str], None]) -> None:
    """Ends what is left of this run. A worker among it has that long to save and end by itself."""
    for group in groups.orphans():
        pids = group.pids
        tell(
            f"the supervisor of this run was killed and has left processes behind ({_names(pids)}); "
            "they are ended before the run goes on"
        )
        _await_leaders(pids, min(grace_s, _MOST_S))
        if not group.kill(_KILL_S):
            tell(f"could not be killed, the kernel holds them: {_names(group.pids)}")
        group.remove()


def _await_leaders(pids: list[int], grace_s: float) -> None:
    """Waits for workers, which lead sessions of their own; nobody has told the others to end."""
    end_s = time.monotonic() + grace_s
    for pid in pids:
        with contextlib.suppress(OSError):
            if os.getsid(pid) == pid:
                _await_end(pid, end_s)


def _await_end(pid: int, end_s: float) -> None:
    descriptor = os.pidfd_open(pid)
    try:
        ended = select.poll()
        ended.register(descriptor, select.POLLIN)
        ended.poll(max(0.0, end_s - time.monotonic()) * 1000)
    finally:
        os.close(descriptor)


def _names(pids: list[int]) -> str:
    shown = [f"process {pid}" for pid in pids[:5]]
    return ", ".join([*shown, f"and {len(pids) - 5} more"] if len(pids) > 5 else shown)
