"""The vocabulary of the link: everything that worker, saver and supervisor say to each other.

    worker      ─► supervisor   ``WorkerNews``      what becomes of the training; the supervisor journals it
    worker      ─► supervisor   ``SavingRequest``   what it wants saved; never journalled: a key may be in it
    supervisor  ─► worker       ``WorkerOrder``     what it is to do, and answers to its requests
    supervisor  ─► saver        ``SaverOrder``      a training without a supervisor sends these as well
    saver       ─► supervisor   ``SaverAnswer``     one to each order, and in the same order

A message is one JSON object: its word as "type", and its fields. The link alone encodes and decodes
(``packing``, by the limits of ``bounds``); everybody else has these values. The word of a ``WorkerNews`` is
the journal's name for it, too.

Both sides are of one installation. Where it was replaced while a run went on they may not be: ``Configure``
and ``Hello`` carry the number of this protocol, and a side that finds another number than its own refuses
(OtherVersionError). ``PROTOCOL`` goes up with each change that a side of before would misunderstand. A
message that one side does not know is no error: it is an ``UnknownMessage``, which the supervisor reports.

With several ranks, rank and generation do not become fields of these messages. They are the sender's: they
belong into the object beside "type", which the packing writes, and holds against what the link was made for.
``Hello`` and ``Configure`` alone name them as facts (``WorkerConfig`` has the rank already).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from resilient.config import KeepPolicy, Sealing, WorkerConfig
from resilient.errors import NonsenseError
from resilient.wire.bounds import Count, Label, PathText, Remarks, Seconds, Text
from resilient.wire.mirror import Slot

PROTOCOL = 1
GONE = "gone"
"""How a process of a dataset died is not known: MindSpore's handler has reaped it already."""
WORDS: dict[str, type[Message]] = {}
"""Every message that can be said, by its word."""


class Message:
    """Anything that is said over a link; a message with a ``word`` of its own can be."""

    word: ClassVar[str] = ""

    def __init_subclass__(cls, word: str = "") -> None:
        assert word not in WORDS, f"two messages are called {word}"
        cls.word = word
        if word:
            WORDS[word] = cls


@dataclass(frozen=True)
class UnknownMessage(Message):
    """A message of a later version, or of an earlier one. Nobody reads more of it than its word."""

    name: str


Said = Message | NonsenseError
"""What comes over a link: a message, or why it made no sense."""


# Worker to supervisor: news


class WorkerNews(Message):
    """What becomes of the training. A worker that has nobody to tell goes on all the same."""


@dataclass(frozen=True)
class StepNews(WorkerNews):
    """News of a step: the newest one that is complete by then."""

    step: Count


@dataclass(frozen=True)
class Hello(WorkerNews, word="hello"):
    """The worker has its configuration, and is about to run the script. Its first message."""

    pid: Count
    protocol: Count = PROTOCOL


@dataclass(frozen=True)
class StandbyReady(WorkerNews, word="standing_by"):
    """A standby has imported the framework, and waits for its configuration."""

    memory_bytes: Count


@dataclass(frozen=True)
class PlaceOpened(WorkerNews, word="place"):
    """A training call saves in this directory; sent when it is another one than before."""

    directory: PathText


@dataclass(frozen=True)
class KeepsIn(WorkerNews, word="keeps_in"):
    """A training call has resumed from this directory, or begun there: it is the run's from now on."""

    directory: PathText


@dataclass(frozen=True)
class BeganAnew(WorkerNews, word="fresh"):
    """There was nothing to resume from: a training call begins at step 0."""


@dataclass(frozen=True)
class Resuming(StepNews, word="resuming"):
    """The worker is about to read this state, and waits for ``ResumeRecorded``.

    Should the state be the end of the worker, or of the machine, the supervisor knows which one it was.
    """

    file: PathText
    """The checkpoint's name, or "memory"."""


@dataclass(frozen=True)
class Resumed(StepNews, word="resumed"):
    """The state was read, and the training goes on behind its step; ``message`` is the line for people."""

    epoch: Count
    file: PathText
    message: Text


@dataclass(frozen=True)
class FirstStep(StepNews, word="progress"):
    """The first step since the start, or since a state was read, is complete; the heartbeat has the rest."""


@dataclass(frozen=True)
class BatchSkipped(StepNews, word="skipped"):
    """The batch of this step is left out, as the supervisor has decided (``--on-poison skip-batch``)."""


@dataclass(frozen=True)
class CheckpointSaved(StepNews, word="saved"):
    """A checkpoint is committed: its worker says so, or the supervisor for it where the saver commits."""

    epoch: Count
    file: PathText
    reason: Label
    seconds: Seconds
    directory: PathText
    generation: Count


@dataclass(frozen=True)
class SaveFailed(StepNews, word="save_failed"):
    """A step could not be saved, or not be kept in memory; said by the same ones. The training goes on.

    ``left_behind`` tells that it was a dead worker's, and only the supervisor has it now.
    """

    error: Text
    reason: Label = ""
    left_behind: bool = False


@dataclass(frozen=True)
class Remarked(WorkerNews, word="remark"):
    """A line for people."""

    text: Text


@dataclass(frozen=True)
class Warned(WorkerNews, word="warning"):
    """A warning for people."""

    text: Text


@dataclass(frozen=True)
class ExceptionLeft(StepNews, word="incident"):
    """An exception leaves the training, or the script; sent once for each, before the worker ends of it.

    ``kind`` is "exception", "interrupt" or "exit", ``phase`` is where in a step it was. ``loss_finite`` is
    None where no loss is known.
    """

    kind: Label
    exception: Label
    message: Text
    traceback: Text
    phase: Label
    loss_finite: bool | None = None


@dataclass(frozen=True)
class DataProcessDied(WorkerNews, word="data_worker"):
    """A process of the dataset's has died, and the training waits for it in vain; ``how``, if known."""

    how: Label


@dataclass(frozen=True)
class ProcessReplaced(WorkerNews, word="replaced"):
    """The script is about to replace its process by this program, which is mute; "" takes that back."""

    program: Text


@dataclass(frozen=True)
class RefusalNews(WorkerNews):
    """The worker ends, for a reason that another attempt would find again; ``hint`` says what to do."""

    error: Text
    hint: Text = ""


class CheckpointsUnusable(RefusalNews, word="unusable"):
    """Checkpoints exist, and none of them can be used."""


class NothingOlder(RefusalNews, word="nothing_older"):
    """Every state that could be used was set aside."""


class ScriptMismatch(RefusalNews, word="mismatch"):
    """The script does not fit its checkpoints any more."""


class UsageRefused(RefusalNews, word="usage"):
    """The script's arguments, or something in the way, cannot be used; or another version is installed."""


class PlaceBusy(RefusalNews, word="busy"):
    """Another process holds the lock of the checkpoints. The script may catch that; it may be free later."""


@dataclass(frozen=True)
class ScriptEnded(WorkerNews, word="finished"):
    """The script has come to its end with this exit status; its last message.

    ``complete`` tells that the status is 0 and no training call was left in its middle.
    """

    complete: bool
    status: Count


# Worker to supervisor: requests


class SavingRequest(Message):
    """Something about saving. The worker waits for the answer to two of them; it sends one at a time."""


@dataclass(frozen=True)
class OpenStore(SavingRequest, word="store"):
    """From now on the saver is to commit the rank's checkpoints, here and so. Answered by ``StoreOpened``."""

    directory: Path
    keep: KeepPolicy
    sealing: Sealing
    """With the script's own key, if it has one."""


@dataclass(frozen=True)
class TakeMirror(SavingRequest, word="mirror"):
    """From now on the memory beside this message is the rank's mirror."""


@dataclass(frozen=True)
class DropMirror(SavingRequest, word="mirror_off"):
    """From now on the worker commits by itself: the saver lets go of the lock."""


@dataclass(frozen=True)
class SaveSlot(SavingRequest, word="save"):
    """Commit a slot of the rank's mirror, or of the memory beside this message. Answered by ``SaveDone``."""

    slot: Slot
    epoch: Count
    reason: Label
    failure: bool


# Supervisor to worker


class WorkerOrder(Message):
    """What a worker is to do, or the answer to its request."""


@dataclass(frozen=True)
class StandBy(WorkerOrder, word="stand_by"):
    """Sent at once to a standby: import the framework, say ``StandbyReady``, and wait for ``Configure``."""


@dataclass(frozen=True)
class StoreOpened(WorkerOrder, word="opened"):
    """The saver has the store, or the error; "" for none."""

    error: Text


@dataclass(frozen=True)
class SaveDone(WorkerOrder, word="done"):
    """A save has succeeded, or the error; "" for none."""

    error: Text


@dataclass(frozen=True)
class ResumeRecorded(WorkerOrder, word="recorded"):
    """It is on disk which state the worker is about to read."""


# To the saver


class SaverOrder(Message):
    """What the saver is to do."""


@dataclass(frozen=True)
class Configure(WorkerOrder, SaverOrder, word="config"):
    """The configuration of a worker or a saver; it waits for that before anything else. Holds the key.

    Beside a worker's are the page of its heartbeat and, where there is one, the mirror to resume from.
    """

    config: WorkerConfig
    protocol: Count = PROTOCOL


@dataclass(frozen=True)
class TakeOver(SaverOrder, word="open"):
    """Take the rank's lock, and clean up after the dead. Answered by ``SaverReady``."""


@dataclass(frozen=True)
class CommitSlot(SaverOrder, word="commit"):
    """Commit a slot of the mirror beside this message. Answered by ``SlotCommitted``.

    ``hurry`` tells that a failure's state is in it, or that nothing trains: no training reads meanwhile.
    """

    slot: Slot
    reason: Label
    failure: bool
    hurry: bool


# From the saver


@dataclass(frozen=True)
class SaverAnswer(Message):
    """What became of an order: the ``error``, "" for none. ``lasting``: the same again would fail as well."""

    error: Text = ""
    remarks: Remarks = ()
    lasting: bool = False


@dataclass(frozen=True)
class SaverReady(SaverAnswer, word="ready"):
    """The saver has the lock, or cannot serve its store."""


@dataclass(frozen=True)
class SlotCommitted(SaverAnswer, word="committed"):
    """A slot is a checkpoint now, at this ``path``; "" where it is not."""

    path: PathText = ""
    epoch: Count = 0
    generation: Count = 0
    seconds: Seconds = 0.0
