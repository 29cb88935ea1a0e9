"""A group that hangs: the stacks of its threads are asked for, it is woken, and then looked at once more."""

from __future__ import annotations

import signal
from collections.abc import Callable

from resilient.host.clock import Clock
from supervisor.edges.timers import Timers
from supervisor.group.attempt import Attempt
from supervisor.loop.machine import SupervisorEvent
from supervisor.watching.watchman import Watchman

_STACKS_S = 2.0
# One that was only stopped goes on at once when it is woken; but a busy machine may be late.
_WAKING_S = 10.0


class HungGroup:
    """Feeds MOVES if the group goes on after all, MOTIONLESS if it is to be ended."""

    def __init__(
        self, timers: Timers, clock: Clock, watchman: Watchman, feed: Callable[[SupervisorEvent], None]
    ) -> None:
        self._timers = timers
        self._clock = clock
        self._watchman = watchman
        self._feed = feed
        self._until_s = 0.0

    def begin(self, attempt: Attempt) -> None:
        """Wakes this group, and has it write its stacks; some time later it is judged."""
        attempt.send(signal.SIGCONT)
        if attempt.speaks:
            attempt.send(signal.SIGQUIT)
        self._until_s = self._clock.monotonic() + (_WAKING_S if self._watchman.was_stopped else _STACKS_S)
        self._timers.set("machine", _STACKS_S, self._judge)

    def _judge(self) -> None:
        if self._watchman.moves():
            self._feed(SupervisorEvent.MOVES)
        elif self._clock.monotonic() < self._until_s:
            self._timers.set("machine", _STACKS_S, self._judge)
        else:
            self._feed(SupervisorEvent.MOTIONLESS)
