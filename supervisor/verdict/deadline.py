"""A stop with a deadline: how long the training may still try to reach a step boundary.

Whoever asks a run to stop (Kubernetes, Slurm, a person) kills it when the grace is over. A worker in the
middle of a long compile, evaluation or step does not reach a boundary in time. So, of the grace, as much is
kept back as committing the newest state in memory takes, and then that one is committed.
"""

from __future__ import annotations

from dataclasses import dataclass

_LEAST_S = 1.0
_SAFETY = 2.0
# Where no commit was measured yet: a slow disk's speed.
_BYTES_PER_S = 50e6
# So long before the deadline the worker is killed, so that we are through when it comes.
_KILL_S = 1.0


@dataclass(frozen=True)
class Deadline:
    """Seconds after the request: at ``secure_s`` what is in memory is committed, at ``kill_s`` the worker is
    killed, from ``end_s`` on nothing is waited for.
    """

    secure_s: float
    kill_s: float
    end_s: float


def plan(grace_s: float, commit_s: float | None, state_bytes: int) -> Deadline:
    """The deadline's parts; ``commit_s`` is what the last commit took, ``state_bytes`` what one writes."""
    expected_s = commit_s if commit_s is not None else state_bytes / _BYTES_PER_S
    kill_s = max(grace_s / 2, grace_s - _KILL_S)
    secure_s = max(grace_s / 4, kill_s - _LEAST_S - _SAFETY * expected_s)
    return Deadline(min(secure_s, kill_s), kill_s, grace_s)
