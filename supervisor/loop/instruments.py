"""The instruments of the loop: what each of its parts writes, reports and keeps time with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from resilient.host.clock import Clock
from resilient.journal.events import ProcessesLeft, WaitingFor
from supervisor.edges.journal_writer import JournalWriter
from supervisor.edges.timers import Timers
from supervisor.loop.internal_errors import InternalErrors
from supervisor.telling.story import Story


@dataclass(frozen=True)
class Instruments:
    """``journal`` and ``story`` never raise (see ``InternalErrors.unfailing``)."""

    journal: JournalWriter
    story: Story
    internal_errors: InternalErrors
    timers: Timers
    clock: Clock

    def report_wait(self, what: str, reason: str) -> None:
        """Reports that something has to wait, and why."""
        self.journal.write(WaitingFor(reason))
        self.story.held_up(reason, what)

    def report_left(self, pids: Sequence[int]) -> None:
        """Reports processes that would not die; nothing where there are none."""
        if pids:
            self.story.left_behind(list(pids))
            self.journal.write(ProcessesLeft(tuple(f"process {pid}" for pid in pids)))
