"""Looks after a group while it lives, and collects what was seen of it when it is over.

The edges are elsewhere: ``vitals`` reads processes, ``liveness`` judges silence, ``readiness`` looks at the
machine, ``logtail`` reads what the worker said last.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from resilient.host.world import World
from resilient.store.rundir import RunDirectory
from supervisor import logtail
from supervisor.attempt import Attempt
from supervisor.classify import Evidence, Silence


@dataclass(frozen=True)
class Limits:
    """How long a worker may be silent (``hang_s``: None as the run itself teaches, 0 for ever), and how much
    memory it may take (None: any).
    """

    hang_s: float | None = None
    memory_bytes: int | None = None


@dataclass(frozen=True)
class Finding:
    """What is wrong with a group that lives: the journal's ``event`` with its ``fields``, and words."""

    event: str
    text: str
    fields: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Obstacle:
    """Why no group can be started now, and whether waiting may help."""

    reason: str
    passes: bool


class Watchman:
    """Watches one attempt after the other."""

    def __init__(self, limits: Limits, directory: RunDirectory, world: World) -> None:
        self._limits = limits
        self._directory = directory
        self._clock = world.clock
        self._silence: Silence | None = None
        self.last_obstacle = Obstacle("", True)

    def begin(self, attempt: Attempt) -> None:
        """A group has been launched."""
        self._silence = None

    def look(self) -> Finding | None:
        """Looks at the group: what is wrong with it, if anything."""
        return None

    @property
    def next_look_s(self) -> float:
        """When to look again."""
        return 5.0

    def note(self, message: Mapping[str, Any]) -> None:
        """Hears what is told of the run."""

    def obstacle(self, root: Path) -> Obstacle | None:
        """What stands in the way of another group."""
        return None

    def evidence(self, attempt: Attempt, code: int | None = None) -> Evidence:
        """What was seen of a group that is over; ``code`` is how, where it cannot be reaped."""
        beat = attempt.look()
        incident = attempt.told.get("incident", {})
        return Evidence(
            returncode=attempt.code if code is None else code,
            told=attempt.told,
            sent=attempt.sent,
            progressed=attempt.step > attempt.resumed_step,
            step=attempt.step,
            phase=str(incident.get("phase") or beat.phase.name.lower()),
            silence=self._silence,
            log_end=logtail.read(self._directory.log(attempt.number)),
        )
