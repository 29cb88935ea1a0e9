"""The helm: feeds events to the machine, and has performed what its table says."""

from __future__ import annotations

from collections.abc import Callable

from resilient.journal.events import StateChanged
from supervisor.loop.instruments import Instruments
from supervisor.loop.internal_errors import BrokenError
from supervisor.loop.machine import Machine, SupervisorAction, SupervisorEvent, SupervisorState


class Helm:
    """Steers one run. ``perform`` does one action, and may feed the next event."""

    def __init__(self, instruments: Instruments, perform: Callable[[SupervisorAction], None]) -> None:
        self._journal = instruments.journal
        self._timers = instruments.timers
        self._perform = perform
        self._machine = Machine()

    @property
    def state(self) -> SupervisorState:
        """Where the run is."""
        return self._machine.state

    def feed(self, event: SupervisorEvent) -> None:
        """An event has happened. Raises Broken when not all of its actions could be performed."""
        before = self.state
        try:
            actions = self._machine.feed(event)
            if before is not (after := self.state):
                self._journal.write(StateChanged(before.value, event.value, after.value))
            for action in actions:
                self._perform(action)
        except Exception as error:
            # Half a transition: whatever we did next would rest on what is not so.
            raise BrokenError(f"the transition from {before.value} on {event.value} failed") from error

    def feed_later(self, delay_s: float, event: SupervisorEvent) -> None:
        """This happens when nothing else does: it replaces what was to happen later."""
        self._timers.set("machine", delay_s, lambda: self.feed(event))
