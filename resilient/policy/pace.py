"""Measures how long steps and copies take, smoothed, and decides how often the mirror copies the state."""

from __future__ import annotations

from resilient.host.clock import Clock
from resilient.policy import schedule

_SMOOTHING = 0.1
# The first step of a process compiles the graph, and the second may still allocate.
_SETTLING_STEPS = 2
# The first copy into each slot is several times slower: the kernel has to find and clear its pages.
_SETTLING_COPIES = 3


class Pace:
    """Measures one training call. With a fixed ``every`` the measurements decide nothing."""

    def __init__(self, clock: Clock, every: int | None) -> None:
        self._clock = clock
        self._fixed = every
        self._seen = -_SETTLING_STEPS
        self._last_s = clock.monotonic()
        self._step_s = 0.0
        self._copy_s = 0.0
        self._copies = 0
        self._since = 0
        self._wanted = False

    def wants(self, *, is_step: bool = True) -> bool:
        """Whether to copy at this boundary; the caller asks once at each.

        The end of an epoch is a boundary but not a step. It is worth a copy if it took long, for example with
        an evaluation.
        """
        now_s = self._clock.monotonic()
        passed_s, self._last_s = now_s - self._last_s, now_s
        self._wanted = self._wants_step(passed_s) if is_step else self._wants_end(passed_s)
        return self._wanted

    def _wants_step(self, passed_s: float) -> bool:
        self._seen += 1
        if self._seen > 0:
            self._step_s = _smooth(self._step_s, passed_s)
        self._since += 1
        return self._since >= self.every

    def _wants_end(self, passed_s: float) -> bool:
        if self._fixed is not None:
            return self._fixed == 1
        return self._copy_s <= schedule.MIRROR_SHARE * passed_s

    @property
    def every(self) -> int:
        """The current number of steps between two copies."""
        if self._fixed is not None:
            return self._fixed
        if self._copies <= _SETTLING_COPIES:
            # The cost of the first copies says nothing about the others.
            return 1
        return schedule.mirror_every(self._copy_s, self._step_s)

    def copied(self, seconds: float) -> None:
        """Records that a boundary was copied; the cost does not count for the next step.

        The copy alone took ``seconds``; if the boundary was wanted, observing it counts as cost too.
        """
        now_s = self._clock.monotonic()
        cost_s = now_s - self._last_s if self._wanted else seconds
        self._copies += 1
        if self._copies > _SETTLING_COPIES:
            self._copy_s = _smooth(self._copy_s, cost_s)
        self._wanted = False
        self._since = 0
        self._last_s = now_s


def _smooth(average_s: float, value_s: float) -> float:
    return value_s if average_s == 0.0 else average_s + _SMOOTHING * (value_s - average_s)
