"""What each event of a journal tells of the supervisor that wrote it, and of its newest attempt.

A field that is missing, or of another type, is passed over: nothing that a journal says raises anything.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from resilient.tools.journal_reader import Event
from resilient.tools.supervisions import (
    FINISHED,
    MOST_REMARKS,
    Attempt,
    Report,
    Save,
    Verdict,
    Watch,
    step_name,
)


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


def _moves(watch: Watch, event: Event) -> None:
    """It hung, and does not any more."""
    attempt = watch.attempt()
    if attempt.hang is not None:
        silent_s = attempt.hang["silent_s"]
        how_long = f" for {silent_s:.0f} s" if isinstance(silent_s, float) else ""
        attempt.remark(f"nothing moved{how_long} after step {attempt.step}; it went on when it was woken")
    attempt.hang = None


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
        watch.attempt().waits = [*watch.attempt().waits, reason][-MOST_REMARKS:]


def _stop_requested(watch: Watch, event: Event) -> None:
    verdict = watch.attempts[-1].verdict if watch.attempts else None
    if verdict is not None and verdict.restart_in_s is None:
        # The run was over by then, whatever it still had to save.
        return
    watch.stop_signal = watch.stop_signal or event.text("signal") or "a signal"


def _mishap(watch: Watch, event: Event) -> None:
    what = event.text("what") or "something"
    watch.attempt().remark(f"{what}: a fault of resilient-run itself, which the run went on with")


def _broken(watch: Watch, event: Event) -> None:
    watch.broken = event.text("error") or "a fault that is not named"


def _ended(watch: Watch, event: Event) -> None:
    watch.ended, watch.status = True, event.whole("status")


TELLINGS: Mapping[str, Callable[[Watch, Event], None]] = {
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
    "busy": _refused,
    "usage": _refused,
    "finished": _finished,
    "hang": _hang,
    "moves": _moves,
    "memory": _memory,
    "incident_judged": _judged,
    "poison": _poison,
    "shunned": _shunned,
    "killed": _killed,
    "left_behind": _left_behind,
    "waiting": _waiting,
    "stop_requested": _stop_requested,
    "mishap": _mishap,
    "broken": _broken,
    "ended": _ended,
}
