"""resilient explain: the story of a run, in plain words."""

from __future__ import annotations

import argparse
import re
from dataclasses import asdict
from typing import Any

from resilient.command_parser import CommandParser
from resilient.errors import ResilientError, StorageError, UnusableError, UsageError
from resilient.host.world import World
from resilient.run.lock_holder import holder
from resilient.run.rundir import RunDirectory
from resilient.tools.account import Account, build
from resilient.tools.command_line import Commands, add_command, say
from resilient.tools.journal_reader import JournalReader
from resilient.tools.narrative import chapters, headline
from resilient.tools.on_disk import look_at_disk
from resilient.tools.opened_run import add_run, open_directory
from resilient.tools.outlook import Present, advice, newest, standing

_MORE = """\
One paragraph for each attempt: when it ran and from which step to which, what
ended it and how that is known, what was saved, and what the supervisor decided
and why. Then how the run stands now, and what to do next.

It is read from the run's journal.jsonl, also one that a crash has torn; which
step is safe is read from the disk. Works while the run is being trained; changes
nothing; no key is needed.

--attempt N tells of one attempt alone, with the whole traceback.
--json prints one object for each attempt, and last one for the run."""


def add(commands: Commands) -> None:
    """The command."""
    words = "the story of a run: what happened, why, what was saved, what to do next"
    parser: CommandParser = add_command(commands, "explain", run, words, _MORE)
    parser.add_argument("--attempt", type=int, metavar="N", help="only this attempt, in full")
    add_run(parser)


def run(options: argparse.Namespace) -> int:
    """Tells the story."""
    directory = open_directory(options)
    account = read_account(directory)
    present = look(directory, options.run)
    if options.attempt is not None:
        _demand_attempt(account, options.attempt)
    if options.json:
        _say_json(options, account, present)
    elif options.attempt is not None:
        print("\n\n".join(chapters(account, present, only=options.attempt)))
    else:
        parts = [headline(account, present), *chapters(account, present), standing(account, present)]
        print("\n\n".join(parts))
    return 0


def read_account(directory: RunDirectory) -> Account:
    """The account of a run's journal, as far as it can be understood. Raises StorageError."""
    journal = JournalReader(World().files, directory.journal)
    account = build(journal.events())
    last = journal.last()
    if last is not None:
        account.hear(last)
    account.torn = journal.torn
    return account


def look(directory: RunDirectory, name: str) -> Present:
    """What is known of a run beside its journal; where that cannot be told, nothing is."""
    try:
        record = directory.read()
        status = record.status if record is not None else ""
    except (UnusableError, StorageError):
        status = ""
    pid, elsewhere = 0, ""
    try:
        with holder(directory.root) as found:
            pid = found.pid if found is not None else 0
    except ResilientError as error:
        elsewhere = str(error)
    names = World().files.names(directory.root / "logs")
    logs = frozenset(int(match[1]) for match in map(_LOG.fullmatch, names) if match)
    return Present(name, status, pid, elsewhere, logs, look_at_disk(directory))


_LOG = re.compile(r"attempt_(\d{4,12})")


def _demand_attempt(account: Account, number: int) -> None:
    there = sorted({attempt.number for attempt in account.attempts})
    if number not in there:
        tried = f"there are {there[0]} to {there[-1]}" if there else "it tells of none"
        raise UsageError(f"the journal tells of no attempt {number}; {tried}")


def _say_json(options: argparse.Namespace, account: Account, present: Present) -> None:
    for supervision in account.supervisions:
        for attempt in supervision.attempts:
            if options.attempt in (None, attempt.number) and not attempt.is_blank:
                facts = asdict(attempt)
                say(options, {"supervisor": supervision.pid, **facts, "seconds": attempt.span.seconds}, None)
    if options.attempt is None:
        say(options, _summary(account, present), None)


def _summary(account: Account, present: Present) -> dict[str, Any]:
    saved = newest(account, present)
    supervisors = [
        {
            "pid": supervision.pid,
            "began": supervision.span.began,
            "last_heard": supervision.span.ended,
            "ended": supervision.ended,
            "status": supervision.status,
            "stop_signal": supervision.stop_signal,
            "machine_restarted": supervision.rebooted,
        }
        for supervision in account.supervisions
    ]
    return {
        "run": present.name,
        "status": present.status,
        "running": present.alive,
        "pid": present.holder or None,
        "supervisors": supervisors,
        "saved": asdict(saved) if saved is not None else None,
        "reported": asdict(account.durable) if account.durable is not None else None,
        "torn_lines": account.torn,
        **({"unknown_events": dict(account.unknown)} if account.unknown else {}),
        "next": advice(account, present),
    }
