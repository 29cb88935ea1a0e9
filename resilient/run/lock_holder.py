"""Who works on a run: the living process that holds the run's lock, and nobody else.

The lock's file names a process (pid and boot id), and stays when that process dies; the kernel gives its
number to another one sooner or later. So the name alone is never believed. The order is what makes it safe:

1. a pidfd of the named process: from here on it is one process, whatever becomes of the number;
2. that process has the lock's very file open, and the kernel's list of its locks (fdinfo) shows the lock;
3. signals go through the pidfd.

If the process died between 1 and 2 and its number was taken, the new one would have to hold this very lock
for the second step to pass, and the signal would still go to the dead one: to nobody.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import select
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from resilient.errors import UsageError
from resilient.host.files import storage_errors
from resilient.run import lock_owner

_PROC = Path("/proc")
_HELD = re.compile(r"^lock:.*\bWRITE\b", re.MULTILINE)
_PATIENCE_S = 1.0
_GONE = (FileNotFoundError, ProcessLookupError)


@dataclass(frozen=True)
class LockHolder:
    """A process that holds a run's lock. ``pidfd`` is one process for ever; it is closed by ``holder``."""

    pid: int
    pidfd: int

    def signal(self, number: int) -> bool:
        """Sends it a signal; False when it has ended."""
        try:
            signal.pidfd_send_signal(self.pidfd, number)
        except ProcessLookupError:
            return False
        return True

    def ended(self, timeout_s: float) -> bool:
        """Whether it has ended; waits that long for it."""
        waiting = select.poll()
        waiting.register(self.pidfd, select.POLLIN)
        return bool(waiting.poll(max(0.0, timeout_s) * 1000))

    def catches(self, number: int) -> bool:
        """Whether it has a handler for this signal: without one, some signals would kill it."""
        with contextlib.suppress(OSError, ValueError):
            for line in (_PROC / str(self.pid) / "status").read_text().splitlines():
                if line.startswith("SigCgt:"):
                    return bool(int(line.split()[1], 16) >> (number - 1) & 1)
        return False


@contextlib.contextmanager
def holder(root: Path) -> Iterator[LockHolder | None]:
    """The process that works on the run in ``root``; None where nobody does.

    Raises UsageError when somebody does who cannot be reached: another user's process, one in another
    container, on another machine.
    """
    found = _find(root / "lock")
    try:
        yield found
    finally:
        if found is not None:
            os.close(found.pidfd)


def _find(path: Path) -> LockHolder | None:
    deadline_s = time.monotonic() + _PATIENCE_S
    while True:
        try:
            with storage_errors("look at", path):
                status = os.stat(path)
        except FileNotFoundError:
            return None
        pid, here = _named(path)
        found = _open(pid, status) if pid and here else None
        if found is not None or not _is_locked(path):
            return found
        # Whoever takes the lock writes its name a moment later.
        if time.monotonic() > deadline_s:
            raise UsageError(_unreachable(path.parent, pid, here))
        time.sleep(0.02)


def _unreachable(root: Path, pid: int, here: bool) -> str:
    if pid and not here:
        return f"{root} is in use by process {pid} on another machine; use this command there"
    if pid:
        return (
            f"{root} is in use, but not by process {pid}, which its lock names: by a child that this one has "
            "left behind, or by a process in another container; end it there"
        )
    return f"{root} is in use by a process that cannot be told"


def _named(path: Path) -> tuple[int, bool]:
    """The process that the lock's file names (0: none), and whether that is of this boot of this machine."""
    descriptor = _open_lock(path)
    try:
        return lock_owner.run_owner(os.read(descriptor, lock_owner.LIMIT_BYTES))
    except OSError:
        return 0, True
    finally:
        os.close(descriptor)


def _open_lock(path: Path) -> int:
    with storage_errors("open", path, ()):
        return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)


def _open(pid: int, lock: os.stat_result) -> LockHolder | None:
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return None
    try:
        if _holds(pid, lock):
            return LockHolder(pid, pidfd)
    except PermissionError as error:
        os.close(pidfd)
        message = f"process {pid}, which the run's lock names, is not yours to look at"
        raise UsageError(message, hint="use the account that started it, or sudo") from error
    os.close(pidfd)
    return None


def _holds(pid: int, lock: os.stat_result) -> bool:
    """Whether a process has this file open and locked. Raises PermissionError for another user's."""
    process = _PROC / str(pid)
    try:
        numbers = os.listdir(process / "fd")
    except _GONE:
        return False
    for number in numbers:
        with contextlib.suppress(*_GONE):
            status = os.stat(process / "fd" / number)
            same = (status.st_dev, status.st_ino) == (lock.st_dev, lock.st_ino)
            if same and _HELD.search((process / "fdinfo" / number).read_text()):
                return True
    return False


def _is_locked(path: Path) -> bool:
    """Whether anybody holds the lock, seen or not.

    The kernel tells this only to who tries. A shared lock for an instant: asked for only where no holder is
    to be seen.
    """
    descriptor = _open_lock(path)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
