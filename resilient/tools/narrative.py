"""A run's account in plain words, for somebody who is woken at night. Pure: an account in, paragraphs out."""

from __future__ import annotations

import textwrap
import time
from collections.abc import Iterator
from dataclasses import dataclass

from resilient.sizes import size
from resilient.tools.account import Account
from resilient.tools.command_line import count
from resilient.tools.on_disk import OnDisk
from resilient.tools.supervisions import FINISHED, RecordedAttempt, RecordedSave, Supervision, step_name

_WIDTH = 88
_TRACEBACK_LINES = 8
_FAULTS = ("segmentation", "segfault", "SIGSEGV", "SIGBUS", "SIGABRT", "SIGFPE", "SIGILL")
_NOBODY_LOOKED = OnDisk(unread="nobody has looked")


@dataclass(frozen=True)
class Present:
    """What is known of a run beside its journal.

    ``holder`` is the process that works on it now (0: none), ``elsewhere`` says why one that does cannot be
    seen from here. ``name`` is the run's directory as the person knows it; ``logs`` are the attempts that
    have left a log; ``disk`` is what of the run lies there.
    """

    name: str
    status: str = ""
    holder: int = 0
    elsewhere: str = ""
    logs: frozenset[int] = frozenset()
    disk: OnDisk = _NOBODY_LOOKED

    @property
    def alive(self) -> bool:
        """Whether anybody works on the run."""
        return self.holder != 0 or self.elsewhere != ""


def headline(account: Account, present: Present) -> str:
    """The run in one sentence or two."""
    attempts = [attempt for attempt in account.attempts if attempt.began or attempt.spawn_error]
    if not account.supervisions:
        return f"The journal of {present.name} tells of nothing yet."
    first = account.supervisions[0]
    words = f"The run in {present.name}"
    if command := " ".join(account.supervisions[-1].command):
        words += f" ({textwrap.shorten(command, 60, placeholder=' ...')})"
    began = f", begun {_clock(first.span.began)}" if first.span.began is not None else ""
    supervisions = len(account.supervisions)
    supervisors = (
        f" under {count(supervisions, 'supervisor')}, one after the other" if supervisions > 1 else ""
    )
    story = f"{words}{began}: {count(len(attempts), 'attempt')} so far{supervisors}. {_unread(account)}"
    return _paragraph(story.strip(), "")


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
    names = textwrap.shorten(", ".join(sorted(account.unknown)), _WIDTH, placeholder=" ...")
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
            yield _paragraph(_vanished(supervision, account.supervisions[index + 1 :]))


def _handover(supervision: Supervision, before: Supervision) -> str:
    words = f"{_clock(supervision.span.began)}: the same command was run again"
    if supervision.rebooted:
        words += ", after the machine had been started anew"
    return _paragraph(f"{words} (supervisor: process {supervision.pid or 'unknown'}).")


def _vanished(supervision: Supervision, later: list[Supervision]) -> str:
    who = f"The supervisor (process {supervision.pid})" if supervision.pid else "The supervisor"
    if later and later[0].rebooted:
        why = "the machine went down"
    else:
        why = "the supervisor itself was killed, or the machine went down"
    heard = (
        f"; it was last heard of {_clock(supervision.span.ended)}"
        if supervision.span.ended is not None
        else ""
    )
    return f"{who} vanished without a last word: {why}{heard}. Nothing was judged or decided after that."


def _chapter(
    supervision: Supervision, attempt: RecordedAttempt, present: Present, newest: bool, *, whole: bool
) -> str:
    parts = [_title(attempt), _paragraph(" ".join(_sentences(supervision, attempt, newest)))]
    parts += _evidence(attempt)
    parts += _traceback(attempt, whole)
    parts += [_item(f"Note: {remark}") for remark in attempt.remarks]
    if attempt.more_remarks:
        parts.append(_item(f"Note: {count(attempt.more_remarks, 'more remark')} in journal.jsonl"))
    if attempt.number in present.logs:
        where = f"{present.name}/logs/attempt_{attempt.number:04d}"
        stacks = ", with the stacks of all threads" if attempt.hang or _is_fault(attempt) else ""
        parts.append(_item(f"Its output{stacks}: {where}"))
    return "\n".join(parts)


def _title(attempt: RecordedAttempt) -> str:
    name = (
        f"Attempt {attempt.number}" if attempt.number else "An attempt whose beginning is not in the journal"
    )
    began = f", {_clock(attempt.span.began)}" if attempt.span.began is not None else ""
    seconds = attempt.span.seconds
    return f"{name}{began}{f', {_length(seconds)}' if seconds is not None and attempt.began else ''}"


def _sentences(supervision: Supervision, attempt: RecordedAttempt, newest: bool) -> Iterator[str]:
    for reason in attempt.waits[-3:]:
        yield f"A start was held up: {_stop(reason)}"
    if attempt.spawn_error:
        yield f"The worker could not be started: {_stop(attempt.spawn_error)}"
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
        return f"It was ended because the supervisor itself failed: {_stop(supervision.broken)}"
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
        words.append(f"{failed} FAILED, the last one of {last}: {_stop(attempt.last_failure)}")
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
    return [_item("This judgment rests on:"), *(_item(f"- {text}") for text in attempt.verdict.evidence)]


def _traceback(attempt: RecordedAttempt, whole: bool) -> list[str]:
    report = attempt.report
    if report is None or not (report.traceback or report.exception):
        return []
    lines = report.traceback.rstrip().splitlines() or [f"{report.exception}: {report.message}".rstrip(": ")]
    title = "The traceback:" if whole or len(lines) <= _TRACEBACK_LINES else "The end of the traceback:"
    shown = lines if whole else lines[-_TRACEBACK_LINES:]
    return [_item(title), *(f"      {line}" for line in shown)]


# How it stands, and what to do


def standing(account: Account, present: Present) -> str:
    """How the run stands now, and what to do next."""
    return _paragraph(
        f"Now: {_now(account, present)} {_safe(account, present)} {advice(account, present)}", ""
    )


def newest(account: Account, present: Present) -> RecordedSave | None:
    """The checkpoint that the run would resume from, as the disk has it."""
    return present.disk.newest(account.durable, frozenset(account.files))


def gone(account: Account, present: Present) -> RecordedSave | None:
    """One that the journal reports, and that is not on disk."""
    found, reported = newest(account, present), account.durable
    return reported if reported is not None and (found is None or found.step < reported.step) else None


def _now(account: Account, present: Present) -> str:
    attempt = account.attempts[-1] if account.attempts else None
    if present.holder:
        what = f"; attempt {attempt.number} is the newest, at step {attempt.step} or later" if attempt else ""
        return f"it is being worked on by process {present.holder}{what}."
    if present.elsewhere:
        return f"{present.elsewhere}."
    if account.supervisions and account.supervisions[-1].broken:
        return "the supervisor ended the run for a fault of its own, and nobody works on it."
    if present.disk.against:
        return f"nobody works on the run. Its record says that it is complete, but {present.disk.against}."
    words = {
        "complete": "the run is complete.",
        "stopped": "the run was stopped, and nobody works on it.",
        "failed": "the run was given up, and nobody works on it.",
        "running": "nobody works on the run, although its record says that it is running.",
    }
    return words.get(present.status, "nobody works on the run.")


def _safe(account: Account, present: Present) -> str:
    save, missing, disk = newest(account, present), gone(account, present), present.disk
    absent = (
        f"The journal reports step {missing.step} as saved ({missing.file}): it is not there."
        if missing
        else ""
    )
    if save is None:
        return absent or "Nothing of it is saved yet."
    name = f" ({save.file})" if save.file else ""
    if disk.unread:
        return f"Step {save.step} is safe on disk{name}, says the journal; nobody can tell: {disk.unread}."
    state = "is on disk, sealed with a key that is not at hand" if save is disk.sealed else "is safe on disk"
    return f"Step {save.step} {state}{name}. {absent}".rstrip()


def advice(account: Account, present: Present) -> str:
    """What to do next, in a sentence or two."""
    if present.elsewhere:
        return "It goes on there."
    if present.holder:
        return f"To end it: resilient stop {present.name}."
    if present.status == "complete" and not present.disk.against:
        return "There is nothing left to do."
    save, missing = newest(account, present), gone(account, present)
    on = f"it goes on after step {save.step}" if save else "it starts from the beginning"
    if missing or present.disk.against:
        on = "it says which of its checkpoints it can use, and what you can do"
    again = f"run the same command again: {on}"
    cure = _cure(account)
    if cure:
        return f"Next: {cure}; then {again}."
    return f"Next: {again}."


def _cure(account: Account) -> str:
    """What to change before the next try; "" where nothing need be."""
    attempts, supervision = account.attempts, account.supervisions[-1] if account.supervisions else None
    if not attempts or supervision is None or supervision.stop_signal or not supervision.ended:
        return ""
    attempt = attempts[-1]
    if attempt.unsaved_step and attempt.unsaved_step > (account.durable.step if account.durable else 0):
        return f"make room or repair what kept step {attempt.unsaved_step} from being saved"
    if attempt.refusal:
        return f"see to this: {attempt.refusal.rstrip('.')}"
    verdict = attempt.verdict
    if verdict is None or verdict.kind == FINISHED:
        return ""
    return verdict.hint or "remove the cause that is named above"


def _is_fault(attempt: RecordedAttempt) -> bool:
    verdict = attempt.verdict
    return verdict is not None and any(sign in f"{verdict.kind} {verdict.cause}" for sign in _FAULTS)


# Words


def clock(time_s: float | None) -> str:
    """A point in time for people, in their own time zone."""
    return _clock(time_s)


def _clock(time_s: float | None) -> str:
    try:
        return (
            time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(time_s)) if time_s is not None else "some time"
        )
    except (OverflowError, OSError, ValueError):
        return "some time"


def _length(seconds: float) -> str:
    """A duration, in its two largest units."""
    minutes, rest_s = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = [(days, "d"), (hours, "h"), (minutes, "min"), (rest_s, "s")]
    largest = next((i for i, (number, _) in enumerate(parts) if number), 3)
    return " ".join(f"{number} {unit}" for number, unit in parts[largest : largest + 2] if number) or "0 s"


def _stop(text: str) -> str:
    """A sentence's end."""
    text = text.strip() or "no reason is given"
    return text if text.endswith((".", "!", "?")) else f"{text}."


def _paragraph(text: str, indent: str = "  ") -> str:
    return "\n".join(
        textwrap.fill(line, _WIDTH, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False)
        for line in text.splitlines()
    )


def _item(text: str) -> str:
    lines = " ".join(text.split())
    return textwrap.fill(
        lines,
        _WIDTH,
        initial_indent="  ",
        subsequent_indent="    ",
        break_long_words=False,
        break_on_hyphens=False,
    )
