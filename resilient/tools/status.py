"""resilient status: how a run stands, in a few lines."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from resilient.host.world import World
from resilient.tools import narrative
from resilient.tools.account import Account
from resilient.tools.command_line import Commands, add_command, age, say
from resilient.tools.explain import look, read_account
from resilient.tools.opened_run import add_run, open_directory
from resilient.tools.outlook import Present, advice, gone, newest
from resilient.tools.phrases import clock
from resilient.tools.supervisions import FINISHED, RecordedAttempt

_MORE = """\
Whether the run is being worked on, and by which process; the newest attempt and
step; the last checkpoint; the last failure. `resilient explain` tells the whole
story. The last checkpoint is read from the disk, all else from the journal. Works
while the run is being trained; changes nothing; no key is needed."""


def add(commands: Commands) -> None:
    """The command."""
    words = "how a run stands: running or not, attempt, step, last checkpoint, last failure"
    add_run(add_command(commands, "status", run, words, _MORE))


def run(options: argparse.Namespace) -> int:
    """Tells how the run stands."""
    directory = open_directory(options)
    account, present = read_account(directory), look(directory, options.run)
    if options.json:
        say(options, _facts(account, present), None)
    else:
        for name, text in _lines(account, present, World().clock.now()):
            print(f"{name + ':':<14} {' '.join(text.split())}")
    return 0


def _facts(account: Account, present: Present) -> dict[str, object]:
    attempt, failed, save = _newest(account), _last_failed(account), newest(account, present)
    return {
        "run": present.name,
        "running": present.alive,
        "pid": present.holder or None,
        "status": present.status,
        "attempt": attempt.number if attempt else None,
        "worker": attempt.pid if attempt and present.holder and attempt.verdict is None else None,
        "step": max((a.step for a in account.attempts), default=0),
        "saved_step": save.step if save else None,
        "saved_file": save.file if save else None,
        "saved_time": save.time if save else None,
        "reported_step": account.durable.step if account.durable else None,
        "doubt": present.disk.unread or present.disk.against or None,
        "last_failure": failed.verdict.cause if failed and failed.verdict else None,
        "last_heard": account.last.time if account.last else None,
    }


def _lines(account: Account, present: Present, now: float) -> Iterator[tuple[str, str]]:
    attempt, failed = _newest(account), _last_failed(account)
    yield "run", present.name
    yield "state", _state(account, present)
    if attempt is not None:
        worker = (
            f", process {attempt.pid}" if present.holder and attempt.pid and attempt.verdict is None else ""
        )
        yield "attempt", f"{attempt.number}, begun {clock(attempt.span.began)}{worker}"
        # Between two saves a journal does not tell of each step.
        yield "step", f"{attempt.step}{' or later' if present.alive and attempt.verdict is None else ''}"
    yield "last saved", _saved(account, present, now)
    if missing := gone(account, present):
        yield "missing", f"step {missing.step}, which the journal reports as saved: {missing.file}"
    if failed is not None and failed.verdict is not None:
        yield (
            "last failure",
            f"attempt {failed.number}: {failed.verdict.cause} ({clock(failed.verdict.time)})",
        )
    if note := narrative.version_note(account):
        yield "journal", note
    yield "next", advice(account, present)


def _saved(account: Account, present: Present, now: float) -> str:
    save, disk = newest(account, present), present.disk
    if save is None:
        return "nothing"
    ago = f", {age(now - save.time)} ago" if save.time is not None and now >= save.time else ""
    doubt = " (sealed with a key that is not at hand)" if save is disk.sealed else ""
    if disk.unread:
        doubt = f" (as the journal says; the disk cannot be read: {disk.unread})"
    return f"step {save.step}{ago}: {save.file}{doubt}"


def _state(account: Account, present: Present) -> str:
    if present.elsewhere:
        return present.elsewhere
    if present.holder:
        supervised = bool(account.supervisions) and account.supervisions[-1].pid == present.holder
        return (
            f"running, {'supervisor: ' if supervised else 'without a supervisor: '}process {present.holder}"
        )
    if present.status == "running":
        return "not running, although its record says so: its supervisor was killed, or the machine went down"
    if present.disk.against:
        return f"not running; its record says that it is complete, but {present.disk.against}"
    words = {"complete": "complete", "stopped": "stopped", "failed": "given up"}
    return f"not running, {words.get(present.status, 'never finished')}"


def _newest(account: Account) -> RecordedAttempt | None:
    attempts = [attempt for attempt in account.attempts if not attempt.is_blank]
    return attempts[-1] if attempts else None


def _last_failed(account: Account) -> RecordedAttempt | None:
    failed = (a for a in reversed(account.attempts) if a.verdict is not None and a.verdict.kind != FINISHED)
    return next(failed, None)
