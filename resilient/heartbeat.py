"""The heartbeat: one page of shared memory in which a worker says where it is.

The supervisor makes it for each attempt and looks into it when it wants to know; nothing is sent. Every
number is one aligned word, so that a reader never sees half of one:

    0   phase u64 (Phase)   8   newest completed step u64   16   monotonic time of the last beat, ns u64

Linux's monotonic clock is the same in every process. A worker that beats into a page nobody holds any more
does no harm.
"""

from __future__ import annotations

import enum
import mmap
import os
import time
from dataclasses import dataclass

PAGE_BYTES = 4096
_PHASE, _STEP, _TIME = 0, 1, 2


class Phase(enum.IntEnum):
    """What a worker is doing, as far as it told."""

    STARTING = 0
    IMPORTING = 1
    DATA = 2
    STEP = 3
    CALLBACKS = 4
    SAVING = 5
    OVER = 6


@dataclass(frozen=True)
class Beat:
    """The last beat: ``step`` is the newest completed one, 0 before the first; ``at_ns`` monotonic time."""

    phase: Phase
    step: int
    at_ns: int


class Heartbeat:
    """One page, for the writer and for the reader. ``descriptor`` is closed with it."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._words = memoryview(mmap.mmap(descriptor, PAGE_BYTES)).cast("Q")

    @classmethod
    def create(cls) -> Heartbeat:
        """A new page, all zeros. Raises OSError."""
        descriptor = os.memfd_create("resilient-heartbeat", os.MFD_CLOEXEC)
        try:
            os.ftruncate(descriptor, PAGE_BYTES)
            return cls(descriptor)
        except BaseException:
            os.close(descriptor)
            raise

    def beat(self, phase: Phase, step: int | None = None) -> None:
        """Says what the worker is doing now; ``step`` only where it has changed."""
        self._words[_PHASE] = phase
        if step is not None:
            self._words[_STEP] = step
        self._words[_TIME] = time.monotonic_ns()

    def read(self) -> Beat:
        """The last beat."""
        phase = self._words[_PHASE]
        known = Phase(phase) if phase in Phase._value2member_map_ else Phase.STARTING
        return Beat(known, self._words[_STEP], self._words[_TIME])

    def close(self) -> None:
        """Lets go of the descriptor."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1
