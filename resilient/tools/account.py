"""The account of a run: its journal's events put together, attempt by attempt. Pure; no words for people.

An ``Account`` has the supervisors that worked on the run one after the other, each with its attempts. It is
built one event at a time, however many there are; what a journal lacks (torn lines, an older version) is
missing here too, and nothing that it says makes the building fail.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from resilient.journal.base import JOURNAL_VERSION, JournalEvent, UnknownEvent
from resilient.journal.events import (
    AttemptStarted,
    LaunchFailed,
    PlaceTaken,
    StepSaved,
    StopRequested,
    SupervisorBroken,
    SupervisorEnded,
    SupervisorStarted,
    TrainingResumed,
    WaitingFor,
    WorkerReady,
)
from resilient.tools.event_handlers import TELLINGS
from resilient.tools.supervisions import RecordedAttempt, RecordedSave, Supervision

_MOST_NAMES = 20
_NAME_CHARACTERS = 40
_STARTS = AttemptStarted, LaunchFailed
_OF_A_WATCH = {SupervisorStarted, StopRequested, SupervisorBroken, SupervisorEnded, WaitingFor}
_OF_AN_ATTEMPT = {*TELLINGS, WorkerReady, PlaceTaken} - _OF_A_WATCH


@dataclass
class Account:
    """A run's story so far.

    ``durable`` is the checkpoint that the run would go on from, as far as the journal knows; ``files`` are
    all that it tells of. ``unknown`` counts the events that this version does not know, by their names;
    ``newer`` tells that a supervisor of a newer version has written some of it.
    """

    supervisions: list[Supervision] = field(default_factory=list)
    durable: RecordedSave | None = None
    files: set[str] = field(default_factory=set)
    last: JournalEvent | None = None
    torn: int = 0
    unknown: Counter[str] = field(default_factory=Counter)
    newer: bool = False

    @property
    def attempts(self) -> list[RecordedAttempt]:
        """All attempts, oldest first."""
        return [attempt for supervision in self.supervisions for attempt in supervision.attempts]

    def hear(self, event: JournalEvent) -> None:
        """Takes one more event into account."""
        if isinstance(event, SupervisorStarted) or not self.supervisions:
            self._begin(event)
        supervision = self.supervisions[-1]
        supervision.span.hear(event)
        self.last = event
        self._note_version(event)
        telling = TELLINGS.get(type(event))
        # What a dead worker has left in memory is saved after its end.
        over = bool(supervision.attempts) and supervision.attempts[-1].verdict is not None
        if telling is not None:
            telling(supervision, event)
        if isinstance(event, _STARTS) or (type(event) in _OF_AN_ATTEMPT and not over):
            supervision.attempt().span.hear(event)
        if isinstance(event, StepSaved) and event.step is not None:
            # The last one counts, not the highest: after a rollback the steps are counted from further back.
            self.durable = supervision.attempt().last_save
            self.files.add(event.file)
        if isinstance(event, TrainingResumed):
            self._note_source(event)

    def _note_version(self, event: JournalEvent) -> None:
        if isinstance(event, SupervisorStarted):
            self.newer = self.newer or (event.version or 0) > JOURNAL_VERSION
        if isinstance(event, UnknownEvent):
            # Of thousands of names a person needs to know no more than that they are there.
            name = event.name[:_NAME_CHARACTERS]
            there = name in self.unknown or len(self.unknown) < _MOST_NAMES
            self.unknown[name if there else "others"] += 1

    def _begin(self, event: JournalEvent) -> None:
        before = self.supervisions[-1].span.ended_s if self.supervisions else None
        rebooted = before is not None and event.monotonic is not None and event.monotonic < before
        self.supervisions.append(Supervision(rebooted=rebooted))

    def _note_source(self, event: TrainingResumed) -> None:
        """What is newer than the checkpoint that was read could not be used, or is not in this journal."""
        step, file = event.step, event.file
        if step is None or file in ("", "memory"):
            return
        if self.durable is None or step < self.durable.step:
            self.durable = RecordedSave(step, event.epoch, file, "", None)


def build(events: Iterable[JournalEvent]) -> Account:
    """The account of these events."""
    account = Account()
    for event in events:
        account.hear(event)
    return account
