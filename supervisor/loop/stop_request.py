"""A request to end the run: made by a signal, heard once, with a grace of its own."""

from __future__ import annotations

import signal

from resilient.host.clock import Clock
from supervisor.loop.machine import SupervisorEvent


class StopRequest:
    """``number`` is the signal that has asked for the end of the run; 0 as long as none has."""

    def __init__(self, clock: Clock, grace_s: float) -> None:
        self._clock = clock
        self._end_s: float | None = None
        self.grace_s = grace_s
        self.number = 0

    @property
    def is_made(self) -> bool:
        """Whether the run is to end."""
        return bool(self.number)

    @property
    def name(self) -> str:
        """The name of its signal."""
        return signal.Signals(self.number).name

    def hear(self, number: int) -> SupervisorEvent | None:
        """The event that a signal which stops a run is here; None where it says nothing new."""
        if not self.is_made:
            self.number = number
            return SupervisorEvent.STOP
        # A scheduler may repeat its signal, or send it to all of a job; a second Ctrl-C is a person's will.
        return SupervisorEvent.INSIST if number == signal.SIGINT else None

    def begin_grace(self, grace_s: float) -> None:
        """The grace runs from now on."""
        self._end_s = self._clock.monotonic() + grace_s

    @property
    def left_s(self) -> float:
        """How much of the grace is left: all of it before it has begun."""
        if self._end_s is None:
            return self.grace_s
        return max(0.0, self._end_s - self._clock.monotonic())
