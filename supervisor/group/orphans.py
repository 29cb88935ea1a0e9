"""What a supervisor of this run that was killed has left behind: it is ended before anything is launched.

A worker whose supervisor dies gets SIGTERM from the kernel, saves, and ends. What it has started itself
gets nothing, and goes on: with the device, the memory or the port that the next attempt needs. It is found
by the attempt's control group, whose name bears the mark of the run's lock: whoever holds the lock knows
that all others that ever bore this mark are dead.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import threading
import time
from collections.abc import Callable, Collection

from resilient.host.cgroup import ControlGroups
from resilient.run.rundir import RunDirectory
from supervisor.edges import wakeup

_MOST_S = 600.0
_KILL_S = 10.0


def mark_of(directory: RunDirectory) -> str:
    """What tells the lock of this run from all others of this machine; "" where somebody has removed it."""
    try:
        lock = os.stat(directory.root / "lock")
    except OSError:
        return ""
    return f"{lock.st_dev:x}i{lock.st_ino:x}"


def end_orphans(groups: ControlGroups, grace_s: float, tell: Callable[[str], None]) -> int:
    """Ends what is left of this run. A worker among it has that long to save and end by itself.

    The number of a signal that stops us meanwhile; 0 for none. What is left is left alone then.
    """
    orphans = groups.orphans()
    if not orphans:
        return 0
    with _OrphanWait() as patience:
        for group in orphans:
            pids = group.pids
            tell(
                f"the supervisor of this run was killed and has left processes behind ({_names(pids)}); "
                "they are ended before the run goes on"
            )
            patience.await_leaders(pids, min(grace_s, _MOST_S))
            if patience.stop_signal:
                return patience.stop_signal
            if not group.kill(_KILL_S):
                tell(f"could not be killed, the kernel holds them: {_names(group.pids)}")
            group.remove()
    return 0


class _OrphanWait:
    """Waits for processes that are none of our children, and hears when it is to stop."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._signals = wakeup.signals(self._selector, self._hear)
        self.stop_signal = 0

    def __enter__(self) -> _OrphanWait:
        self._signals.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        if self.stop_signal:
            # The run ends by that; the same signal once more must not take its status away.
            wakeup.deafen()
        self._signals.__exit__(None, None, None)
        self._selector.close()

    def await_leaders(self, pids: list[int], grace_s: float) -> None:
        """Waits for workers, which lead sessions of their own; nobody has told the others to end."""
        end_s = time.monotonic() + grace_s
        for pid in pids:
            with contextlib.suppress(OSError):
                if os.getsid(pid) == pid:
                    self._await_end(pid, end_s)

    def _await_end(self, pid: int, end_s: float) -> None:
        descriptor, ended = os.pidfd_open(pid), threading.Event()
        self._selector.register(descriptor, selectors.EVENT_READ, ended.set)
        try:
            while not self.stop_signal and not ended.is_set() and (left_s := end_s - time.monotonic()) > 0:
                for key, _ in self._selector.select(left_s):
                    key.data()
        finally:
            self._selector.unregister(descriptor)
            os.close(descriptor)

    def _hear(self, numbers: Collection[int]) -> None:
        for number in numbers:
            if number in wakeup.STOP_SIGNALS:
                self.stop_signal = self.stop_signal or number


def _names(pids: list[int]) -> str:
    shown = [f"process {pid}" for pid in pids[:5]]
    return ", ".join([*shown, f"and {len(pids) - 5} more"] if len(pids) > 5 else shown)
