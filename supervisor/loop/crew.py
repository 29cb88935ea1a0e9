"""The crew of a run: who launches its groups, has their states committed, watches and judges them."""

from __future__ import annotations

from dataclasses import dataclass

from supervisor.checkpointing.save_requests import SaveRequests
from supervisor.group.launcher import Launcher
from supervisor.verdict.judge import Judge
from supervisor.verdict.readiness import Obstacle
from supervisor.verdict.standing import Standing
from supervisor.watching.watchman import Watchman


@dataclass(frozen=True)
class Crew:
    """The four, and the answers that take two of them."""

    launcher: Launcher
    save_requests: SaveRequests
    watchman: Watchman
    judge: Judge

    @property
    def standing(self) -> Standing:
        """How far the run has come by now."""
        return self.judge.standing(self.save_requests.kept_step)

    def look_around(self) -> Obstacle | None:
        """The obstacle to another group that the machine has; None where it is ready."""
        return self.watchman.obstacle(self.launcher.left)
