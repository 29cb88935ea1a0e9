"""journal.jsonl: every event of a run, one JSON object a line, appended.

A line that a crash or a full disk has torn stays as it is; the next one begins on a line of its own. A
journal that cannot be written is said once and never stops the run, and nobody waits for its disk.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import structlog

from resilient.host.clock import Clock
from supervisor.edges.write_queue import DirectPen, Pen
from supervisor.edges.writer_process import OrderKind, Reply

_render = structlog.processors.JSONRenderer(sort_keys=False, default=str)


class Journal:
    """Appends events to a file, from any thread. ``complain`` hears once that it cannot be written.

    ``pen`` writes them; by default at once, in this process.
    """

    def __init__(
        self, path: Path, clock: Clock, complain: Callable[[str], None], pen: Pen | None = None
    ) -> None:
        self._path = path
        self._clock = clock
        self._complain = complain
        self._complained = False
        self._closed = False
        self.pen = pen or DirectPen()

    def write(self, event: str, /, **fields: Any) -> None:
        """Appends one event: ``time`` is wall time for people, ``monotonic`` is for intervals."""
        if self._closed:
            return
        now = {"time": round(self._clock.now(), 3), "monotonic": round(self._clock.monotonic(), 3)}
        line = _render(None, "", {**now, "event": event, **fields})
        text = line if isinstance(line, str) else line.decode()
        self.pen.append(OrderKind.LINES, self._path, text.encode() + b"\n", self._hear)

    def close(self) -> None:
        """Nothing more is appended."""
        self._closed = True
        self.pen.leave(self._path)

    def _hear(self, reply: Reply) -> None:
        if reply.number and not self._complained:
            self._complained = True
            self._complain(f"the journal cannot be written: {reply.error}; the run goes on without")
