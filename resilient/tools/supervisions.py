"""What a journal tells of a run: supervisors, the attempts of each, and how these ended."""

from __future__ import annotations

from dataclasses import dataclass, field

from resilient.journal.base import JournalEvent

MOST_REMARKS = 20
REQUEST = "request"
FINISHED = "finished"


@dataclass
class RecordedSave:
    """A checkpoint that was reported as durable."""

    step: int
    epoch: int | None
    file: str
    reason: str
    time: float | None


@dataclass
class RecordedReport:
    """What the worker itself said about its end."""

    kind: str
    exception: str
    message: str
    traceback: str
    step: int | None
    phase: str


@dataclass
class RecordedVerdict:
    """What the supervisor judged, and what it decided. ``restart_in_s`` is None when none was to follow."""

    kind: str
    cause: str
    status: int | None
    step: int | None
    phase: str
    at_start: bool
    evidence: tuple[str, ...]
    restart_in_s: float | None
    reason: str
    action: str
    hint: str
    saved_step: int | None
    kept_step: int | None
    time: float | None


@dataclass(frozen=True)
class Stillness:
    """A hang: where, for how long nothing had moved by then, and how long it may."""

    phase: str
    step: int | None
    silent_s: float | None
    limit_s: float | None


@dataclass(frozen=True)
class Excess:
    """More memory than ``--memory-limit`` allows."""

    bytes: float | None
    limit_bytes: float | None


@dataclass
class Span:
    """From when to when, by the wall clock and, for the length, by the monotonic one."""

    began: float | None = None
    ended: float | None = None
    began_s: float | None = None
    ended_s: float | None = None

    def hear(self, event: JournalEvent) -> None:
        """It lasts at least until this event."""
        if self.began is None:
            self.began, self.began_s = event.time, event.monotonic
        self.ended = event.time if event.time is not None else self.ended
        self.ended_s = event.monotonic if event.monotonic is not None else self.ended_s

    @property
    def seconds(self) -> float | None:
        """How long it was; wall time only where there is nothing better: it may have been set meanwhile."""
        for began, ended in ((self.began_s, self.ended_s), (self.began, self.ended)):
            if began is not None and ended is not None and ended >= began:
                return ended - began
        return None


@dataclass
class RecordedAttempt:
    """One launch of the workers. ``step`` is the newest one known, ``from_step`` where it went on from."""

    number: int
    pid: int | None = None
    span: Span = field(default_factory=Span)
    began: bool = False
    fresh: bool = False
    from_step: int | None = None
    from_file: str = ""
    step: int = 0
    saves: int = 0
    last_save: RecordedSave | None = None
    failed_saves: int = 0
    last_failure: str = ""
    unsaved_step: int | None = None
    report: RecordedReport | None = None
    verdict: RecordedVerdict | None = None
    spawn_error: str = ""
    refusal: str = ""
    hang: Stillness | None = None
    memory: Excess | None = None
    remarks: list[str] = field(default_factory=list)
    more_remarks: int = 0
    waits: list[str] = field(default_factory=list)
    complete: bool = False

    @property
    def is_blank(self) -> bool:
        """Whether nothing tells that it was ever launched."""
        return not self.began and not self.spawn_error and self.verdict is None and not self.saves

    def remark(self, text: str) -> None:
        """Takes note of a remark, but not of thousands."""
        if not text or text in self.remarks:
            return
        if len(self.remarks) < MOST_REMARKS:
            self.remarks.append(text)
        else:
            self.more_remarks += 1

    def reach(self, step: int | None) -> None:
        """A step is known to have been completed."""
        self.step = max(self.step, step or 0)


@dataclass
class Supervision:
    """One supervisor's time with the run. Without ``ended`` it has vanished, or is still at work.

    ``rebooted`` tells that the machine was started anew before this one began, ``broken`` which fault of its
    own has ended it.
    """

    pid: int | None = None
    run_id: str = ""
    command: tuple[str, ...] = ()
    span: Span = field(default_factory=Span)
    attempts: list[RecordedAttempt] = field(default_factory=list)
    stop_signal: str = ""
    ended: bool = False
    status: int | None = None
    rebooted: bool = False
    broken: str = ""

    def attempt(self) -> RecordedAttempt:
        """The present attempt; one without a number where the journal knows of none."""
        if not self.attempts:
            self.attempts.append(RecordedAttempt(0))
        return self.attempts[-1]


def step_name(step: int | None) -> str:
    """A step for people."""
    return "a step that is not told" if step is None else f"step {step}"
