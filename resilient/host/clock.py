"""Time. Two clocks, because a wall clock jumps: durations use only the monotonic one."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """The clocks that the project may read."""

    def now(self) -> float:
        """Seconds since the epoch, for people to read. May jump either way; never used for order."""
        ...

    def monotonic(self) -> float:
        """Seconds from an arbitrary origin; never goes back. For durations and deadlines."""
        ...


class SystemClock:
    """The machine's own clocks."""

    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()
