"""Saves again what dead workers have left in memory and the disk would not take, as long as that may help.

It is there only while the supervisor lives. So neither the next attempt nor the end of the run comes before
it is saved, or waiting for that has been in vain; a stop request has its own, shorter deadline.
"""

from __future__ import annotations

from resilient.host.clock import Clock
from supervisor.checkpointing.save_requests import SaveRequests
from supervisor.verdict.judge import Judge
from supervisor.verdict.readiness import Obstacle, ObstacleKind
from supervisor.verdict.standing import Standing

_PATIENCE_S = 600.0
# Without these a checkpoint can be made all the same; an attempt cannot.
_NO_MATTER = frozenset({ObstacleKind.ALIVE, ObstacleKind.MEMORY})


class Rescue:
    """Has the newest state in memory saved when it could not be at first."""

    def __init__(self, clock: Clock, save_requests: SaveRequests, judge: Judge) -> None:
        self._clock = clock
        self._save_requests = save_requests
        self._judge = judge
        self._since_s: float | None = None

    def obstacle(self, found: Obstacle | None) -> Obstacle | None:
        """The obstacle to another group; what waits for the disk is tried again where that may help.

        ``found`` is what of the machine stands in the way.
        """
        unsaved = self._look()
        if unsaved is not None and (found is None or found.kind in _NO_MATTER):
            self._save_requests.save_again(self._standing)
        return found or unsaved

    def obstacle_to_end(self) -> Obstacle | None:
        """The state in memory that the end of the run has to wait for, as it may still be saved."""
        unsaved = self._look()
        return unsaved if unsaved is not None and unsaved.fatal and self.left_s else None

    @property
    def left_s(self) -> float:
        """How long it may still be tried; 0 where nothing has failed."""
        if self._since_s is None:
            return 0.0
        return max(0.0, self._since_s + _PATIENCE_S - self._clock.monotonic())

    @property
    def _standing(self) -> Standing:
        return self._judge.standing(self._save_requests.kept_step)

    def _look(self) -> Obstacle | None:
        found = self._save_requests.obstacle(self._standing)
        if found is None:
            self._since_s = None
        elif self._since_s is None:
            self._since_s = self._clock.monotonic()
        return found
