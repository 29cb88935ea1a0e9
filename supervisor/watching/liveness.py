"""Whether a worker is alive or hangs: the judgment, and what has to be remembered between two looks at it.

A worker beats whenever it begins something else. What is judged is its silence since the last beat, by the
phase that this beat told:

    STEP, DATA, CALLBACKS, EVALUATING    happen over and over: the limit is learned from the silences that
                                         this attempt has seen in the phase, and came to their end
    SAVING                               the same, with a higher floor: to kill a worker heals no disk
    all others                           happen once: nothing can be learned, so the limit is high, and while
                                         the processes use CPU or do I/O nothing is held against them: code
                                         that prepares data for hours is no hang

A limit that was learned may be wrong, because code does today what it never did before (an evaluation of
one's own at every thousandth step). So it is not enough while the processes are busy; then the high limit is.
A limit that the user has given is taken at its word.

What does not count as silence: time in which we did not run ourselves (the machine was suspended, everything
was frozen, or we were starved), time in which a thread of the worker waited for a CPU, and time under a
debugger. All clocks are monotonic.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from resilient.wire.heartbeat import Beat, Phase
from supervisor.edges.vitals import Vitals

FLOOR_S = 60.0
SAVING_FLOOR_S = 600.0
UNKNOWN_S = 1800.0
"""The limit where nothing is known yet, and nothing can be learned."""
TIMES_LONGEST = 10.0
QUANTILE = 0.999
LEAST_SAMPLES = 20

_RECURRENT = frozenset({Phase.STEP, Phase.DATA, Phase.CALLBACKS, Phase.EVALUATING})
_LEAST_LOOK_S, _MOST_LOOK_S = 0.5, 5.0
# We are never quite on time.
_LATE_S = 0.5
# CPU time is counted in hundredths of a second: a share of 1% takes some seconds to be seen.
_ACTIVITY_S = 5.0
_BUSY_SHARE = 0.01
_BUSY_BYTES_PER_S = 4096.0
# In proc(5); one that a debugger has stopped is "t".
_STOPPED = "T"


@dataclass(frozen=True)
class HangPolicy:
    """``timeout_s``: None: learned from the run itself; 0: a worker never hangs; else seconds of silence."""

    timeout_s: float | None = None

    @property
    def on(self) -> bool:
        return self.timeout_s is None or self.timeout_s > 0


@dataclass(frozen=True)
class Silence:
    """A silence that goes on: of which phase, how long, and what is known of such ones.

    ``silent_s`` is what counts of the time since the last beat, ``quiet_s`` the part of it since the
    worker's processes were last seen at work. ``samples`` silences of this phase have ended in this attempt,
    and ``longest_s`` is a high quantile of them.
    """

    phase: Phase
    silent_s: float
    quiet_s: float
    samples: int = 0
    longest_s: float = 0.0

    @property
    def is_known(self) -> bool:
        """Whether enough such silences were seen to learn from."""
        return self.samples >= LEAST_SAMPLES


@dataclass(frozen=True)
class Hang:
    """A worker hangs: since which beat, silent for how long, against which limit.

    ``stopped``: it does not run because of a signal (SIGSTOP), and would go on if it were woken.
    """

    beat: Beat
    silent_s: float
    limit_s: float
    stopped: bool = False

    @property
    def phase(self) -> Phase:
        """Where it hangs."""
        return self.beat.phase

    @property
    def step(self) -> int:
        """The newest completed step."""
        return self.beat.step


def limit_s(policy: HangPolicy, silence: Silence) -> float:
    """How long this silence may last."""
    if policy.timeout_s is not None:
        strict = silence.phase in _RECURRENT
        return policy.timeout_s if strict else max(10 * policy.timeout_s, SAVING_FLOOR_S)
    if not silence.is_known or silence.phase not in _RECURRENT | {Phase.SAVING}:
        return UNKNOWN_S
    floor_s = SAVING_FLOOR_S if silence.phase is Phase.SAVING else FLOOR_S
    return max(floor_s, TIMES_LONGEST * silence.longest_s)


def is_hang(policy: HangPolicy, silence: Silence) -> bool:
    """Whether it has lasted too long."""
    if not policy.on:
        return False
    limit = limit_s(policy, silence)
    if silence.phase not in _RECURRENT:
        return silence.quiet_s > limit
    if policy.timeout_s is not None:
        return silence.silent_s > limit
    busy_s = max(limit, UNKNOWN_S) if silence.is_known else float("inf")
    return silence.quiet_s > limit or silence.silent_s > busy_s


class Pages(Protocol):
    """The heartbeat, as far as it is read (``resilient.wire.heartbeat.Heartbeat``)."""

    def read(self) -> Beat: ...

    def samples(self, phase: Phase) -> int: ...

    def longest(self, phase: Phase, quantile: float) -> float: ...


class Liveness:
    """Looks at one worker of one attempt, now and then. ``vitals`` reads what the kernel tells of it.

    They are read only while the worker is silent. ``next_look_s`` is the monotonic time of the next look;
    None where none is wanted.
    """

    def __init__(
        self, pages: Pages, policy: HangPolicy, vitals: Callable[[], Vitals | None], now_s: float
    ) -> None:
        self._pages = pages
        self._policy = policy
        self._read_vitals = vitals
        self._beat = pages.read()
        self._looked_s = now_s
        self._silent_s = 0.0
        self._quiet_s = 0.0
        self._vitals: Vitals | None = None
        self._activity: tuple[float, Vitals] | None = None
        self.next_look_s: float | None = now_s + _LEAST_LOOK_S if policy.on else None

    def look(self, now_s: float) -> Hang | None:
        """Looks at the worker at this monotonic time: the hang, if it is one."""
        if self.next_look_s is None:
            return None
        asleep_s = max(0.0, now_s - self.next_look_s - _LATE_S)
        passed_s, self._looked_s = now_s - self._looked_s, now_s
        beat = self._pages.read()
        if beat != self._beat:
            self._begin(beat, now_s, asleep_s)
        else:
            self._go_on(now_s, passed_s, asleep_s)
        silence = self._silence()
        limit = limit_s(self._policy, silence)
        self.next_look_s = now_s + min(max(limit / 4, _LEAST_LOOK_S), _MOST_LOOK_S)
        # A beat that was not there at the last look is a sign of life, however long ago it was.
        if self._vitals is None or self._vitals.traced or not is_hang(self._policy, silence):
            return None
        return Hang(beat, silence.silent_s, limit, self._vitals.state == _STOPPED)

    def _silence(self) -> Silence:
        phase = self._beat.phase
        return Silence(
            phase,
            self._silent_s,
            self._quiet_s,
            self._pages.samples(phase),
            self._pages.longest(phase, QUANTILE),
        )

    def _begin(self, beat: Beat, now_s: float, asleep_s: float) -> None:
        """A new silence, which may have begun before we fell asleep, and after."""
        since_s = now_s - beat.at_ns / 1e9
        self._beat = beat
        # A time that lies ahead is none that a worker of ours has written.
        self._silent_s = self._quiet_s = max(0.0, since_s - asleep_s)
        self._vitals = self._activity = None

    def _go_on(self, now_s: float, passed_s: float, asleep_s: float) -> None:
        before, self._vitals = self._vitals, self._read_vitals()
        if self._vitals is None:
            return
        counted_s = max(0.0, passed_s - asleep_s - _starved_s(before, self._vitals))
        if self._vitals.traced or (before is not None and before.traced):
            counted_s = 0.0
        self._silent_s += counted_s
        self._quiet_s += counted_s
        self._note_activity(now_s, self._vitals)

    def _note_activity(self, now_s: float, vitals: Vitals) -> None:
        if self._activity is None:
            self._activity = now_s, vitals
            return
        since_s, earlier = self._activity
        if now_s - since_s < _ACTIVITY_S:
            return
        self._activity = now_s, vitals
        if _is_busy(earlier, vitals, now_s - since_s):
            self._quiet_s = 0.0


def _starved_s(before: Vitals | None, now: Vitals) -> float:
    """For how long a thread of the worker has waited for a CPU since: the one that waited longest."""
    if before is None:
        return 0.0
    waits = (now_s - before.waited_s.get(thread, now_s) for thread, now_s in now.waited_s.items())
    return max(waits, default=0.0)


def _is_busy(before: Vitals, now: Vitals, passed_s: float) -> bool:
    return (
        now.cpu_s - before.cpu_s > _BUSY_SHARE * passed_s
        or now.io_bytes - before.io_bytes > _BUSY_BYTES_PER_S * passed_s
    )
