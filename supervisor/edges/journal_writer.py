"""journal.jsonl: every event of a run (``resilient.journal.events``), one JSON object a line, appended.

A line that a crash or a full disk has torn stays as it is; the next one begins on a line of its own. A
journal that cannot be written is said once and never stops the run, and nobody waits for its disk.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from structlog.processors import JSONRenderer
from structlog.typing import EventDict

from resilient.host.clock import Clock
from resilient.journal.base import JournalEvent
from resilient.journal.lines import content_of
from supervisor.edges.event_lines import EventLines
from supervisor.edges.write_queue import DirectWriter, RunWriter
from supervisor.edges.writer_process import WriteOrderKind, WriteReply


class JournalWriter:
    """Appends events to a file, from any thread. ``complain`` hears once that it cannot be written.

    ``writer`` writes them; by default at once, in this process.
    """

    def __init__(
        self, path: Path, clock: Clock, complain: Callable[[str], None], writer: RunWriter | None = None
    ) -> None:
        self._path = path
        self._clock = clock
        self._complain = complain
        self._complained = False
        self._closed = False
        self._lines = EventLines(self._stamp, JSONRenderer(default=str))
        self.writer = writer or DirectWriter()

    def write(self, event: JournalEvent) -> None:
        """Appends one event, which happens now."""
        if self._closed:
            return
        line = self._lines.line("info", event.word, content_of(event))
        self.writer.append(WriteOrderKind.LINES, self._path, line.encode() + b"\n", self._hear)

    def close(self) -> None:
        """Nothing more is appended."""
        self._closed = True
        self.writer.leave(self._path)

    def _stamp(self, logger: object, level: str, event: EventDict) -> EventDict:
        """The time and the event's name come first. A field of the same name replaces none of them."""
        wall_s, monotonic_s = round(self._clock.now(), 3), round(self._clock.monotonic(), 3)
        own = {"time": wall_s, "monotonic": monotonic_s, "event": event["event"]}
        return {**own, **event, **own}

    def _hear(self, reply: WriteReply) -> None:
        if reply.number and not self._complained:
            self._complained = True
            self._complain(f"the journal cannot be written: {reply.error}; the run goes on without")
