"""Decides at each step boundary whether a scheduled checkpoint is due. Pure.

Steps lie on a grid that belongs to the run, not to the process: with N = 10 a checkpoint is due when the run
has passed a multiple of 10 since the last one. So a run resumed at step 7 saves at 10, 20, ... like the
uninterrupted run, not at 17, 27, ...; after a skipped boundary the next one is due.
Seconds count from the last checkpoint of this process, by the monotonic clock.
"""

from __future__ import annotations

import math

from resilient.config import SavePolicy

MIRROR_SHARE = 0.02
"""The share of the training's time that the mirror may take."""


def due(policy: SavePolicy, step: int, last_step: int, now_s: float, last_s: float) -> bool:
    """Whether a checkpoint is due at the boundary after ``step``.

    ``last_step`` is the step of the last checkpoint (0 before the first, the resumed step after a resume).
    ``now_s`` and ``last_s`` are readings of the monotonic clock: now, and when the last checkpoint was
    made or this process began.
    """
    if step <= last_step:
        return False
    if policy.every_steps is not None:
        return step // policy.every_steps > last_step // policy.every_steps
    if policy.every_s is not None:
        return now_s - last_s >= policy.every_s
    return False


def mirror_every(copy_s: float, step_s: float) -> int:
    """The number of steps from one mirror copy to the next, so that copying takes at most 2% of their time.

    ``copy_s`` is the cost of one copy, ``step_s`` the time of one step without it, both in seconds.
    """
    if copy_s <= 0.0 or step_s <= 0.0:
        return 1
    return max(1, math.ceil(copy_s / (MIRROR_SHARE * step_s)))
