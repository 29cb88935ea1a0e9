"""The patrol: looks after a group at work from time to time, and reports what the watchman finds."""

from __future__ import annotations

from resilient.journal.events import HangFound, MovesAgain, WarningGiven
from supervisor.group.attempt import Attempt
from supervisor.loop.helm import Helm
from supervisor.loop.instruments import Instruments
from supervisor.loop.machine import SupervisorEvent, SupervisorState
from supervisor.watching.watchman import Watchman


class Patrol:
    """Feeds HUNG and TOO_LARGE."""

    def __init__(self, instruments: Instruments, helm: Helm, watchman: Watchman) -> None:
        self._journal = instruments.journal
        self._story = instruments.story
        self._internal_errors = instruments.internal_errors
        self._timers = instruments.timers
        self._helm = helm
        self._watchman = watchman

    def begin(self, attempt: Attempt) -> None:
        """A group has been launched."""
        with self._internal_errors.contained("the watchman"):
            self._watchman.begin(attempt)
        self._look_in(0.0)

    def go_on(self) -> None:
        """A group that hung moves again."""
        self._journal.write(MovesAgain())
        self._story.moves()
        self._look_in(0.0)

    def _look_in(self, delay_s: float) -> None:
        # Always by its timer: a fault of the watchman is not one of the machine.
        self._timers.set("watch", delay_s, self._look)

    def _look(self) -> None:
        if self._helm.state is not SupervisorState.RUNNING:
            return
        if full := self._watchman.disk.warning():
            self._journal.write(WarningGiven(full))
            self._story.trouble(full)
        found = self._watchman.look()
        if found is not None:
            self._journal.write(found.event)
            self._story.trouble(found.text)
            self._helm.feed(
                SupervisorEvent.HUNG if isinstance(found.event, HangFound) else SupervisorEvent.TOO_LARGE
            )
        else:
            self._look_in(self._watchman.next_look_s)
