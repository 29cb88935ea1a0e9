"""A run's account in plain words, for somebody who is woken at night. Pure: an account in, paragraphs out."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from resilient.sizes import size
from resilient.tools.account import Account
from resilient.tools.command_line import count
from resilient.tools.outlook import Present
from resilient.tools.phrases import WIDTH, clock, item, length, paragraph, stop
from resilient.tools.supervisions import FINISHED, RecordedAttempt, Supervision, step_name

_TRACEBACK_LINES = 8
_FAULTS = ("segmentation", "segfault", "SIGSEGV", "SIGBUS", "SIGABRT", "SIGFPE", "SIGILL")


def headline(account: Account, present: Present) -> str:
    """The run in one sentence or two."""
    attempts = [attempt for attempt in account.attempts if attempt.began or attempt.spawn_error]
    if not account.supervisions:
        return f"The journal of {present.name} tells of nothing yet."
    first = account.supervisions[0]
    words = f"The run in {present.name}"
    if command := " ".join(account.supervisions[-1].command):
        words += f" ({textwrap.shorten(command, 60, placeholder=' ...')})"
    began = f", begun {clock(first.span.began)}" if first.span.began is not None else ""
    supervisions = len(account.supervisions)
    supervisors = (
        f" under {count(supervisions, 'supervisor')}, one after the other" if supervisions > 1 else ""
    )
    story = f"{words}{began}: {count(len(attempts), 'attempt')} so far{supervisors}. {_unread(account)}"
    return paragraph(story.strip(), "")


def _unread(account: Account) -> str:
    """What of the journal is not in the story."""
    return " ".join(filter(None, (_torn(account), version_note(account))))


def _torn(account: Account) -> str:
    if not account.torn:
        return ""
    lines = "1 line of the journal is" if account.torn == 1 else f"{account.torn} lines of the journal are"
    return f"{lines} torn or no journal's, and left out."


def version_note(account: Account) -> str:
    """What of the journal is of another version, and left out; "" for nothing."""
    newer = "A newer version of resilient-run has written some of the journal." if account.newer else ""
    if not account.unknown:
        return newer
    names = textwrap.shorten(", ".join(sorted(account.unknown)), WIDTH, placeholder=" ...")
    events = count(account.unknown.total(), "event")
    unknown = f"Left out: {events} of a kind that this version does not know ({names})."
    return f"{newer} {unknown}".strip()


def chapters(account: Account, present: Present, *, only: int | None = None) -> Iterator[str]:
    """One paragraph per attempt, and one wherever a supervisor took over from another."""
    for index, supervision in enumerate(account.supervisions):
        last = index == len(account.supervisions) - 1
        # A training without a supervisor may hold the run, after a supervisor that vanished.
        alive = last and present.alive and (not present.holder or supervision.pid in (None, present.holder))
        if only is None and index:
            yield _handover(supervision, account.supervisions[index - 1])
        for attempt in supervision.attempts:
            if attempt.is_blank and not (attempt.remarks or attempt.waits):
                continue
            if only is None or attempt.number == only:
                newest = alive and attempt is supervision.attempts[-1]
                yield _chapter(supervision, attempt, present, newest, whole=only is not None)
        if only is None and not supervision.ended and not alive:
            yield paragraph(_vanished(supervision, account.supervisions[index + 1 :]))


def _handover(supervision: Supervision, before: Supervision) -> str:
    words = f"{clock(supervision.span.began)}: the same command was run again"
    if supervision.rebooted:
        words += ", after the machine had been started anew"
    return paragraph(f"{words} (supervisor: process {supervision.pid or 'unknown'}).")


def _vanished(supervision: Supervision, later: list[Supervision]) -> str:
    who = f"The supervisor (process {supervision.pid})" if supervision.pid else "The supervisor"
    if later and later[0].rebooted:
        why = "the machine went down"
    else:
        why = "the supervisor itself was killed, or the machine went down"
    heard = (
        f"; it was last heard of {clock(supervision.span.ended)}"
        if supervision.span.ended is not None
        else ""
    )
    return f"{who} vanished without a last word: {why}{heard}. Nothing was judged or decided after that."


def _chapter(
    supervision: Supervision, attempt: RecordedAttempt, present: Present, newest: bool, *, whole: bool
) -> str:
    parts = [_title(attempt), paragraph(" ".join(_sentences(supervision, attempt, newest)))]
    parts += _evidence(attempt)
    parts += _traceback(attempt, whole)
    parts += [item(f"Note: {remark}") for remark in attempt.remarks]
    if attempt.more_remarks:
        parts.append(item(f"Note: {count(attempt.more_remarks, 'more remark')} in journal.jsonl"))
    if attempt.number in present.logs:
        where = f"{present.name}/logs/attempt_{attempt.number:04d}"
        stacks = ", with the stacks of all threads" if attempt.hang or _is_fault(attempt) else ""
        parts.append(item(f"Its output{stacks}: {where}"))
    return "\n".join(parts)


def _title(attempt: RecordedAttempt) -> str:
    name = (
        f"Attempt {attempt.number}" if attempt.number else "An attempt whose beginning is not in the journal"
    )
    began = f", {clock(attempt.span.began)}" if attempt.span.began is not None else ""
    seconds = attempt.span.seconds
    return f"{name}{began}{f', {length(seconds)}' if seconds is not None and attempt.began else ''}"


def _sentences(supervision: Supervision, attempt: RecordedAttempt, newest: bool) -> Iterator[str]:
    for reason in attempt.waits[-3:]:
        yield f"A start was held up: {stop(reason)}"
    if attempt.spawn_error:
        yield f"The worker could not be started: {stop(attempt.spawn_error)}"
    else:
        yield _beginning(attempt)
        yield _progress(attempt)
    yield from _trouble(attempt)
    yield _ending(supervision, attempt, newest)
    yield _saved(attempt)
    yield _decision(supervision, attempt, newest)


def _beginning(attempt: RecordedAttempt) -> str:
    if attempt.from_step is not None:
        where = {"memory": " from memory", "": ""}.get(attempt.from_file, f" from {attempt.from_file}")
        return f"It went on after step {attempt.from_step}{where}."
    if attempt.fresh:
        return "It started from the beginning: there was no checkpoint."
    return "It never came so far as to begin or resume a training." if attempt.step == 0 else ""


def _progress(attempt: RecordedAttempt) -> str:
    first = (attempt.from_step or 0) + 1
    if attempt.step < first:
        return "It completed no step that is known of."
    if attempt.step == first:
        return f"It completed step {first}."
    return f"It completed steps {first} to {attempt.step}."


def _trouble(attempt: RecordedAttempt) -> Iterator[str]:
    if attempt.hang is not None:
        hang = attempt.hang
        phase = f" in the phase {hang.phase.lower()}" if hang.phase else ""
        how_long = f" for {hang.silent_s:.0f} s" if hang.silent_s is not None else ""
        most = f" ({hang.limit_s:.0f} s are allowed)" if hang.limit_s is not None else ""
        yield f"It hung: nothing moved{phase}{how_long}{most}, so the supervisor ended it."
    if attempt.memory is not None:
        used, most_bytes = attempt.memory.bytes, attempt.memory.limit_bytes
        much = f" {size(used)} of memory" if used is not None else " more memory than allowed"
        limit_ = f"; --memory-limit is {size(most_bytes)}" if most_bytes is not None else ""
        yield f"It took{much}{limit_}, so the supervisor saved and ended it before the kernel would."


def _ending(supervision: Supervision, attempt: RecordedAttempt, newest: bool) -> str:
    verdict = attempt.verdict
    if verdict is None and newest:
        return "It is running now."
    if verdict is None and supervision.broken and attempt is supervision.attempts[-1]:
        return f"It was ended because the supervisor itself failed: {stop(supervision.broken)}"
    if verdict is None and attempt.complete:
        return "The script came to its end; the supervisor did not live to say so."
    if verdict is None:
        return "How it ended is not known: the supervisor was gone, or the journal is torn."
    if verdict.kind == FINISHED:
        return "The script came to its end, and the training was complete."
    where = f" in the phase {verdict.phase.lower()}" if verdict.phase else ""
    when = "before completing a step" if verdict.at_start else f"after step {attempt.step}"
    if not attempt.step and not verdict.at_start:
        when = ""
    status = f" [{', '.join(filter(None, (verdict.kind, _status(verdict.status))))}]"
    return f"It ended {when}{where}: {verdict.cause or 'no cause is given'}{status}.".replace("  ", " ")


def _status(status: int | None) -> str:
    return "" if status is None else f"exit status {status}"


def _saved(attempt: RecordedAttempt) -> str:
    verdict, save = attempt.verdict, attempt.last_save
    words = []
    if save is not None:
        number = (
            f"{count(attempt.saves, 'checkpoint')} was"
            if attempt.saves == 1
            else f"{attempt.saves} checkpoints were"
        )
        words.append(f"{number} saved, the last one of step {save.step}: {save.file or 'no name is given'}.")
    elif attempt.began:
        words.append("Nothing was saved.")
    if verdict is not None and verdict.kept_step and verdict.kept_step > (verdict.saved_step or 0):
        words.append(f"When it ended, step {verdict.kept_step} was kept in memory.")
    lost = attempt.step - max(save.step if save else 0, attempt.from_step or 0)
    if attempt.failed_saves:
        failed = "A save" if attempt.failed_saves == 1 else f"{attempt.failed_saves} saves"
        last = step_name(attempt.unsaved_step)
        words.append(f"{failed} FAILED, the last one of {last}: {stop(attempt.last_failure)}")
    if verdict is not None and lost > 0 and verdict.kind != FINISHED and not verdict.kept_step:
        again = "step has" if lost == 1 else f"{lost} steps have"
        words.append(f"The last {again} to be computed again.")
    return " ".join(words)


def _decision(supervision: Supervision, attempt: RecordedAttempt, newest: bool) -> str:
    verdict = attempt.verdict
    if verdict is None or verdict.kind == FINISHED:
        return ""
    words = "; ".join(filter(None, (verdict.action, verdict.reason)))
    reason = f": {words}" if words else ""
    if supervision.stop_signal and attempt is supervision.attempts[-1]:
        return f"It had been asked to stop ({supervision.stop_signal}), so no other attempt followed."
    if verdict.restart_in_s is None:
        return f"The supervisor gave up{reason}."
    later = f"starts it again {verdict.restart_in_s:.1f} s later" if newest else ""
    return (
        f"The supervisor {later or f'decided to start it again {verdict.restart_in_s:.1f} s later'}{reason}."
    )


def _evidence(attempt: RecordedAttempt) -> list[str]:
    if attempt.verdict is None or not attempt.verdict.evidence:
        return []
    return [item("This judgment rests on:"), *(item(f"- {text}") for text in attempt.verdict.evidence)]


def _traceback(attempt: RecordedAttempt, whole: bool) -> list[str]:
    report = attempt.report
    if report is None or not (report.traceback or report.exception):
        return []
    lines = report.traceback.rstrip().splitlines() or [f"{report.exception}: {report.message}".rstrip(": ")]
    title = "The traceback:" if whole or len(lines) <= _TRACEBACK_LINES else "The end of the traceback:"
    shown = lines if whole else lines[-_TRACEBACK_LINES:]
    return [item(title), *(f"      {line}" for line in shown)]


def _is_fault(attempt: RecordedAttempt) -> bool:
    verdict = attempt.verdict
    return verdict is not None and any(sign in f"{verdict.kind} {verdict.cause}" for sign in _FAULTS)
