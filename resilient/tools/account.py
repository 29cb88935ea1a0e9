"""The account of a run: its journal's events put together, attempt by attempt. Pure; no words for people.

An ``Account`` has the supervisors that worked on the run one after the other, each with its attempts. It is
built one event at a time, however many there are; what a journal lacks (torn lines, an older version) is
missing here too, and nothing that it says makes the building fail.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from resilient.tools.journal import Event

_MOST_REMARKS = 20
REQUEST = "request"
FINISHED = "finished"


@dataclass
class Save:
    """A checkpoint that was reported as durable."""

    step: int
    epoch: int | None
    file: str
    reason: str
    time: float | None


@dataclass
class Report:
    """What the worker itself said about its end."""

    kind: str
    exception: str
    message: str
    traceback: str
    step: int | None
    phase: str


@dataclass
class Verdict:
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


@dataclass
class Span:
    """From when to when, by the wall clock and, for the length, by the monotonic one."""

    began: float | None = None
    ended: float | None = None
    began_s: float | None = None
    ended_s: float | None = None

    def hear(self, event: Event) -> None:
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
class Attempt:
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
    last_save: Save | None = None
    failed_saves: int = 0
    last_failure: str = ""
    unsaved_step: int | None = None
    report: Report | None = None
    verdict: Verdict | None = None
    spawn_error: str = ""
    refusal: str = ""
    hang: Mapping[str, object] | None = None
    memory: Mapping[str, object] | None = None
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
        if len(self.remarks) < _MOST_REMARKS:
            self.remarks.append(text)
        else:
            self.more_remarks += 1

    def reach(self, step: int | None) -> None:
        """A step is known to have been completed."""
        self.step = max(self.step, step or 0)


@dataclass
class Watch:
    """One supervisor's time with the run. Without ``ended`` it has vanished, or is still at work.

    ``rebooted`` tells that the machine was started anew before this one began.
    """

    pid: int | None = None
    run_id: str = ""
    command: tuple[str, ...] = ()
    span: Span = field(default_factory=Span)
    attempts: list[Attempt] = field(default_factory=list)
    stop_signal: str = ""
    ended: bool = False
    status: int | None = None
    rebooted: bool = False

    def attempt(self) -> Attempt:
        """The present attempt; one without a number where the journal knows of none."""
        if not self.attempts:
            self.attempts.append(Attempt(0))
        return self.attempts[-1]


@dataclass
class Account:
    """A run's story so far. ``durable`` is the checkpoint that the run would go on from."""

    watches: list[Watch] = field(default_factory=list)
    durable: Save | None = None
    last: Event | None = None
    torn: int = 0

    @property
    def attempts(self) -> list[Attempt]:
        """All attempts, oldest first."""
        return [attempt for watch in self.watches for attempt in watch.attempts]

    def hear(self, event: Event) -> None:
        """Takes one more event into account."""
        if event.name == "run" or not self.watches:
            self._begin(event)
        watch = self.watches[-1]
        watch.span.hear(event)
        self.last = event
        telling = _TELLINGS.get(event.name)
        # What a dead worker has left in memory is saved after its end.
        over = bool(watch.attempts) and watch.attempts[-1].verdict is not None
        if telling is not None:
            telling(watch, event)
        if event.name in _STARTS or (event.name in _OF_AN_ATTEMPT and not over):
            watch.attempt().span.hear(event)
        if event.name in ("saved", "resumed"):
            self._note_durable(watch.attempt(), event)

    def _begin(self, event: Event) -> None:
        before = self.watches[-1].span.ended_s if self.watches else None
        rebooted = before is not None and event.monotonic is not None and event.monotonic < before
        self.watches.append(Watch(rebooted=rebooted))

    def _note_durable(self, attempt: Attempt, event: Event) -> None:
        """The last one counts, not the highest: after a rollback the steps are counted from further back."""
        if event.name == "saved" and event.whole("step") is not None:
            self.durable = attempt.last_save
        step, file = event.whole("step"), event.text("file")
        older = self.durable is None or (step is not None and step < self.durable.step)
        if event.name == "resumed" and step is not None and file not in ("", "memory") and older:
            # What was newer could not be used, or is not in this journal.
            self.durable = Save(step, event.whole("epoch"), file, "", None)


def step_name(step: int | None) -> str:
    """A step for people."""
    return "a step that is not told" if step is None else f"step {step}"


def build(events: Iterable[Event]) -> Account:
    """The account of these events."""
    account = Account()
    for event in events:
        account.hear(event)
    return account


# What each event tells


def _run(watch: Watch, event: Event) -> None:
    watch.pid = event.whole("pid")
    watch.run_id = event.text("run_id")
    watch.command = event.texts("command")


def _attempt(watch: Watch, event: Event) -> None:
    attempt = Attempt(event.whole("attempt") or 0, pid=event.whole("pid"), began=True)
    if watch.attempts and watch.attempts[-1].is_blank:
        # Something was told of it before it began: a start that was held up.
        blank = watch.attempts.pop()
        attempt.waits, attempt.remarks = blank.waits, blank.remarks
    watch.attempts.append(attempt)


def _spawn_failed(watch: Watch, event: Event) -> None:
    attempt = Attempt(event.whole("attempt") or 0, spawn_error=event.text("error") or "no reason is given")
    watch.attempts.append(attempt)


def _fresh(watch: Watch, event: Event) -> None:
    watch.attempt().fresh = True


def _resumed(watch: Watch, event: Event) -> None:
    attempt = watch.attempt()
    attempt.from_step, attempt.from_file = event.whole("step"), event.text("file")
    attempt.reach(attempt.from_step)


def _progress(watch: Watch, event: Event) -> None:
    watch.attempt().reach(event.whole("step"))


def _saved(watch: Watch, event: Event) -> None:
    attempt, step = watch.attempt(), event.whole("step")
    if step is None:
        return
    words = event.text("file"), event.text("reason")
    attempt.reach(step)
    attempt.saves += 1
    attempt.last_save = Save(step, event.whole("epoch"), *words, event.time)


def _save_failed(watch: Watch, event: Event) -> None:
    attempt = watch.attempt()
    attempt.failed_saves += 1
    attempt.last_failure = event.text("error")
    attempt.unsaved_step = event.whole("step")
    attempt.reach(attempt.unsaved_step)


def _warning(watch: Watch, event: Event) -> None:
    watch.attempt().remark(event.text("text"))


def _incident(watch: Watch, event: Event) -> None:
    attempt = watch.attempt()
    attempt.report = Report(
        kind=event.text("kind"),
        exception=event.text("exception"),
        message=event.text("message"),
        traceback=event.text("traceback"),
        step=event.whole("step"),
        phase=event.text("phase"),
    )
    attempt.reach(attempt.report.step)


def _refused(watch: Watch, event: Event) -> None:
    hint = event.text("hint")
    watch.attempt().refusal = event.text("error") + (f" ({hint})" if hint else "")


def _finished(watch: Watch, event: Event) -> None:
    watch.attempt().complete = event.flag("complete")


def _hang(watch: Watch, event: Event) -> None:
    attempt = watch.attempt()
    attempt.hang = {
        "phase": event.text("phase"),
        "step": event.whole("step"),
        "silent_s": event.number("silent_s"),
        "limit_s": event.number("limit_s"),
    }
    attempt.reach(event.whole("step"))


def _memory(watch: Watch, event: Event) -> None:
    limits = {name: event.number(name) for name in ("bytes", "limit_bytes")}
    watch.attempt().memory = limits


def _judged(watch: Watch, event: Event) -> None:
    attempt = watch.attempt()
    attempt.verdict = Verdict(
        kind=event.text("kind"),
        cause=event.text("cause"),
        status=event.whole("status"),
        step=event.whole("step"),
        phase=event.text("phase"),
        at_start=event.flag("at_start"),
        evidence=event.texts("evidence"),
        restart_in_s=event.number("restart_in_s"),
        reason=event.text("reason"),
        action=event.text("action"),
        hint=event.text("hint"),
        saved_step=event.whole("saved_step"),
        kept_step=event.whole("kept_step"),
        time=event.time,
    )
    attempt.reach(attempt.verdict.step)
    if attempt.verdict.kind == FINISHED:
        attempt.complete = True


def _poison(watch: Watch, event: Event) -> None:
    action = event.text("action") or "nothing is said of what follows"
    watch.attempt().remark(f"{step_name(event.whole('step'))} fails again and again: {action}")


def _shunned(watch: Watch, event: Event) -> None:
    why = event.text("why") or "no reason is given"
    watch.attempt().remark(
        f"the state of {step_name(event.whole('step'))} is not resumed from any more: {why}"
    )


def _killed(watch: Watch, event: Event) -> None:
    why = event.text("why")
    watch.attempt().remark(f"the workers were killed{f': {why}' if why else ''}")


def _left_behind(watch: Watch, event: Event) -> None:
    processes = ", ".join(event.texts("processes"))
    watch.attempt().remark(f"could not be killed, the kernel holds them: {processes}")


def _waiting(watch: Watch, event: Event) -> None:
    reason = event.text("reason")
    if reason and reason not in watch.attempt().waits[-1:]:
        watch.attempt().waits = [*watch.attempt().waits, reason][-_MOST_REMARKS:]


def _stop_requested(watch: Watch, event: Event) -> None:
    watch.stop_signal = watch.stop_signal or event.text("signal") or "a signal"


def _ended(watch: Watch, event: Event) -> None:
    watch.ended, watch.status = True, event.whole("status")


_TELLINGS: Mapping[str, Callable[[Watch, Event], None]] = {
    "run": _run,
    "attempt": _attempt,
    "spawn_failed": _spawn_failed,
    "fresh": _fresh,
    "resumed": _resumed,
    "progress": _progress,
    "saved": _saved,
    "save_failed": _save_failed,
    "warning": _warning,
    "incident": _incident,
    "unusable": _refused,
    "mismatch": _refused,
    "usage": _refused,
    "finished": _finished,
    "hang": _hang,
    "memory": _memory,
    "incident_judged": _judged,
    "poison": _poison,
    "shunned": _shunned,
    "killed": _killed,
    "left_behind": _left_behind,
    "waiting": _waiting,
    "stop_requested": _stop_requested,
    "ended": _ended,
}

_STARTS = frozenset({"attempt", "spawn_failed"})
_OF_AN_ATTEMPT = frozenset(_TELLINGS) - {"run", "stop_requested", "ended", "waiting"} | {"hello", "place"}
