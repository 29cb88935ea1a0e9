"""Finds the living process that holds a run's lock.

The lock's file names a process (pid and boot id). The file stays when that process dies, and the kernel
reuses its pid sooner or later, so the name alone is never trusted. This order makes it safe:

1. open a pidfd of the named process: from here on it means one process, even if the pid is reused;
2. check that this process has the lock's very file open, and that the kernel lists the lock (fdinfo);
3. send signals through the pidfd.

Suppose the process dies between 1 and 2 and another one gets its pid. Step 2 passes only if the new one
holds this very lock, and even then the signal goes to the dead process, so to nobody.
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
    """A process that holds a run's lock. ``holder`` closes the ``pidfd``."""

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
        """Whether it has ended; waits up to ``timeout_s`` seconds."""
        waiting = select.poll()
        waiting.register(self.pidfd, select.POLLIN)
        return bool(waiting.poll(max(0.0, timeout_s) * 1000))

    def catches(self, number: int) -> bool:
        """Whether it handles this signal; without a handler, some signals would kill it."""
        with contextlib.suppress(OSError, ValueError):
            for line in (_PROC / str(self.pid) / "status").read_text().splitlines():
                if line.startswith("SigCgt:"):
                    return bool(int(line.split()[1], 16) >> (number - 1) & 1)
        return False


@contextlib.contextmanager
def holder(root: Path) -> Iterator[LockHolder | None]:
    """The process that works on the run in ``root``; None when there is none.

    Raises UsageError when it cannot be reached: it is another user's, in another container, or on another
    machine.
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
        # A process writes its name a moment after it takes the lock.
        if time.monotonic() > deadline_s:
            raise UsageError(_unreachable(path.parent, pid, here))
        time.sleep(0.02)


def _unreachable(root: Path, pid: int, here: bool) -> str:
    if pid and not here:
        return f"{root} is in use by process {pid} on another machine; use this command there"
    if pid:
        return (
            f"{root} is in use, but not by process {pid}, which its lock names: a child of that process or a "
            "process in another container has it; end that one"
        )
    return f"{root} is in use by an unknown process"


def _named(path: Path) -> tuple[int, bool]:
    """The pid in the lock's file (0: none), and whether it is of this boot of this machine."""
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
        message = f"process {pid}, which the run's lock names, belongs to another user"
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
    """Whether any process holds the lock, visible to us or not.

    Only taking the lock shows this. So it takes a shared lock for an instant, and the caller asks only when
    it sees no holder.
    """
    descriptor = _open_lock(path)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
