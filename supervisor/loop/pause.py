"""The pause between two groups: the backoff, and what stands in the way of the next group after it."""

from __future__ import annotations

from collections.abc import Callable

from resilient.host.clock import Clock
from supervisor.edges.timers import Timers
from supervisor.loop.machine import SupervisorEvent
from supervisor.verdict.readiness import Obstacle

_RETRY_S = 2.0
_HOPELESS_S = 600.0
# A measured need is a guess: the pause does not wait long for it.
_GUESS_S = 30.0


class Pause:
    """Waits, then looks until the way is free or waiting is of no use. ``reason`` is what it waits for."""

    def __init__(
        self,
        timers: Timers,
        clock: Clock,
        look: Callable[[], Obstacle | None],
        feed: Callable[[SupervisorEvent], None],
        give_up: Callable[[str], None],
    ) -> None:
        self._timers = timers
        self._clock = clock
        self._look = look
        self._feed = feed
        self._give_up = give_up
        self._over_s = 0.0
        self.reason = ""

    def begin(self, delay_s: float) -> None:
        """The next group may be launched in ``delay_s`` seconds."""
        self._over_s = self._clock.monotonic() + delay_s
        self._timers.set("machine", delay_s, self._try)

    def go_on(self) -> None:
        """Looks again in a moment."""
        self._timers.set("machine", _RETRY_S, self._try)

    def _try(self) -> None:
        obstacle = self._look()
        waited_s = self._clock.monotonic() - self._over_s
        late = waited_s >= _HOPELESS_S
        if obstacle is None or (waited_s >= _GUESS_S and not obstacle.fatal):
            self._feed(SupervisorEvent.BACKOFF_OVER)
        elif obstacle.may_pass and not late:
            self.reason = obstacle.reason
            self._feed(SupervisorEvent.NOT_READY)
        else:
            self._give_up(obstacle.reason)
            self._feed(SupervisorEvent.HOPELESS)
