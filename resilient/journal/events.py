"""The vocabulary of the journal: everything that ``journal.jsonl`` says of a run.

A journal is a file of JSON objects, one a line: an event's word as "event", its time, and its fields
(``lines`` encodes and decodes it, by the types in ``fields``). The supervisor appends each of them; a
``WorkerEvent`` repeats what a worker said, or what became of its saves.

**Times.** ``time`` is wall time, for people: it may be set meanwhile. ``monotonic`` is for durations: two
values of one boot can be subtracted, and a smaller one behind a larger one tells of another boot. An
attempt lasts from ``AttemptStarted`` to ``AttemptJudged``; a recovery from there to ``TrainingResumed``, or
to ``FirstStepDone`` after that. ``AttemptJudged.step`` less that ``TrainingResumed.step``: the steps lost.

**Attempts and steps.** Attempts count from 1 over the whole run, under however many supervisors; an event
without ``attempt`` belongs to the newest one that has started, and the save of a dead worker's memory to the
one that has just been judged. ``step`` counts completed steps from the beginning of the run. After a rollback
it is a smaller one again: the last one counts, not the highest. With several ranks, ``rank`` and
``generation`` join ``attempt`` in ``JournalEvent``, with a default for journals without them.

**Versions.** ``SupervisorStarted`` carries ``JOURNAL_VERSION``. Raise it when an older reader would misread
an event that it knows; a new event or field is no reason. No other line needs that one: a field that is
missing is absent (see ``fields``), and an event whose word is not here is an ``UnknownEvent``. So the journal
of an earlier supervisor, which wrote no version, reads as well.

A field without a default is always written, one with a default where it has another value. When it is read it
is anybody's claim: no key vouches for a journal.
"""

from __future__ import annotations

from dataclasses import dataclass

from resilient.journal.base import EVENTS, JournalEvent
from resilient.journal.fields import Answer, Count, Flag, Number, Text, Texts


@dataclass(frozen=True)
class SupervisorStarted(JournalEvent, word="run"):
    """A supervisor begins to work on the run: its first event. Earlier ones wrote no ``version``."""

    run_id: Text
    command: Texts
    pid: Count
    version: Count = None


@dataclass(frozen=True)
class SupervisorLost(JournalEvent, word="supervisor_lost"):
    """The supervisor before this one was killed, or the machine went down; ``attempt`` was its newest."""


@dataclass(frozen=True)
class StateChanged(JournalEvent, word="transition"):
    """The supervisor's machine has gone from one state to another, on an event of its table."""

    of: Text
    on: Text
    to: Text


@dataclass(frozen=True)
class AttemptStarted(JournalEvent, word="attempt"):
    """The workers of an attempt were launched; ``pid`` is the first one's."""

    pid: Count


@dataclass(frozen=True)
class LaunchFailed(JournalEvent, word="spawn_failed"):
    """An attempt could not be launched. It counts as one, and is judged."""

    error: Text


@dataclass(frozen=True)
class HangFound(JournalEvent, word="hang"):
    """Nothing has moved in the worker for longer than ``limit_s``; ``stopped``: a signal stopped it."""

    phase: Text
    step: Count
    silent_s: Number
    limit_s: Number
    stopped: Flag


@dataclass(frozen=True)
class MovesAgain(JournalEvent, word="moves"):
    """The worker that hung continues: it was stopped, and the supervisor has woken it."""


@dataclass(frozen=True)
class MemoryExceeded(JournalEvent, word="memory"):
    """The training takes more memory than ``--memory-limit`` allows: it is asked to save and end."""

    bytes: Number
    limit_bytes: Number


@dataclass(frozen=True)
class LinkLost(JournalEvent, word="link_lost"):
    """The worker lives and can say nothing more: its script has closed the link."""


@dataclass(frozen=True)
class WorkersKilled(JournalEvent, word="killed"):
    """The workers were sent SIGKILL; ``why`` is the state of the machine that asked for it."""

    why: Text


@dataclass(frozen=True)
class ProcessesLeft(JournalEvent, word="left_behind"):
    """Processes that did not die of SIGKILL: the kernel holds them."""

    processes: Texts


@dataclass(frozen=True)
class AttemptJudged(JournalEvent, word="incident_judged"):
    """An attempt is over: why it ended, and what follows.

    ``kind`` is "finished" where the run is complete. ``status`` is the exit status if the run ends here,
    ``step`` the newest completed one, ``at_start`` tells that the attempt completed none. The judgment
    rests on the ``evidence``. ``restart_in_s`` is None where no other attempt follows; ``reason`` and
    ``action`` are the decision in words. ``saved_step`` is on disk, ``kept_step`` in memory; 0 for none.
    """

    kind: Text
    cause: Text
    status: Count
    step: Count
    phase: Text
    at_start: Flag
    evidence: Texts
    restart_in_s: Number
    reason: Text
    action: Text
    hint: Text
    saved_step: Count
    kept_step: Count


@dataclass(frozen=True)
class StateShunned(JournalEvent, word="shunned"):
    """The state of a step, as attempts up to ``attempt`` made it, is not resumed from any more."""

    step: Count
    why: Text


@dataclass(frozen=True)
class StepPoisoned(JournalEvent, word="poison"):
    """A step fails again and again; ``action`` is what follows for it, in a word."""

    step: Count
    action: Text
    why: Text


@dataclass(frozen=True)
class WaitingFor(JournalEvent, word="waiting"):
    """The next attempt, or the end, is held up: the machine is not ready, or something is not saved yet."""

    reason: Text


@dataclass(frozen=True)
class StopRequested(JournalEvent, word="stop_requested"):
    """A signal asks for the end of the run; again where somebody insists."""

    signal: Text


@dataclass(frozen=True)
class WorkRequested(JournalEvent, word="request"):
    """A person asks something of the training: ``what`` is a checkpoint, or the stacks of its threads."""

    what: Text


@dataclass(frozen=True)
class RequestRefused(JournalEvent, word="refused"):
    """There is no training that could be asked for it just now."""

    what: Text
    text: Text


@dataclass(frozen=True)
class MishapContained(JournalEvent, word="mishap"):
    """A fault of the supervisor's own, which the run survived; it has happened ``times`` times by now."""

    what: Text
    times: Count
    traceback: Text


@dataclass(frozen=True)
class SupervisorBroken(JournalEvent, word="broken"):
    """A fault of the supervisor's own that it cannot go on with: it has the memory saved, and ends."""

    error: Text
    traceback: Text


@dataclass(frozen=True)
class SupervisorEnded(JournalEvent, word="ended"):
    """The supervisor's last event, with its exit status.

    ``lost`` names the state that is not on disk ("" for none). A supervisor that ended for a fault of its own
    gives the newest ``step`` on disk.
    """

    status: Count
    step: Count = None
    lost: Text = ""


@dataclass(frozen=True)
class WorkerEvent(JournalEvent):
    """The worker of ``attempt`` reported it. Without it, the supervisor wrote it about a dead one."""


@dataclass(frozen=True)
class StandbyWaits(WorkerEvent, word="standby"):
    """A process that has imported the framework waits to become the next worker."""

    memory_bytes: Count


EVENTS["standing_by"] = StandbyWaits  # written so by earlier versions where it had just become a worker


@dataclass(frozen=True)
class WorkerReady(WorkerEvent, word="hello"):
    """The worker has its configuration and is about to run the script."""

    pid: Count
    protocol: Count = None


@dataclass(frozen=True)
class PlaceTaken(WorkerEvent, word="place"):
    """A training call saves in this directory from now on."""

    directory: Text


@dataclass(frozen=True)
class PlaceKept(WorkerEvent, word="keeps_in"):
    """A training call has resumed from this directory, or begun there: it is the run's from now on."""

    directory: Text


@dataclass(frozen=True)
class TrainingBegun(WorkerEvent, word="fresh"):
    """There was nothing to resume from: a training call begins at step 0."""


@dataclass(frozen=True)
class StateTried(WorkerEvent, word="resuming"):
    """The worker is about to read the state of this step, from ``file`` or from "memory"."""

    step: Count
    file: Text


@dataclass(frozen=True)
class TrainingResumed(WorkerEvent, word="resumed"):
    """The worker has read the state, and the training continues after its step."""

    step: Count
    epoch: Count
    file: Text
    message: Text = ""


@dataclass(frozen=True)
class FirstStepDone(WorkerEvent, word="progress"):
    """The worker has completed its first step since it started or resumed. It reports no later step."""

    step: Count


@dataclass(frozen=True)
class BatchLeftOut(WorkerEvent, word="skipped"):
    """The batch of this step is left out (``--on-poison skip-batch``)."""

    step: Count


@dataclass(frozen=True)
class StepSaved(WorkerEvent, word="saved"):
    """A checkpoint is committed, and durable; ``seconds`` is how long that took.

    ``reason`` is "schedule", "end", "request", a signal's name, "supervisor" (one that is broken), or how the
    worker died.
    """

    step: Count
    epoch: Count
    file: Text
    reason: Text
    seconds: Number = None
    directory: Text = ""
    generation: Count = None


@dataclass(frozen=True)
class StepNotSaved(WorkerEvent, word="save_failed"):
    """A step could not be saved, or not kept in memory; ``left_behind`` where its worker is dead."""

    step: Count
    error: Text
    reason: Text = ""
    left_behind: Flag = False


@dataclass(frozen=True)
class RemarkMade(WorkerEvent, word="remark"):
    """A line for people."""

    text: Text


@dataclass(frozen=True)
class WarningGiven(WorkerEvent, word="warning"):
    """A warning for people, of the worker or of the supervisor itself."""

    text: Text


@dataclass(frozen=True)
class ExceptionReported(WorkerEvent, word="incident"):
    """An exception leaves the training, or the script, before the worker ends of it.

    ``kind`` is "exception", "interrupt" or "exit"; ``loss_finite`` is None where no loss is known.
    """

    kind: Text
    exception: Text
    message: Text
    traceback: Text
    step: Count
    phase: Text
    loss_finite: Answer = None


@dataclass(frozen=True)
class ProgramReplaced(WorkerEvent, word="replaced"):
    """The script replaces its own process by this program: nothing is saved from here on; "" if it failed."""

    program: Text


@dataclass(frozen=True)
class DatasetProcessDied(WorkerEvent, word="data_worker"):
    """A process of the dataset has died, and the training waits for it in vain; ``how``, if known."""

    how: Text


@dataclass(frozen=True)
class TrainingRefused(WorkerEvent):
    """The worker ends, for a reason that another attempt would find again; ``hint`` says what to do."""

    error: Text
    hint: Text = ""


@dataclass(frozen=True)
class NothingUsable(TrainingRefused, word="unusable"):
    """Checkpoints exist, and none of them can be used."""


@dataclass(frozen=True)
class NoOlderState(TrainingRefused, word="nothing_older"):
    """Every state that could be used was shunned."""


@dataclass(frozen=True)
class ScriptChanged(TrainingRefused, word="mismatch"):
    """The script does not fit its checkpoints any more."""


@dataclass(frozen=True)
class UsageRejected(TrainingRefused, word="usage"):
    """The script's arguments, or something in the way, cannot be used."""


@dataclass(frozen=True)
class CheckpointsBusy(TrainingRefused, word="busy"):
    """Another process holds the lock of the checkpoints; it may be free later."""


@dataclass(frozen=True)
class ScriptFinished(WorkerEvent, word="finished"):
    """The script has come to its end; ``complete``: with status 0, and no call left in its middle."""

    complete: Flag
    status: Count = None
