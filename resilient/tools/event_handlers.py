"""What each event of a journal tells of the supervisor that wrote it, and of its newest attempt.

An absent field (None, "") is passed over: nothing that a journal says raises anything.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from resilient.journal.base import JournalEvent
from resilient.journal.events import (
    AttemptJudged,
    AttemptStarted,
    CheckpointsBusy,
    ExceptionReported,
    FirstStepDone,
    HangFound,
    LaunchFailed,
    MemoryExceeded,
    MishapContained,
    MovesAgain,
    NothingUsable,
    ProcessesLeft,
    ScriptChanged,
    ScriptFinished,
    StateShunned,
    StepNotSaved,
    StepPoisoned,
    StepSaved,
    StopRequested,
    SupervisorBroken,
    SupervisorEnded,
    SupervisorStarted,
    TrainingBegun,
    TrainingRefused,
    TrainingResumed,
    UsageRejected,
    WaitingFor,
    WarningGiven,
    WorkersKilled,
)
from resilient.tools.supervisions import (
    FINISHED,
    MOST_REMARKS,
    Excess,
    RecordedAttempt,
    RecordedReport,
    RecordedSave,
    RecordedVerdict,
    Stillness,
    Supervision,
    step_name,
)


def _run(supervision: Supervision, event: SupervisorStarted) -> None:
    supervision.pid = event.pid
    supervision.run_id = event.run_id
    supervision.command = event.command


def _attempt(supervision: Supervision, event: AttemptStarted) -> None:
    attempt = RecordedAttempt(event.attempt or 0, pid=event.pid, began=True)
    if supervision.attempts and supervision.attempts[-1].is_blank:
        # Something was told of it before it began: a start that was held up.
        blank = supervision.attempts.pop()
        attempt.waits, attempt.remarks = blank.waits, blank.remarks
    supervision.attempts.append(attempt)


def _spawn_failed(supervision: Supervision, event: LaunchFailed) -> None:
    attempt = RecordedAttempt(event.attempt or 0, spawn_error=event.error or "no reason is given")
    supervision.attempts.append(attempt)


def _fresh(supervision: Supervision, event: TrainingBegun) -> None:
    supervision.attempt().fresh = True


def _resumed(supervision: Supervision, event: TrainingResumed) -> None:
    attempt = supervision.attempt()
    attempt.from_step, attempt.from_file = event.step, event.file
    attempt.reach(attempt.from_step)


def _progress(supervision: Supervision, event: FirstStepDone) -> None:
    supervision.attempt().reach(event.step)


def _saved(supervision: Supervision, event: StepSaved) -> None:
    attempt, step = supervision.attempt(), event.step
    if step is None:
        return
    words = event.file, event.reason
    attempt.reach(step)
    attempt.saves += 1
    attempt.last_save = RecordedSave(step, event.epoch, *words, event.time)


def _save_failed(supervision: Supervision, event: StepNotSaved) -> None:
    attempt = supervision.attempt()
    attempt.failed_saves += 1
    attempt.last_failure = event.error
    attempt.unsaved_step = event.step
    attempt.reach(attempt.unsaved_step)


def _warning(supervision: Supervision, event: WarningGiven) -> None:
    supervision.attempt().remark(event.text)


def _incident(supervision: Supervision, event: ExceptionReported) -> None:
    attempt = supervision.attempt()
    attempt.report = RecordedReport(
        kind=event.kind,
        exception=event.exception,
        message=event.message,
        traceback=event.traceback,
        step=event.step,
        phase=event.phase,
    )
    attempt.reach(attempt.report.step)


def _refused(supervision: Supervision, event: TrainingRefused) -> None:
    hint = event.hint
    supervision.attempt().refusal = event.error + (f" ({hint})" if hint else "")


def _finished(supervision: Supervision, event: ScriptFinished) -> None:
    supervision.attempt().complete = event.complete


def _hang(supervision: Supervision, event: HangFound) -> None:
    attempt = supervision.attempt()
    attempt.hang = Stillness(event.phase, event.step, event.silent_s, event.limit_s)
    attempt.reach(event.step)


def _moves(supervision: Supervision, event: MovesAgain) -> None:
    """It hung, and does not any more."""
    attempt = supervision.attempt()
    if attempt.hang is not None:
        silent_s = attempt.hang.silent_s
        how_long = f" for {silent_s:.0f} s" if silent_s is not None else ""
        attempt.remark(f"nothing moved{how_long} after step {attempt.step}; it went on when it was woken")
    attempt.hang = None


def _memory(supervision: Supervision, event: MemoryExceeded) -> None:
    supervision.attempt().memory = Excess(event.bytes, event.limit_bytes)


def _judged(supervision: Supervision, event: AttemptJudged) -> None:
    attempt = supervision.attempt()
    attempt.verdict = RecordedVerdict(
        kind=event.kind,
        cause=event.cause,
        status=event.status,
        step=event.step,
        phase=event.phase,
        at_start=event.at_start,
        evidence=event.evidence,
        restart_in_s=event.restart_in_s,
        reason=event.reason,
        action=event.action,
        hint=event.hint,
        saved_step=event.saved_step,
        kept_step=event.kept_step,
        time=event.time,
    )
    attempt.reach(attempt.verdict.step)
    if attempt.verdict.kind == FINISHED:
        attempt.complete = True


def _poison(supervision: Supervision, event: StepPoisoned) -> None:
    action = event.action or "nothing is said of what follows"
    supervision.attempt().remark(f"{step_name(event.step)} fails again and again: {action}")


def _shunned(supervision: Supervision, event: StateShunned) -> None:
    why = event.why or "no reason is given"
    supervision.attempt().remark(f"the state of {step_name(event.step)} is not resumed from any more: {why}")


def _killed(supervision: Supervision, event: WorkersKilled) -> None:
    why = event.why
    supervision.attempt().remark(f"the workers were killed{f': {why}' if why else ''}")


def _left_behind(supervision: Supervision, event: ProcessesLeft) -> None:
    processes = ", ".join(event.processes)
    supervision.attempt().remark(f"could not be killed, the kernel holds them: {processes}")


def _waiting(supervision: Supervision, event: WaitingFor) -> None:
    reason = event.reason
    if reason and reason not in supervision.attempt().waits[-1:]:
        supervision.attempt().waits = [*supervision.attempt().waits, reason][-MOST_REMARKS:]


def _stop_requested(supervision: Supervision, event: StopRequested) -> None:
    verdict = supervision.attempts[-1].verdict if supervision.attempts else None
    if verdict is not None and verdict.restart_in_s is None:
        # The run was over by then, whatever it still had to save.
        return
    supervision.stop_signal = supervision.stop_signal or event.signal or "a signal"


def _mishap(supervision: Supervision, event: MishapContained) -> None:
    what = event.what or "something"
    supervision.attempt().remark(f"{what}: a fault of resilient-run itself, which the run went on with")


def _broken(supervision: Supervision, event: SupervisorBroken) -> None:
    supervision.broken = event.error or "a fault that is not named"


def _ended(supervision: Supervision, event: SupervisorEnded) -> None:
    supervision.ended, supervision.status = True, event.status


TELLINGS: Mapping[type[JournalEvent], Callable[[Supervision, Any], None]] = {
    SupervisorStarted: _run,
    AttemptStarted: _attempt,
    LaunchFailed: _spawn_failed,
    TrainingBegun: _fresh,
    TrainingResumed: _resumed,
    FirstStepDone: _progress,
    StepSaved: _saved,
    StepNotSaved: _save_failed,
    WarningGiven: _warning,
    ExceptionReported: _incident,
    NothingUsable: _refused,
    ScriptChanged: _refused,
    CheckpointsBusy: _refused,
    UsageRejected: _refused,
    ScriptFinished: _finished,
    HangFound: _hang,
    MovesAgain: _moves,
    MemoryExceeded: _memory,
    AttemptJudged: _judged,
    StepPoisoned: _poison,
    StateShunned: _shunned,
    WorkersKilled: _killed,
    ProcessesLeft: _left_behind,
    WaitingFor: _waiting,
    StopRequested: _stop_requested,
    MishapContained: _mishap,
    SupervisorBroken: _broken,
    SupervisorEnded: _ended,
}
