"""How much memory a tree of processes takes: each page once, however many of them have it.

Processes that were forked share what they have not written since, and all of them the mirror; the sum of what
is resident counts such a page for each. So /proc/PID/smaps_rollup is read, whose ``Pss`` gives each process
its part of a page. The kernel walks through all of the process's pages for it: about 8 ms for each GB, in
which it cannot map anything. So it is not read at each look, but as seldom as keeps that a small part of the
time, and somewhat more often where more is resident than may be taken.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from resilient.host.clock import Clock
from supervisor.edges.question import Question
from supervisor.edges.vitals import Vitals

_PROC = Path("/proc")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_SHARE, _URGENT_SHARE = 0.01, 0.05
"""Of the time, what looking may take; the second where a limit may have been passed."""

_PATIENCE_S = 1.0


@dataclass(frozen=True)
class Footprint:
    """``total_bytes`` of memory, and ``own_bytes`` of that which is neither a file's nor the mirror's."""

    total_bytes: int = 0
    own_bytes: int = 0


def read(pids: Iterable[int]) -> Footprint:
    """What these processes take together. One that has gone takes nothing."""
    found = [_rollup(pid) or _resident(pid) for pid in pids]
    return Footprint(sum(one.total_bytes for one in found), sum(one.own_bytes for one in found))


def _rollup(pid: int) -> Footprint | None:
    """A process's part; None where the kernel does not say, or not to us."""
    lines = (line.split() for line in _text(pid, "smaps_rollup").splitlines())
    sizes = {words[0]: int(words[1]) * 1024 for words in lines if words[0] in ("Pss:", "Pss_Anon:")}
    return Footprint(sizes["Pss:"], sizes["Pss_Anon:"]) if len(sizes) == 2 else None


def _resident(pid: int) -> Footprint:
    """All that is resident, of ``statm``: shared pages count as its own."""
    numbers = _text(pid, "statm").split()
    if len(numbers) < 3:
        return Footprint()
    resident, files = int(numbers[1]) * _PAGE_BYTES, int(numbers[2]) * _PAGE_BYTES
    return Footprint(resident, max(0, resident - files))


def _text(pid: int, name: str) -> str:
    with contextlib.suppress(OSError):
        return (_PROC / str(pid) / name).read_text(errors="replace")
    return ""


class FootprintMeter:
    """Weighs one attempt's processes, now and then. ``most`` is the most that was seen."""

    def __init__(self, clock: Clock, read: Callable[[Iterable[int]], Footprint] = read) -> None:
        self._clock = clock
        self._read = read
        self._asked: Question[tuple[Footprint, float]] | None = None
        self._weighed_s: float | None = None
        self._cost_s = 0.0
        self.most = Footprint()

    def weigh(self, seen: Vitals, limit_bytes: int | None = None) -> Footprint | None:
        """What they take now; None where it is too early to look again, or the kernel does not answer."""
        if not seen.members:
            # Where it is not known who they are, what is resident has to do.
            return self._note(Footprint(seen.resident_bytes, seen.resident_bytes))
        if self._asked is None:
            if self._is_early(limit_bytes is not None and seen.resident_bytes > limit_bytes):
                return None
            self._asked = Question(partial(self._ask, seen.members))
            self._asked.wait(_PATIENCE_S)
        asked = self._asked
        if asked.is_answered or asked.lost:
            self._asked = None
        if not asked.is_answered:
            return None
        found, self._cost_s = asked.answer
        self._weighed_s = self._clock.monotonic()
        return self._note(found)

    def _ask(self, pids: Sequence[int]) -> tuple[Footprint, float]:
        began_s = self._clock.monotonic()
        return self._read(pids), self._clock.monotonic() - began_s

    def _is_early(self, urgent: bool) -> bool:
        pause_s = self._cost_s / (_URGENT_SHARE if urgent else _SHARE)
        return self._weighed_s is not None and self._clock.monotonic() < self._weighed_s + pause_s

    def _note(self, found: Footprint) -> Footprint:
        total, own = max(self.most.total_bytes, found.total_bytes), max(self.most.own_bytes, found.own_bytes)
        self.most = Footprint(total, own)
        return found
