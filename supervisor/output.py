"""The worker's output: passed on byte for byte, and kept.

One stream has two threads. The reader takes what the worker writes and puts it into the attempt's log; the
writer passes it on to our own stream. A terminal that has been stopped (Ctrl-S) holds up the writer alone:
the worker does not wait for it, and what it cannot take in the end is in the log. A pipe or a file gets
every byte, whatever that takes: there the worker waits once much is waiting, as it would without us.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path

from resilient.host.files import DIRECTORY_MODE, FILE_MODE

_CHUNK_BYTES = 64 * 1024
_WAITING_BYTES = 16 * 1024 * 1024


class Log:
    """The file that keeps the output of one attempt. A full disk is said once; the output still passes."""

    def __init__(self, path: Path, complain: Callable[[str], None]) -> None:
        self._complain = complain
        self._lock = threading.Lock()
        self._descriptor = -1
        try:
            os.makedirs(path.parent, DIRECTORY_MODE, exist_ok=True)
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            self._descriptor = os.open(path, flags, FILE_MODE)
        except OSError as error:
            complain(f"the output is not kept, {path} cannot be written: {error.strerror}")

    def write(self, data: bytes) -> None:
        with self._lock:
            view = memoryview(data)
            while view and self._descriptor >= 0:
                try:
                    view = view[os.write(self._descriptor, view) :]
                except OSError as error:
                    self._complain(f"the output is no longer kept: {error.strerror}")
                    self._close()

    def close(self) -> None:
        with self._lock:
            self._close()

    def _close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class Pump:
    """Passes one stream of the worker's on to a descriptor of ours, and into a log."""

    def __init__(self, source: int, target: int, log: Log) -> None:
        self._source = source
        self._target = target
        self._log = log
        self._changed = threading.Condition()
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._skipped_bytes = 0
        self._may_skip = os.isatty(target)
        self._at_end = False
        self._reader = threading.Thread(target=self._read, name="output-reader", daemon=True)
        self._writer = threading.Thread(target=self._write, name="output-writer", daemon=True)
        self._reader.start()
        self._writer.start()

    def finish(self, timeout_s: float) -> None:
        """Waits until all has been passed on, but not for a terminal that takes nothing."""
        self._reader.join(timeout_s)
        self._writer.join(timeout_s)

    def _read(self) -> None:
        with contextlib.suppress(OSError):
            while data := os.read(self._source, _CHUNK_BYTES):
                self._log.write(data)
                self._hand_on(data)
        os.close(self._source)
        with self._changed:
            self._at_end = True
            self._changed.notify_all()

    def _hand_on(self, data: bytes) -> None:
        with self._changed:
            if self._waiting_bytes > _WAITING_BYTES and self._may_skip:
                self._skipped_bytes += len(data)
                return
            self._changed.wait_for(lambda: self._waiting_bytes <= _WAITING_BYTES)
            self._waiting.append(data)
            self._waiting_bytes += len(data)
            self._changed.notify_all()

    def _write(self) -> None:
        while (data := self._next()) is not None:
            try:
                view = memoryview(data)
                while view:
                    view = view[os.write(self._target, view) :]
            except OSError:
                # Nobody reads our output any more: the worker goes on, its log too.
                self._target = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)

    def _next(self) -> bytes | None:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._at_end)
            if self._waiting:
                data = self._waiting.popleft()
                self._waiting_bytes -= len(data)
                self._changed.notify_all()
                return data
            if self._skipped_bytes:
                note = f"\n[{self._skipped_bytes} bytes of output came too fast to show; the log has them]\n"
                self._skipped_bytes = 0
                return note.encode()
            return None
