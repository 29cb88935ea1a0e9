"""Looks after a group while it lives, and collects what was seen of it when it is over.

The edges are elsewhere: ``liveness`` judges silence, ``readiness`` looks at the
machine, ``disk_watch`` at the disk, ``logtail`` reads what the worker said last, ``cgroup`` what the kernel
says.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from resilient.config import KeepPolicy
from resilient.host import cgroup, kernel_log
from resilient.host.world import World
from resilient.journal.events import HangFound, MemoryExceeded
from resilient.run.rundir import RunDirectory
from resilient.store import layout
from resilient.wire.messages import CheckpointSaved, ExceptionLeft, PlaceOpened, WorkerNews
from supervisor.edges.question import Question
from supervisor.edges.vitals import Vitals
from supervisor.edges.writer_process import try_to_make
from supervisor.group.attempt import Attempt
from supervisor.verdict import readiness
from supervisor.verdict.classify import PLACES, Evidence, ReportedHang
from supervisor.verdict.readiness import Need, Obstacle, Probe, ReadinessCheck
from supervisor.watching import logtail
from supervisor.watching.disk_watch import DiskWatch
from supervisor.watching.footprint import FootprintMeter
from supervisor.watching.liveness import Hang, HangPolicy, Liveness

_LOOK_S = 5.0
# A training that grows fast is caught before it is far above its limit.
_MEMORY_LOOK_S = 1.0
_PATIENCE_S = 2.0
_REMEDIES = {
    False: "the stacks of its threads go to the log, then it is started again",
    True: "somebody has stopped it (SIGSTOP): it is woken, and started again if it does not go on",
}


@dataclass(frozen=True)
class Limits:
    """How long a worker may be silent (``hang_s``: None as the run itself teaches, 0 for ever), and how much
    memory it may take (None: any). A ``mute`` one is another program than ours, and never says anything.
    """

    hang_s: float | None = None
    memory_bytes: int | None = None
    mute: bool = False


@dataclass(frozen=True)
class GroupProblem:
    """What is wrong with a group that lives: the event for the journal, and words."""

    event: HangFound | MemoryExceeded
    text: str


class Watchman:
    """Watches one attempt after the other; ``disk`` watches over all of them."""

    def __init__(
        self,
        limits: Limits,
        directory: RunDirectory,
        keep: KeepPolicy,
        world: World,
        probe: Probe = try_to_make,
    ) -> None:
        self._limits = limits
        self._directory = directory
        self._clock = world.clock
        self._readiness = ReadinessCheck(directory.root, probe)
        self._place = directory.root
        self.disk = DiskWatch(directory.root, keep, world.clock)
        self._attempt: Attempt | None = None
        self._liveness: Liveness | None = None
        self._hang: Hang | None = None
        self._too_large_bytes = 0
        self._meter = FootprintMeter(world.clock)
        self._oom_kills = 0
        # Made before the first launch; the end of each attempt moves it on.
        self._kernel_log = kernel_log.Bookmark()

    def close(self) -> None:
        """Lets go of the kernel's log; nothing is watched any more."""
        self._kernel_log.close()

    def begin(self, attempt: Attempt) -> None:
        """A group has been launched."""
        self._attempt = attempt
        self._hang = None
        self._too_large_bytes = 0
        self._meter = FootprintMeter(self._clock)
        self._oom_kills = cgroup.oom_kills() or 0
        policy = HangPolicy(self._limits.hang_s)
        self._liveness = Liveness(attempt.heartbeat, policy, self._vitals, self._clock.monotonic())

    def note(self, message: WorkerNews) -> None:
        """Hears what is told of the run."""
        if isinstance(message, PlaceOpened):
            self._place = Path(message.directory)
        elif isinstance(message, CheckpointSaved) and self._attempt is not None:
            self.disk.saved(layout.checkpoint_directory(self._place, 0), message.file)

    # While it lives

    def look(self) -> GroupProblem | None:
        """Looks at the group: what is wrong with it, if anything."""
        attempt, limit = self._attempt, self._limits.memory_bytes
        assert attempt is not None
        seen = self._vitals()
        taken = self._meter.weigh(seen, limit) if seen is not None else None
        if taken is not None and limit is not None and taken.total_bytes > limit:
            self._too_large_bytes = taken.total_bytes
            event = MemoryExceeded(taken.total_bytes, limit, attempt=attempt.number)
            text = f"the training takes {taken.total_bytes / 1e9:.2f} GB, more than --memory-limit allows"
            return GroupProblem(event, f"{text}: it is saved, and started again")
        return self._look_for_life(attempt)

    def _look_for_life(self, attempt: Attempt) -> GroupProblem | None:
        # Any other command than a worker of ours never beats. Ours may hang before it has said a word.
        if self._liveness is None or self._liveness.next_look_s is None or self._is_mute:
            return None
        now_s = self._clock.monotonic()
        if now_s < self._liveness.next_look_s:
            return None
        self._hang = hang = self._liveness.look(now_s)
        if hang is None:
            return None
        phase = hang.phase.name.lower()
        text = (
            f"the training hangs {PLACES[phase]}, after step {hang.step}: nothing moved for "
            f"{hang.silent_s:.0f} s; {_REMEDIES[hang.stopped]}"
        )
        seconds = hang.silent_s, hang.limit_s
        return GroupProblem(HangFound(phase, hang.step, *seconds, hang.stopped, attempt=attempt.number), text)

    @property
    def was_stopped(self) -> bool:
        """Whether what hung was stopped by a signal: it needs no more than to be woken."""
        return self._hang is not None and self._hang.stopped

    def moves(self) -> bool:
        """Whether a group that hung has come to life again; then it is none that hangs."""
        assert self._hang is not None
        assert self._attempt is not None
        # Any beat is one: a loop may come round to the same phase, and to no other step.
        if self._attempt.look() == self._hang.beat:
            return False
        self._hang = None
        return True

    @property
    def next_look_s(self) -> float:
        """In how many seconds to look again."""
        next_s = _LOOK_S if self._limits.memory_bytes is None else _MEMORY_LOOK_S
        # One that never says a word is not looked at for its beats: that look would be due for ever.
        if self._is_mute or self._liveness is None or self._liveness.next_look_s is None:
            return next_s
        return min(next_s, max(0.05, self._liveness.next_look_s - self._clock.monotonic()))

    @property
    def _is_mute(self) -> bool:
        attempt = self._attempt
        if attempt is None or not attempt.speaks:
            return self._limits.mute
        return attempt.was_replaced

    def _vitals(self) -> Vitals | None:
        assert self._attempt is not None
        return self._attempt.workers[0].vitals()

    # Between two groups

    def obstacle(self, left: Sequence[int]) -> Obstacle | None:
        """What stands in the way of another group; ``left`` are processes that would not die."""
        need = Need(self.disk.checkpoint_bytes, self._meter.most.own_bytes)
        return readiness.judge(self._readiness.look([self._place], left), need)

    def evidence(self, attempt: Attempt, code: int | None = None) -> Evidence:
        """What was seen of a group that is over; ``code`` is how, where it cannot be reaped."""
        beat = attempt.look()
        incident = attempt.told.of(ExceptionLeft)
        worker = attempt.workers[0]
        return Evidence(
            returncode=attempt.code if code is None else code,
            mute=self._limits.mute,
            told=attempt.told,
            sent=attempt.sent,
            progressed=attempt.progressed,
            step=attempt.step,
            phase=(incident.phase if incident is not None else "") or beat.phase.name.lower(),
            silence=_silence(self._hang),
            too_large_bytes=self._too_large_bytes,
            oom_kills=max(0, (cgroup.oom_kills() or 0) - self._oom_kills),
            kernel=self._kernel_log.kernel_says(worker.pid),
            peak_bytes=self._meter.most.total_bytes,
            log_end=_end_of(self._directory.log(attempt.number)),
        )


def _end_of(log: Path) -> str:
    """The end of a log; nothing where its disk does not answer."""
    asked = Question(partial(logtail.read, log))
    asked.wait(_PATIENCE_S)
    return asked.answer if asked.is_answered else ""


def _silence(hang: Hang | None) -> ReportedHang | None:
    return None if hang is None else ReportedHang(hang.phase.name.lower(), hang.silent_s, hang.limit_s)
