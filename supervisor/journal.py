"""journal.jsonl: every event of a run, one JSON object a line, appended.

A line that a crash or a full disk has torn stays as it is; the next one begins on a line of its own. A
journal that cannot be written is said once and never stops the run.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import structlog

from resilient.host.clock import Clock
from resilient.host.files import FILE_MODE

_render = structlog.processors.JSONRenderer(sort_keys=False, default=str)


class Journal:
    """Appends events to a file, from any thread. ``complain`` hears once that it cannot be written."""

    def __init__(self, path: Path, clock: Clock, complain: Callable[[str], None]) -> None:
        self._clock = clock
        self._complain = complain
        self._complained = False
        self._lock = threading.Lock()
        self._torn = False
        self._descriptor = self._open(path)

    def write(self, event: str, /, **fields: Any) -> None:
        """Appends one event: ``time`` is wall time for people, ``monotonic`` is for intervals."""
        now = {"time": round(self._clock.now(), 3), "monotonic": round(self._clock.monotonic(), 3)}
        line = _render(None, "", {**now, "event": event, **fields})
        text = line if isinstance(line, str) else line.decode()
        failed = None
        with self._lock:
            if self._descriptor < 0:
                return
            try:
                self._append(text.encode() + b"\n")
            except OSError as error:
                failed = error
        if failed is not None:
            self._fail(failed)

    def _append(self, line: bytes) -> None:
        if self._torn:
            line = b"\n" + line
        # One write: two writers, or a crash, never mix two lines. Only a full disk takes a part of it.
        view = memoryview(line)
        while view:
            written = os.write(self._descriptor, view)
            view = view[written:]
            self._torn = bool(view)

    def close(self) -> None:
        with self._lock:
            if self._descriptor >= 0:
                os.close(self._descriptor)
                self._descriptor = -1

    def _open(self, path: Path) -> int:
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            descriptor = os.open(path, flags, FILE_MODE)
            size = os.fstat(descriptor).st_size
            if size and os.pread(descriptor, 1, size - 1) != b"\n":
                os.write(descriptor, b"\n")
            return descriptor
        except OSError as error:
            self._fail(error)
            return -1

    def _fail(self, error: OSError) -> None:
        if not self._complained:
            self._complained = True
            self._complain(f"the journal cannot be written: {error.strerror}; the run goes on without")
