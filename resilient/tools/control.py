"""resilient stop and save: a word to the supervisor that works on a run.

The word is a signal, to the very process that holds the run's lock (``lock_holder``). What came of it is read
in the run's journal, from where it ended before the signal was sent.
"""

from __future__ import annotations

import argparse
import math
import signal
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from resilient.config import SAVE_SIGNAL
from resilient.errors import UnusableError
from resilient.host.world import World
from resilient.journal.base import JournalEvent
from resilient.journal.events import RemarkMade, RequestRefused, StepNotSaved, StepSaved
from resilient.run.lock_holder import LockHolder, holder
from resilient.run.rundir import COMPLETE, RunDirectory
from resilient.tools.command_line import EXIT_BAD, Commands, add_command, note, say
from resilient.tools.explain import read_account
from resilient.tools.journal_reader import JournalReader
from resilient.tools.opened_run import add_run, open_directory
from resilient.tools.supervisions import REQUEST, RecordedSave

_LOOK_S = 0.1
_PATIENCE_S = 10.0
_FOREVER_S = 1e9
_HOUR_S = 3600.0
_STOP_MORE = """\
The supervisor is asked to stop (SIGTERM), as a scheduler would: it has the
training finish its step, saves, and ends; the run can be gone on with
afterwards by the same command. A training without a supervisor gets the same
signal: its CheckpointMonitor saves after the step, then it ends.

Waits until it has ended, and tells what is safe on disk.

Exit status: 0 it has stopped (with --no-wait: it was told to), 1 nobody works
on the run, or it has not ended in time."""

_SAVE_MORE = """\
The training is asked to save a checkpoint after the step that it is in, and
goes on. Waits until that checkpoint is safe on disk, and tells its step and
file. The keep policy treats it as any other; `resilient pin` keeps it.

Only a run under resilient-run can be asked. Exit status: 0 saved, or there was
nothing new to save; 1 nobody works on the run, or it was not saved."""


def add(commands: Commands) -> None:
    """The two commands."""
    words = "ask a run to save and end; the same command goes on with it later"
    parser = add_command(commands, "stop", _stop, words, _STOP_MORE)
    parser.add_argument("--no-wait", action="store_true", help="return as soon as it has been told")
    parser.add_argument(
        "--timeout", type=_seconds, metavar="S", help="wait at most S seconds (default: for ever)"
    )
    add_run(parser)
    words = "ask a run for a checkpoint now; it goes on training"
    parser = add_command(commands, "save", _save, words, _SAVE_MORE)
    parser.add_argument(
        "--timeout", type=_seconds, default=600.0, metavar="S", help="wait at most S seconds (default: 600)"
    )
    add_run(parser)


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds")
    # Longer than any of us lives is for ever, and the kernel takes no such number.
    return min(value, _FOREVER_S)


# stop


def _stop(options: argparse.Namespace) -> int:
    directory = open_directory(options)
    with holder(directory.root) as found:
        if found is None:
            return _nobody(options)
        supervised = _is_supervisor(directory, found)
        if found.signal(signal.SIGTERM):
            who = "the supervisor" if supervised else "the training, which has no supervisor"
            note(
                f"{who} (process {found.pid}) is told to stop" + ("" if options.no_wait else "; waiting ...")
            )
        if options.no_wait:
            say(options, {"run": options.run, "pid": found.pid, "stopped": False}, None)
            return 0
        if not _wait(found, options.timeout):
            say(
                options,
                {"run": options.run, "pid": found.pid, "stopped": False},
                f"process {found.pid} has been told to stop, and has not ended within {options.timeout:g} s; "
                "it ends once it has saved",
            )
            return EXIT_BAD
    _say_stopped(options, directory, found.pid, supervised)
    return 0


def _wait(found: LockHolder, timeout_s: float | None) -> bool:
    left_s = math.inf if timeout_s is None else timeout_s
    # The kernel takes at most a few weeks at once.
    while left_s > _HOUR_S:
        if found.ended(_HOUR_S):
            return True
        left_s -= _HOUR_S
    return found.ended(left_s)


def _say_stopped(options: argparse.Namespace, directory: RunDirectory, pid: int, supervised: bool) -> None:
    # A training without a supervisor keeps no journal: what stands there is of an earlier time.
    durable = read_account(directory).durable if supervised else None
    complete = False
    with suppress(UnusableError):
        record = directory.read()
        complete = record is not None and record.status == COMPLETE
    facts = {"run": options.run, "pid": pid, "stopped": True, "complete": complete, **_facts(durable)}
    if complete:
        say(options, facts, f"it had come to its end: the run is complete; {_safe(durable)}")
    elif supervised:
        say(options, facts, f"stopped; {_safe(durable)}; the same command goes on")
    else:
        say(
            options,
            facts,
            f"stopped; `resilient ls {options.run}` shows what is saved; resilient-run goes on",
        )


def _facts(save: RecordedSave | None) -> dict[str, object]:
    return {"saved_step": save.step if save else None, "saved_file": save.file if save else None}


def _safe(save: RecordedSave | None) -> str:
    return f"step {save.step} is safe on disk as {save.file}" if save else "nothing of it was saved"


# save


@dataclass(frozen=True)
class _RequestOutcome:
    """What came of the request: saved, or not, and why; ``new`` is false where there was nothing to save."""

    ok: bool
    line: str
    new: bool = False
    step: int | None = None
    file: str = ""


def _save(options: argparse.Namespace) -> int:
    directory = open_directory(options)
    with holder(directory.root) as found:
        if found is None:
            return _nobody(options)
        outcome = _refusal(directory, found) or _request(directory, found, options.timeout)
    facts = {"run": options.run, "saved": outcome.new, "step": outcome.step, "file": outcome.file}
    say(options, {**facts, "error": "" if outcome.ok else outcome.line}, outcome.line)
    return 0 if outcome.ok else EXIT_BAD


def _refusal(directory: RunDirectory, found: LockHolder) -> _RequestOutcome | None:
    """Why a process is not asked. A signal that it has no handler for would kill it."""
    if not _is_supervisor(directory, found):
        return _RequestOutcome(
            False,
            f"process {found.pid} trains without a supervisor, and cannot be asked for a checkpoint; "
            "it saves when it is stopped (resilient stop), or when it is run under resilient-run",
        )
    if not found.catches(SAVE_SIGNAL):
        return _RequestOutcome(
            False,
            f"the supervisor (process {found.pid}) does not take requests for a checkpoint now: it is just "
            "starting or ending, or of an older version",
        )
    return None


def _request(directory: RunDirectory, found: LockHolder, timeout_s: float) -> _RequestOutcome:
    journal = JournalReader(World().files, directory.journal)
    journal.skip()
    if not found.signal(SAVE_SIGNAL):
        return _RequestOutcome(False, "the supervisor has just ended; nothing was saved on request")
    for event in _news(journal, found, timeout_s):
        outcome = _outcome(event)
        if outcome is not None:
            return outcome
    if found.ended(0):
        return _RequestOutcome(
            False, "the run has ended before it was saved on request; `resilient explain` tells why"
        )
    return _RequestOutcome(
        False,
        f"not saved within {timeout_s:g} s: a step, an evaluation or a compile takes longer, or none "
        "is running just now; the request stands, `resilient explain` tells more",
    )


def _outcome(event: JournalEvent) -> _RequestOutcome | None:
    """What an event says of our request; None for nothing."""
    match event:
        case StepSaved(step=step, file=file, reason=reason) if reason == REQUEST:
            return _RequestOutcome(True, f"saved step {step} as {file}", True, step, file)
        case StepNotSaved(step=step, error=error, reason=reason) if reason in ("", REQUEST):
            return _RequestOutcome(False, f"saving step {step} FAILED: {error}", step=step)
        case RemarkMade(text=text):
            return _RequestOutcome(True, text)
        case RequestRefused(text=text):
            return _RequestOutcome(False, text)
    return None


def _news(journal: JournalReader, found: LockHolder, timeout_s: float) -> Iterator[JournalEvent]:
    """What is added to the journal, until the process has ended or the time is over."""
    clock = World().clock
    began_s = clock.monotonic()
    told = False
    while True:
        # First the end, then the journal: what was written before the end is still read.
        over = found.ended(_LOOK_S)
        yield from journal.events()
        waited_s = clock.monotonic() - began_s
        if over or waited_s > timeout_s:
            return
        if waited_s > _PATIENCE_S and not told:
            told = True
            note("waiting for the step to end ...")


# Both


def _is_supervisor(directory: RunDirectory, found: LockHolder) -> bool:
    """Whether the lock's holder is a supervisor: one begins its work with a line in the journal."""
    supervisions = read_account(directory).supervisions
    return bool(supervisions) and supervisions[-1].pid == found.pid


def _nobody(options: argparse.Namespace) -> int:
    facts = {"run": options.run, "pid": None, "error": "nobody works on the run"}
    say(
        options,
        facts,
        f"nobody works on the run in {options.run}; `resilient status {options.run}` tells more",
    )
    return EXIT_BAD
