"""A stop with a deadline: how long the training may still try to reach a step boundary.

Kubernetes, Slurm or a person asks a run to stop, and kills it when the grace is over. A worker in the
middle of a long compile, evaluation or step does not reach a boundary in time. So, of the grace, as much is
kept back as committing the newest state in memory takes, and then that one is committed.
"""

from __future__ import annotations

from dataclasses import dataclass

_LEAST_S = 1.0
_SAFETY = 2.0
# Where no commit was measured yet: the speed of a slow disk, and of a very slow one.
_BYTES_PER_S = 50e6
_SLOW_BYTES_PER_S = 5e6
_PATIENCE_S = 120.0
# So long before the deadline the worker is killed, so that we are through when it comes.
_KILL_S = 1.0


@dataclass(frozen=True)
class CommitCost:
    """How long a commit may take, as far as that is known.

    ``last_s`` is what the last one took, None where there was none; ``state_bytes`` is what one writes.
    """

    last_s: float | None = None
    state_bytes: int = 0

    @property
    def expected_s(self) -> float:
        """How long the next commit will take."""
        return self.last_s if self.last_s is not None else self.state_bytes / _BYTES_PER_S

    @property
    def patience_s(self) -> float:
        """How long to wait for a commit when nothing else is left to do: a disk may hang for ever."""
        if self.last_s is None:
            return _PATIENCE_S + self.state_bytes / _SLOW_BYTES_PER_S
        return max(_PATIENCE_S, 10 * self.last_s)


@dataclass(frozen=True)
class Deadline:
    """Seconds after the request: at ``secure_s`` what is in memory is committed, at ``kill_s`` the worker is
    killed, at ``end_s`` the run ends.
    """

    secure_s: float
    kill_s: float
    end_s: float


def plan(grace_s: float, cost: CommitCost) -> Deadline:
    """The parts of a deadline after which a commit of this cost still has its time."""
    kill_s = max(grace_s / 2, grace_s - _KILL_S)
    secure_s = max(grace_s / 4, kill_s - _LEAST_S - _SAFETY * cost.expected_s)
    return Deadline(min(secure_s, kill_s), kill_s, grace_s)
