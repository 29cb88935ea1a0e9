"""When a scheduled checkpoint is made: a pure decision at each step boundary.

Steps lie on a grid that belongs to the run, not to the process: with N = 10 a checkpoint is due when a
multiple of 10 has been passed since the last one. A run resumed at step 7 therefore saves at 10, 20, ... like
the uninterrupted run, and not at 17, 27, ...; a boundary that was skipped makes the next one due.
Seconds count from the last checkpoint of this process, by the monotonic clock.
"""

from __future__ import annotations

import math

from resilient.config import SavePolicy

MIRROR_SHARE = 0.02
"""How much of the training's time the mirror may take."""


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
    """Every how many steps the state is mirrored, so that copying takes at most 2% of the steps' time.

    ``copy_s`` is what one copy costs, ``step_s`` what one step takes without it, both in seconds.
    """
    if copy_s <= 0.0 or step_s <= 0.0:
        return 1
    return max(1, math.ceil(copy_s / (MIRROR_SHARE * step_s)))
