"""The worker's output: kept byte for byte, and passed on.

Each stream has a thread that reads what the worker writes, puts it into the attempt's log, and hands it to
our own stream's ``Outlet``. A terminal that has been stopped (Ctrl-S) does not hold up the worker: what it
cannot take in the end is in the log. A pipe or a file gets every byte while the worker lives, whatever that
takes: the worker waits once much is waiting, as it would without us. When it is gone, nobody waits for the
console any more: what the worker has left in its pipe goes into the log.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import IO

from resilient.host.files import DIRECTORY_MODE, FILE_MODE
from supervisor.outlet import Outlet

_CHUNK_BYTES = 64 * 1024


class Log:
    """The file that keeps the output of one attempt. A full disk is said once; the output still passes.

    It is closed by the last writer that leaves: nobody else ever waits for one that is stuck in the middle of
    a write. All have entered before the first of them leaves.
    """

    def __init__(self, path: Path, complain: Callable[[str], None]) -> None:
        self._complain = complain
        self._writers = 0
        self._lock = threading.Lock()
        self._descriptor = -1
        try:
            os.makedirs(path.parent, DIRECTORY_MODE, exist_ok=True)
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            self._descriptor = os.open(path, flags, FILE_MODE)
        except OSError as error:
            complain(f"the output is not kept, {path} cannot be written: {error.strerror}")

    def enter(self) -> None:
        """Somebody is going to write."""
        with self._lock:
            self._writers += 1

    def write(self, data: bytes) -> None:
        with self._lock:
            view = memoryview(data)
            while view and self._descriptor >= 0:
                try:
                    view = view[os.write(self._descriptor, view) :]
                except OSError as error:
                    self._complain(f"the output is no longer kept: {error.strerror}")
                    self._close()

    def leave(self) -> None:
        """One of those that write has come to its end."""
        with self._lock:
            self._writers -= 1
            if self._writers == 0:
                self._close()

    def _close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class Pump:
    """Puts one stream of the worker's into a log, and passes it on to a stream of ours.

    ``source`` is an unbuffered pipe, which is the pump's from now on.
    """

    def __init__(self, source: IO[bytes], target: Outlet, log: Log) -> None:
        self._source = source
        self._target = target
        self._log = log
        self._over = False
        self._waits = False
        self._reader = threading.Thread(target=self._read, name="output-reader", daemon=True)
        log.enter()

    def start(self) -> None:
        """Begins to read. Raises OSError where no thread can be had."""
        try:
            self._reader.start()
        except RuntimeError as error:
            raise OSError(errno.EAGAIN, str(error)) from error

    def finish(self, timeout_s: float) -> None:
        """The worker is gone: waits until what it has left is in the log, not until it is on a console."""
        if self._reader.ident is None:
            self._close()
            return
        self._over = True
        self._target.look_again()
        self._reader.join(timeout_s)

    @property
    def reading(self) -> bool:
        """Whether it still has something to read: a process that would not die may hold the other end."""
        return self._reader.is_alive()

    @property
    def waits(self) -> bool:
        """Whether it waits for whoever reads our output, and the worker with it."""
        return self._waits

    def _read(self) -> None:
        with contextlib.suppress(OSError):
            while data := os.read(self._source.fileno(), _CHUNK_BYTES):
                self._log.write(data)
                self._target.pass_on(data, self._may_wait)
                self._waits = False
        self._close()

    def _may_wait(self) -> bool:
        """Asked where there is no room."""
        self._waits = not self._over
        return self._waits

    def _close(self) -> None:
        self._source.close()
        self._log.leave()
