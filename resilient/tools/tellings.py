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
    Attempt,
    Excess,
    Report,
    Save,
    Stillness,
    Verdict,
    Watch,
    step_name,
)


def _run(watch: Watch, event: SupervisorStarted) -> None:
    watch.pid = event.pid
    watch.run_id = event.run_id
    watch.command = event.command


def _attempt(watch: Watch, event: AttemptStarted) -> None:
    attempt = Attempt(event.attempt or 0, pid=event.pid, began=True)
    if watch.attempts and watch.attempts[-1].is_blank:
        # Something was told of it before it began: a start that was held up.
        blank = watch.attempts.pop()
        attempt.waits, attempt.remarks = blank.waits, blank.remarks
    watch.attempts.append(attempt)


def _spawn_failed(watch: Watch, event: LaunchFailed) -> None:
    attempt = Attempt(event.attempt or 0, spawn_error=event.error or "no reason is given")
    watch.attempts.append(attempt)


def _fresh(watch: Watch, event: TrainingBegun) -> None:
    watch.attempt().fresh = True


def _resumed(watch: Watch, event: TrainingResumed) -> None:
    attempt = watch.attempt()
    attempt.from_step, attempt.from_file = event.step, event.file
    attempt.reach(attempt.from_step)


def _progress(watch: Watch, event: FirstStepDone) -> None:
    watch.attempt().reach(event.step)


def _saved(watch: Watch, event: StepSaved) -> None:
    attempt, step = watch.attempt(), event.step
    if step is None:
        return
    words = event.file, event.reason
    attempt.reach(step)
    attempt.saves += 1
    attempt.last_save = Save(step, event.epoch, *words, event.time)


def _save_failed(watch: Watch, event: StepNotSaved) -> None:
    attempt = watch.attempt()
    attempt.failed_saves += 1
    attempt.last_failure = event.error
    attempt.unsaved_step = event.step
    attempt.reach(attempt.unsaved_step)


def _warning(watch: Watch, event: WarningGiven) -> None:
    watch.attempt().remark(event.text)


def _incident(watch: Watch, event: ExceptionReported) -> None:
    attempt = watch.attempt()
    attempt.report = Report(
        kind=event.kind,
        exception=event.exception,
        message=event.message,
        traceback=event.traceback,
        step=event.step,
        phase=event.phase,
    )
    attempt.reach(attempt.report.step)


def _refused(watch: Watch, event: TrainingRefused) -> None:
    hint = event.hint
    watch.attempt().refusal = event.error + (f" ({hint})" if hint else "")


def _finished(watch: Watch, event: ScriptFinished) -> None:
    watch.attempt().complete = event.complete


def _hang(watch: Watch, event: HangFound) -> None:
    attempt = watch.attempt()
    attempt.hang = Stillness(event.phase, event.step, event.silent_s, event.limit_s)
    attempt.reach(event.step)


def _moves(watch: Watch, event: MovesAgain) -> None:
    """It hung, and does not any more."""
    attempt = watch.attempt()
    if attempt.hang is not None:
        silent_s = attempt.hang.silent_s
        how_long = f" for {silent_s:.0f} s" if silent_s is not None else ""
        attempt.remark(f"nothing moved{how_long} after step {attempt.step}; it went on when it was woken")
    attempt.hang = None


def _memory(watch: Watch, event: MemoryExceeded) -> None:
    watch.attempt().memory = Excess(event.bytes, event.limit_bytes)


def _judged(watch: Watch, event: AttemptJudged) -> None:
    attempt = watch.attempt()
    attempt.verdict = Verdict(
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


def _poison(watch: Watch, event: StepPoisoned) -> None:
    action = event.action or "nothing is said of what follows"
    watch.attempt().remark(f"{step_name(event.step)} fails again and again: {action}")


def _shunned(watch: Watch, event: StateShunned) -> None:
    why = event.why or "no reason is given"
    watch.attempt().remark(f"the state of {step_name(event.step)} is not resumed from any more: {why}")


def _killed(watch: Watch, event: WorkersKilled) -> None:
    why = event.why
    watch.attempt().remark(f"the workers were killed{f': {why}' if why else ''}")


def _left_behind(watch: Watch, event: ProcessesLeft) -> None:
    processes = ", ".join(event.processes)
    watch.attempt().remark(f"could not be killed, the kernel holds them: {processes}")


def _waiting(watch: Watch, event: WaitingFor) -> None:
    reason = event.reason
    if reason and reason not in watch.attempt().waits[-1:]:
        watch.attempt().waits = [*watch.attempt().waits, reason][-MOST_REMARKS:]


def _stop_requested(watch: Watch, event: StopRequested) -> None:
    verdict = watch.attempts[-1].verdict if watch.attempts else None
    if verdict is not None and verdict.restart_in_s is None:
        # The run was over by then, whatever it still had to save.
        return
    watch.stop_signal = watch.stop_signal or event.signal or "a signal"


def _mishap(watch: Watch, event: MishapContained) -> None:
    what = event.what or "something"
    watch.attempt().remark(f"{what}: a fault of resilient-run itself, which the run went on with")


def _broken(watch: Watch, event: SupervisorBroken) -> None:
    watch.broken = event.error or "a fault that is not named"


def _ended(watch: Watch, event: SupervisorEnded) -> None:
    watch.ended, watch.status = True, event.status


TELLINGS: Mapping[type[JournalEvent], Callable[[Watch, Any], None]] = {
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
