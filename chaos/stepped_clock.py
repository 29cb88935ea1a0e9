"""A clock that moves when it is told to, and only then."""

from __future__ import annotations


class SteppedClock:
    """A Clock for tests. ``advance`` lets time pass; ``jump`` sets the wall clock as an operator would."""

    def __init__(self, now: float = 1_700_000_000.0, monotonic: float = 1000.0) -> None:
        self._now = now
        self._monotonic = monotonic

    def now(self) -> float:
        return self._now

    def monotonic(self) -> float:
        return self._monotonic

    def advance(self, seconds: float) -> None:
        assert seconds >= 0, "the monotonic clock never goes back"
        self._now += seconds
        self._monotonic += seconds

    def jump(self, seconds: float) -> None:
        """Moves the wall clock alone, either way."""
        self._now += seconds
