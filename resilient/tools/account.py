"""The account of a run: its journal's events put together, attempt by attempt. Pure; no words for people.

An ``Account`` has the supervisors that worked on the run one after the other, each with its attempts. It is
built one event at a time, however many there are; what a journal lacks (torn lines, an older version) is
missing here too, and nothing that it says makes the building fail.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from resilient.tools.journal_reader import Event
from resilient.tools.supervisions import Attempt, Save, Watch
from resilient.tools.tellings import TELLINGS

_STARTS = frozenset({"attempt", "spawn_failed"})
_OF_A_WATCH = frozenset({"run", "stop_requested", "broken", "ended", "waiting"})
_OF_AN_ATTEMPT = frozenset(TELLINGS) - _OF_A_WATCH | {"hello", "place"}


@dataclass
class Account:
    """A run's story so far.

    ``durable`` is the checkpoint that the run would go on from, as far as the journal knows; ``files`` are
    all that it tells of.
    """

    watches: list[Watch] = field(default_factory=list)
    durable: Save | None = None
    files: set[str] = field(default_factory=set)
    last: Event | None = None
    torn: int = 0

    @property
    def attempts(self) -> list[Attempt]:
        """All attempts, oldest first."""
        return [attempt for watch in self.watches for attempt in watch.attempts]

    def hear(self, event: Event) -> None:
        """Takes one more event into account."""
        if event.name == "run" or not self.watches:
            self._begin(event)
        watch = self.watches[-1]
        watch.span.hear(event)
        self.last = event
        telling = TELLINGS.get(event.name)
        # What a dead worker has left in memory is saved after its end.
        over = bool(watch.attempts) and watch.attempts[-1].verdict is not None
        if telling is not None:
            telling(watch, event)
        if event.name in _STARTS or (event.name in _OF_AN_ATTEMPT and not over):
            watch.attempt().span.hear(event)
        if event.name in ("saved", "resumed"):
            self._note_durable(watch.attempt(), event)

    def _begin(self, event: Event) -> None:
        before = self.watches[-1].span.ended_s if self.watches else None
        rebooted = before is not None and event.monotonic is not None and event.monotonic < before
        self.watches.append(Watch(rebooted=rebooted))

    def _note_durable(self, attempt: Attempt, event: Event) -> None:
        """The last one counts, not the highest: after a rollback the steps are counted from further back."""
        if event.name == "saved" and event.whole("step") is not None:
            self.durable = attempt.last_save
            self.files.add(event.text("file"))
        step, file = event.whole("step"), event.text("file")
        older = self.durable is None or (step is not None and step < self.durable.step)
        if event.name == "resumed" and step is not None and file not in ("", "memory") and older:
            # What was newer could not be used, or is not in this journal.
            self.durable = Save(step, event.whole("epoch"), file, "", None)


def build(events: Iterable[Event]) -> Account:
    """The account of these events."""
    account = Account()
    for event in events:
        account.hear(event)
    return account
