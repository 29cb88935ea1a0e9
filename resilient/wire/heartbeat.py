"""The heartbeat: two pages of shared memory in which a worker says where it is, and how long things take it.

The supervisor makes them for each attempt and looks into them when it wants to know; nothing is sent. Every
number is one aligned word of 64 bits, so that a reader never sees half of one. The words lie in rows of 64:

    row 0          word 0: phase (Phase)   1: newest completed step   2: monotonic time of the last beat, ns
                   word 3: how the script has ended (ScriptEnd), 0 while it has not
    row 1 + phase  word n: how often a beat in this phase was followed by the next one after less than 2^n ns,
                   and not less than 2^(n-1)

So the histogram of a phase holds the silences that were normal in it: what a new silence is measured by. Its
quantiles can be read at any time, and nothing has to be sampled.

The time is written before the phase and read after it: what a reader sees of two beats at once is an old
phase with a new time, which is a shorter silence than there is, and never a longer one.

Linux's monotonic clock is the same in every process. A worker that beats into pages nobody holds any more
does no harm. Whatever a worker writes into them, reading raises nothing.
"""

from __future__ import annotations

import contextlib
import enum
import fcntl
import mmap
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass

from resilient.host.mapping import map_shared

_ROW_WORDS = 64
_ROWS = 16
PAGES_BYTES = _ROWS * _ROW_WORDS * 8
_PHASE, _STEP, _TIME, _OUTCOME = 0, 1, 2, 3
_ALL_BITS = 2**64 - 1


class Phase(enum.IntEnum):
    """What a worker is doing, as far as it told."""

    STARTING = 0
    IMPORTING = 1
    """MindSpore is being imported."""
    SCRIPT = 2
    """The script's own code outside of steps: before, between and after training calls, at an epoch's end."""
    DATA = 3
    COMPILING = 4
    """The first step of a training call, or of an evaluation."""
    STEP = 5
    CALLBACKS = 6
    SAVING = 7
    """A checkpoint is being made, and the training waits for it."""
    EVALUATING = 8
    OVER = 9
    """The script is through; the interpreter ends."""


assert len(Phase) < _ROWS


class ScriptEnd(enum.IntFlag):
    """How a script has ended: what its last message says too, for a worker that has no link any more."""

    NONE = 0
    ENDED = 1
    COMPLETE = 2
    """No training was left in its middle."""
    TRAINED = 4
    """It came to a training call."""


@dataclass(frozen=True)
class Beat:
    """The last beat: ``step`` is the newest completed one, 0 before the first; ``at_ns`` monotonic time."""

    phase: Phase
    step: int
    at_ns: int


class Heartbeat:
    """The pages, for the one writer and for readers. ``descriptor`` is closed with it; -1: private memory."""

    def __init__(self, descriptor: int = -1) -> None:
        self.descriptor = descriptor
        memory = (
            memoryview(mmap.mmap(-1, PAGES_BYTES)) if descriptor < 0 else map_shared(descriptor, PAGES_BYTES)
        )
        self._words = memory.cast("Q")
        self._row = 0
        self._last_ns = 0

    @classmethod
    def create(cls) -> Heartbeat:
        """New pages, all zeros. Raises OSError."""
        descriptor = os.memfd_create("resilient-heartbeat", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(descriptor, PAGES_BYTES)
            # A reader would die of SIGBUS, were they cut off.
            fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL)
            return cls(descriptor)
        except BaseException:
            os.close(descriptor)
            raise

    # The worker's side: called several times per step

    def beat(self, phase: Phase, step: int | None = None) -> None:
        """Says what the worker is doing now; ``step`` only where it has changed."""
        words = self._words
        now_ns = time.monotonic_ns()
        if self._row:
            bucket = self._row + (now_ns - self._last_ns).bit_length()
            words[bucket] = words[bucket] + 1 & _ALL_BITS
        self._row = _row(phase)
        self._last_ns = now_ns
        if step is not None:
            words[_STEP] = step
        words[_TIME] = now_ns
        words[_PHASE] = phase

    def end(self, outcome: ScriptEnd) -> None:
        """Says how the script has ended."""
        self._words[_OUTCOME] = outcome

    @property
    def outcome(self) -> ScriptEnd:
        """How the script has ended, as far as it was said. Bits that nobody knows are left out."""
        known = ScriptEnd.ENDED | ScriptEnd.COMPLETE | ScriptEnd.TRAINED
        return ScriptEnd(self._words[_OUTCOME] & known)

    @property
    def phase(self) -> Phase:
        """What was said last."""
        return _known(self._words[_PHASE])

    @contextlib.contextmanager
    def during(self, phase: Phase) -> Iterator[None]:
        """Says that the worker is in this phase while the block runs, and then where it was before."""
        before = self.phase
        self.beat(phase)
        try:
            yield
        finally:
            self.beat(before)

    # The supervisor's side

    def read(self) -> Beat:
        """The last beat."""
        phase, step = self._words[_PHASE], self._words[_STEP]
        return Beat(_known(phase), step, self._words[_TIME])

    def samples(self, phase: Phase) -> int:
        """How many silences of this phase have come to their end."""
        return sum(self._histogram(phase))

    def longest(self, phase: Phase, quantile: float) -> float:
        """An upper bound of this quantile of a phase's silences, in seconds; 0.0 where there are none.

        It is at most twice the quantile itself.
        """
        counts = self._histogram(phase)
        wanted = quantile * sum(counts)
        passed = 0
        for bits, count in enumerate(counts):
            passed += count
            if count and passed >= wanted:
                return (1 << bits) / 1e9
        return 0.0

    def _histogram(self, phase: Phase) -> list[int]:
        row = _row(phase)
        return self._words[row : row + _ROW_WORDS].tolist()

    def close(self) -> None:
        """Lets go of the descriptor."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


def _row(phase: Phase) -> int:
    return (1 + phase) * _ROW_WORDS


def _known(number: int) -> Phase:
    """The phase with this number; of one that is none of ours nothing more is known."""
    return Phase(number) if number < len(Phase) else Phase.STARTING
