"""Why an attempt ended: a pure judgment over what was seen of it.

Values in, one ``Incident`` out. What the worker said before it ended counts more than how it ended: an exit
status of 1 says little, the exception that the worker told about says all. What we did ourselves counts
before what it looks like: a worker that we have killed because it hung was not "killed by SIGKILL".
"""

from __future__ import annotations

import re
import signal
from dataclasses import dataclass, field

from resilient.errors import EXIT_UNUSABLE, EXIT_USAGE
from resilient.sizes import size
from resilient.wire.messages import (
    GONE,
    CheckpointsUnusable,
    DataProcessDied,
    ExceptionLeft,
    Hello,
    NothingOlder,
    PlaceBusy,
    PlaceOpened,
    ProcessReplaced,
    RefusalNews,
    ScriptEnded,
    ScriptMismatch,
    UsageRefused,
)
from supervisor.group.last_words import LastWords

FINISHED = "finished"
LEFT_EARLY = "left early"
EXCEPTION = "exception"
NUMERICAL = "numerical"
EXITED = "exited"
KILLED = "killed"
OUT_OF_MEMORY = "out of memory"
TOO_LARGE = "memory limit"
FAULT = "fault"
DATA_WORKER = "dataset worker died"
BUSY = "directory in use"
HANG = "hang"
STOPPED = "stopped"
SPAWN_FAILED = "spawn failed"
UNUSABLE = "checkpoints unusable"
NOTHING_OLDER = "nothing older to go back to"
MISMATCH = "checkpoints do not fit"
USAGE = "usage"

FINAL = frozenset({UNUSABLE, NOTHING_OLDER, MISMATCH, USAGE})
"""Trying again changes nothing about these."""

OUTSIDE = frozenset({KILLED, DATA_WORKER, BUSY})
"""Done by others: neither by the script, nor by the state it resumed from."""

PLACES = {
    "starting": "at its start",
    "importing": "importing MindSpore",
    "script": "in the script's own code",
    "data": "waiting for data",
    "compiling": "compiling, or in the step after that",
    "step": "in a step",
    "callbacks": "in a callback",
    "saving": "saving",
    "evaluating": "in an evaluation",
    "over": "at its end",
}
"""Where a worker is, by the phase of its heartbeat, in words."""

_BESIDE_STEPS = frozenset({"beginning", "opening", "closing", "ending"})
"""Places in a training call where the script's own code runs, and no step (``worker.boundary.phases``)."""

_AFTER_A_STEP = frozenset({"callbacks", "closing", "ending", "finished"})
"""Places that lie behind the newest complete step, and not before the next."""

_IN_TRAINING = frozenset({"data", "step", "callbacks", "between", "busy", *_BESIDE_STEPS})
"""Places that lie in a training call, whatever the script does."""

_FAULTS = frozenset(
    {signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGFPE, signal.SIGILL, signal.SIGSYS}
)


@dataclass(frozen=True)
class ReportedHang:
    """A hang as it was noticed: in which phase, and for how long nothing was heard."""

    phase: str
    silent_s: float
    limit_s: float


@dataclass(frozen=True)
class Evidence:
    """Everything that was seen of an attempt.

    ``returncode`` is subprocess's: the exit status, or minus the signal's number; None when the worker
    could not be started, and ``error`` then says why. ``told`` is what the worker has
    said. ``sent`` are the signals that we sent it. ``progressed`` tells whether it completed a step;
    ``step`` is the newest completed one, ``phase`` what it was doing last. ``silence`` is set where it hung,
    ``too_large_bytes`` where it took more memory than it may. ``oom_kills`` counts what the kernel has
    killed for memory meanwhile, in our group, ``kernel`` is what its log says about the worker's process,
    ``peak_bytes`` the most memory it was seen with. ``log_end`` are the last lines of its output.
    ``unfinished`` tells whether attempts before it have left a training call in its middle, ``mute`` whether
    it is another program than ours, which says nothing.
    """

    returncode: int | None
    told: LastWords = field(default_factory=LastWords)
    sent: frozenset[int] = frozenset()
    progressed: bool = False
    error: str = ""
    step: int = 0
    phase: str = ""
    silence: ReportedHang | None = None
    too_large_bytes: int = 0
    oom_kills: int = 0
    kernel: str = ""
    peak_bytes: int = 0
    log_end: str = ""
    unfinished: bool = False
    mute: bool = True

    @property
    def leaves_unfinished(self) -> bool:
        """The same of the attempts up to this one."""
        if PlaceOpened not in self.told:
            return self.unfinished
        return self.phase in _IN_TRAINING and not _is_complete(self.told)


@dataclass(frozen=True)
class Incident:
    """Why an attempt ended.

    ``status`` is the exit status that the run ends with if it ends here. ``cause`` is for people, ``why``
    what the judgment rests on, ``hint`` what to try, ``traceback`` the end of the exception's. ``step`` is
    the newest completed step; ``at_start`` tells that the attempt completed none. Two incidents with the
    same ``fingerprint`` failed in the same way.
    """

    kind: str
    cause: str
    status: int
    at_start: bool = False
    hint: str = ""
    step: int = 0
    phase: str = ""
    why: tuple[str, ...] = ()
    traceback: str = ""

    @property
    def culprit(self) -> int:
        """The step that failed: the one after the newest complete one, or that itself behind its update."""
        return self.step if self.phase in _AFTER_A_STEP and self.step else self.step + 1

    @property
    def beside_steps(self) -> bool:
        """Whether it failed where no step was under way: no batch, and no step, is to blame."""
        return self.phase in ("script", "finished", *_BESIDE_STEPS)

    @property
    def in_script(self) -> bool:
        """Whether the script's own code has failed: outside of its training, or where no step has begun."""
        return self.kind in (EXCEPTION, EXITED) and self.beside_steps

    @property
    def fingerprint(self) -> tuple[str, str, int]:
        """Numbers in the words (addresses, pids, values of a loss) may differ from time to time."""
        return self.kind, re.sub(r"0x[0-9a-fA-F]+|\d+(\.\d+)?", "#", self.cause), self.status


def classify(evidence: Evidence) -> Incident:
    """The incident that explains this evidence."""
    told, code = evidence.told, evidence.returncode
    if code is None:
        cause = f"the worker could not be started: {evidence.error}"
        return Incident(SPAWN_FAILED, cause, 126, True, "free memory or processes, or see `ulimit -a`")
    for kind, message, status in _REFUSALS:
        if (refusal := told.of(message)) is not None:
            return Incident(kind, refusal.error, status, True, refusal.hint)
    busy, left = told.of(PlaceBusy), told.of(ExceptionLeft)
    if busy and (PlaceOpened not in told or (left and left.exception == "BusyError")):
        # The script may have caught it, and whatever it did then without a place, it was no training.
        why = "another process has the lock of the checkpoints"
        return _make(evidence, BUSY, busy.error, busy.hint, why)
    if code == 0 and _is_complete(told):
        # Whatever we were about to do to it.
        return _clean_exit(evidence)
    if DataProcessDied in told and code < 0 and (evidence.silence or -code not in evidence.sent):
        # It has waited for that process until it was killed: by itself, or as one that hangs.
        how = f"it was ended by {_signal_name(-code)}"
        cause = _dead_data_worker(evidence)
        return _make(evidence, DATA_WORKER, cause, _HINTS[DATA_WORKER], how, *_memory_words(evidence))
    if evidence.silence is not None:
        return _make(evidence, HANG, _hang_words(evidence.silence), _HINTS[HANG], "no sign of life came")
    if evidence.too_large_bytes:
        cause = f"it took {size(evidence.too_large_bytes)} of memory, more than --memory-limit allows"
        return _make(evidence, TOO_LARGE, cause, _HINTS[TOO_LARGE], "its memory was measured")
    if code == 0:
        return _clean_exit(evidence)
    return _signalled(evidence, -code) if code < 0 else _failed(evidence, code)


_REFUSALS: tuple[tuple[str, type[RefusalNews], int], ...] = (
    (UNUSABLE, CheckpointsUnusable, EXIT_UNUSABLE),
    (NOTHING_OLDER, NothingOlder, 1),
    (MISMATCH, ScriptMismatch, EXIT_UNUSABLE),
    (USAGE, UsageRefused, EXIT_USAGE),
)

_HINTS = {
    EXCEPTION: "correct what raised it; the whole traceback is in the log",
    EXITED: "see in the log what it said before it left",
    KILLED: "find out who sent the signal: a person, a scheduler, or a limit of the machine",
    HANG: "the stacks of its threads are in the log; if it was only slow, raise --hang-timeout",
    TOO_LARGE: "look for what grows, or raise --memory-limit",
    OUT_OF_MEMORY: "use a smaller batch or fewer dataset workers, or give it more memory",
    FAULT: "the stacks of its threads are in the log; a library is broken, or two do not fit together",
    DATA_WORKER: "look at the dataset's own functions, and at memory: the kernel may have killed it",
    NUMERICAL: "lower the learning rate, clip the gradients, or look at the data of this step",
    MISMATCH: "restore the script as it was, or start anew with --fresh --archive",
    LEFT_EARLY: "look for os._exit, sys.exit or an exception that is swallowed around the training; a script "
    "that goes on as a daemon must stay in the foreground",
}


def _make(evidence: Evidence, kind: str, cause: str, hint: str, *why: str) -> Incident:
    code = evidence.returncode
    assert code is not None
    words, left = _bodily(evidence), evidence.told.of(ExceptionLeft)
    return Incident(
        kind,
        cause,
        code if code > 0 else 128 - code if code < 0 else 1,
        not evidence.progressed,
        hint,
        evidence.step,
        evidence.phase,
        (*why, *words),
        left.traceback if left is not None else "",
    )


def _bodily(evidence: Evidence) -> list[str]:
    """Everything that was seen of the process, whatever it died of."""
    seen = []
    if evidence.kernel:
        seen.append(f"the kernel's log: {evidence.kernel}")
    if program := _replacement(evidence.told):
        seen.append(f"the script had replaced its own process by {program}, of which nothing is saved")
    if evidence.peak_bytes:
        seen.append(f"the most memory it was seen with: {size(evidence.peak_bytes)}")
    return seen


def _replacement(told: LastWords) -> str:
    """The program that the script has replaced its own process by; "" for none."""
    replaced = told.of(ProcessReplaced)
    return replaced.program if replaced is not None else ""


def _is_complete(told: LastWords) -> bool:
    ended = told.of(ScriptEnded)
    return ended is not None and ended.complete


def _clean_exit(evidence: Evidence) -> Incident:
    told = evidence.told
    # A command that does not speak to us (--no-python) is over when it says so by its status. So is one that
    # a script has become.
    if (Hello not in told and evidence.mute) or _is_complete(told) or _replacement(told):
        if evidence.unfinished and PlaceOpened not in told:
            cause = "the script has ended without the training that an earlier attempt has left in its middle"
            return Incident(MISMATCH, cause, EXIT_UNUSABLE, True, _HINTS[MISMATCH])
        return Incident(FINISHED, "finished", 0, step=evidence.step)
    cause = "the worker left with status 0 before the training was complete"
    return _make(evidence, LEFT_EARLY, cause, _HINTS[LEFT_EARLY], "exit status 0, without a word of its end")


def _signalled(evidence: Evidence, number: int) -> Incident:
    name = _signal_name(number)
    how = f"it was ended by {name}"
    if number == signal.SIGKILL and _died_for_memory(evidence):
        cause = "the kernel killed it because memory ran out"
        return _make(evidence, OUT_OF_MEMORY, cause, _HINTS[OUT_OF_MEMORY], how, *_memory_words(evidence))
    if number in evidence.sent:
        return _make(evidence, STOPPED, f"stopped by {name}", "", f"{how}, which we had sent")
    if number in _FAULTS:
        return _make(evidence, FAULT, f"it crashed: {name}", _HINTS[FAULT], how)
    if number == signal.SIGTERM and (cause := _dead_data_worker(evidence)):
        return _make(evidence, DATA_WORKER, cause, _HINTS[DATA_WORKER], how, *_memory_words(evidence))
    return _make(evidence, KILLED, f"killed by {name}", _HINTS[KILLED], f"{how}, which we had not sent")


def _failed(evidence: Evidence, code: int) -> Incident:
    left = evidence.told.of(ExceptionLeft)
    if left is None or left.kind not in (EXCEPTION, "interrupt"):
        return _make(
            evidence, EXITED, f"exited with status {code}", _HINTS[EXITED], "no exception left the script"
        )
    what = ": ".join([left.exception, *left.message.strip().splitlines()[:1]])
    if (cause := _dead_data_worker(evidence)) and left.exception == "RuntimeError":
        return _make(evidence, DATA_WORKER, cause, _HINTS[DATA_WORKER], f"it raised {what}")
    if left.loss_finite is False:
        why = "the last loss was not finite"
        return _make(evidence, NUMERICAL, what, _HINTS[NUMERICAL], why)
    if left.exception in ("FloatingPointError", "OverflowError"):
        return _make(evidence, NUMERICAL, what, _HINTS[NUMERICAL], "the exception says so")
    return _make(evidence, EXCEPTION, what, _HINTS[EXCEPTION], "the exception left the script")


def _died_for_memory(evidence: Evidence) -> bool:
    return bool(evidence.oom_kills) or "out of memory" in evidence.kernel.lower()


def _memory_words(evidence: Evidence) -> list[str]:
    times = evidence.oom_kills
    return [f"the kernel's count of such kills rose by {times}"] if times else []


_DATA_WORKER_DIED = re.compile(
    r"(?:Dataset worker process|DataLoader worker)[^\n]{0,80}?"
    r"(?:was killed by signal: ([A-Za-z ]+)|exited unexpectedly with exit code (\d+))"
)
# The log has the signal's description.
_DESCRIBED = {signal.strsignal(number): number.name for number in signal.Signals}


def _dead_data_worker(evidence: Evidence) -> str:
    """The words of the worker, or of MindSpore's log, on a process of the dataset's that has died."""
    died = evidence.told.of(DataProcessDied)
    how = died.how if died is not None else ""
    if how in ("", GONE) and (found := _DATA_WORKER_DIED.search(evidence.log_end)) is not None:
        how = f"status {found[2]}" if found[2] else _DESCRIBED.get(found[1], found[1])
    if not how:
        return ""
    known = "" if how == GONE else f" ({how})"
    return f"a process of the dataset's died{known}, and the training with it"


def _hang_words(silence: ReportedHang) -> str:
    return (
        f"it hung {PLACES.get(silence.phase, '')}: nothing moved for {silence.silent_s:.0f} s "
        f"(the limit is {silence.limit_s:.0f} s)"
    )


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def death_reason(incident: Incident) -> str:
    """One word for why a checkpoint was made of what a dead worker has left in memory."""
    if incident.status == 128 + signal.SIGABRT and incident.kind == FAULT:
        return "abort"
    return _DEATHS.get(incident.kind, "exit")


_DEATHS = {
    OUT_OF_MEMORY: "oom",
    TOO_LARGE: "memory",
    HANG: "hang",
    FAULT: "segfault",
    KILLED: "killed",
    DATA_WORKER: "killed",
    STOPPED: "stop",
    EXCEPTION: "exception",
    NUMERICAL: "numerical",
}
