"""What is to happen later, if nothing else does: named timers, at most one of each name."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from resilient.host.clock import Clock

Callback = Callable[[], None]
Guard = Callable[[str], AbstractContextManager[None]]

_AGAIN_S = 5.0

_LONGEST_S = 3600.0
"""At once: the kernel counts the milliseconds in 32 bits, and ``--grace 1e12`` has its right too."""


def _unguarded(name: str) -> AbstractContextManager[None]:
    return nullcontext()


class Timers:
    """Timers over a monotonic clock. Nothing runs by itself: whoever waits asks when, and fires them."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._at_s: dict[str, tuple[float, Callback]] = {}

    def set(self, name: str, delay_s: float, callback: Callback) -> None:
        """Calls ``callback`` once, in ``delay_s`` seconds; replaces a timer of the same name."""
        self._at_s[name] = self._clock.monotonic() + delay_s, callback

    def cancel(self, name: str) -> None:
        """Forgets a timer; one that does not exist is no error."""
        self._at_s.pop(name, None)

    def cancel_all(self) -> None:
        self._at_s.clear()

    @property
    def wait_s(self) -> float | None:
        """How long to wait for the next one, which may then be still to come; None when there is none."""
        if not self._at_s:
            return None
        left_s = min(at_s for at_s, _ in self._at_s.values()) - self._clock.monotonic()
        return min(max(0.0, left_s), _LONGEST_S)

    def fire(self, guard: Guard = _unguarded) -> None:
        """Calls what is due, the earliest first. A callback may set and cancel timers.

        Each is called within ``guard`` of its name; one whose fault that contains is called again a little
        later, unless somebody has set it meanwhile.
        """
        now_s = self._clock.monotonic()
        for name, (at_s, _) in sorted(self._at_s.items(), key=lambda item: item[1][0]):
            # An earlier callback may have cancelled or moved it.
            present = self._at_s.get(name)
            if present is not None and present[0] == at_s and at_s <= now_s:
                del self._at_s[name]
                done = False
                with guard(name):
                    present[1]()
                    done = True
                if not done and name not in self._at_s:
                    self.set(name, _AGAIN_S, present[1])
