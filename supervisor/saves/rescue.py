"""What dead workers have left in memory, and the disk would not take: tried again for as long as it may help.

It is there only while the supervisor lives. So neither the next attempt nor the end of the run comes before
it is saved, or waiting for that has been in vain; a stop request has its own, shorter deadline.
"""

from __future__ import annotations

from typing import Protocol

from resilient.host.clock import Clock
from supervisor.edges.timers import Timers
from supervisor.saves.save_requests import Commits
from supervisor.verdict.judge import Judge
from supervisor.verdict.readiness import Kind, Obstacle
from supervisor.verdict.standing import Standing

_RETRY_S = 2.0
_PATIENCE_S = 600.0
# Without these a checkpoint can be made all the same; an attempt cannot.
_NO_MATTER = frozenset({Kind.ALIVE, Kind.MEMORY})


class Helm(Protocol):
    """The loop, as far as a rescue needs it."""

    def look_around(self) -> Obstacle | None:
        """What of the machine stands in the way of another group."""
        ...

    def held_up(self, what: str, reason: str) -> None:
        """Something has to wait: it is to be told."""
        ...

    def settled(self) -> None:
        """Nothing is being saved any more."""
        ...


class Rescue:
    """Has the newest state in memory saved when it could not be at first."""

    def __init__(self, timers: Timers, clock: Clock, commits: Commits, judge: Judge, helm: Helm) -> None:
        self._timers = timers
        self._clock = clock
        self._commits = commits
        self._judge = judge
        self._helm = helm
        self._since_s: float | None = None

    def obstacle(self) -> Obstacle | None:
        """What stands in the way of another group; what waits for the disk is tried again where it may do."""
        found, unsaved = self._helm.look_around(), self._look()
        if unsaved is not None and (found is None or found.kind in _NO_MATTER):
            self._commits.save_again(self._standing)
        return found or unsaved

    def holds_end(self) -> bool:
        """Whether the end of the run is to wait. ``settled`` is called again when it may have changed."""
        unsaved = self._look()
        if unsaved is None or not unsaved.fatal or not self.left_s:
            return False
        self._helm.held_up("the end", unsaved.reason)
        self._timers.set("rescue", _RETRY_S, self._try)
        return True

    @property
    def left_s(self) -> float:
        """How long it may still be tried; 0 where nothing has failed."""
        if self._since_s is None:
            return 0.0
        return max(0.0, self._since_s + _PATIENCE_S - self._clock.monotonic())

    @property
    def _standing(self) -> Standing:
        return self._judge.standing(self._commits.kept_step)

    def _look(self) -> Obstacle | None:
        found = self._commits.obstacle(self._standing)
        if found is None:
            self._since_s = None
        elif self._since_s is None:
            self._since_s = self._clock.monotonic()
        return found

    def _try(self) -> None:
        self.obstacle()
        if not self._commits.busy:
            self._helm.settled()
