"""Why an attempt ended: every kind of evidence has its name."""

from __future__ import annotations

import signal
from dataclasses import replace

import pytest
from messages_said import raised

from resilient.wire.messages import (
    CheckpointsUnusable,
    DataProcessDied,
    Hello,
    NothingOlder,
    PlaceBusy,
    PlaceOpened,
    ScriptEnded,
    ScriptMismatch,
    UsageRefused,
)
from supervisor.group.last_words import LastWords
from supervisor.verdict.classify import (
    BUSY,
    DATA_WORKER,
    EXCEPTION,
    EXITED,
    FAULT,
    FINISHED,
    HANG,
    KILLED,
    LEFT_EARLY,
    MISMATCH,
    NOTHING_OLDER,
    NUMERICAL,
    OUT_OF_MEMORY,
    SPAWN_FAILED,
    STOPPED,
    TOO_LARGE,
    UNUSABLE,
    USAGE,
    Evidence,
    ReportedHang,
    classify,
)

HELLO = LastWords((Hello(1),))
RAISED = raised(4, message="loss is NAN")
DONE = ScriptEnded(complete=True, status=0)
IN_USE = PlaceBusy("/run is in use: process 7 (python) holds its lock", "stop it")
SECOND_IN_USE = HELLO.plus(IN_USE).plus(PlaceOpened("/first"))
SILENCE = ReportedHang("step", 61.0, 60.0)
DEAD_CHILD = HELLO.plus(DataProcessDied("gone"))
DEAD_DATA_WORKER = (
    "[ERROR] MD(1,7f,python): [sig_handler.cc:556] SIGCHLDHandler] "
    "Dataset worker process 417 was killed by signal: Killed. Main process will be terminated."
)


@pytest.mark.parametrize(
    ("evidence", "kind", "status"),
    [
        (Evidence(0), FINISHED, 0),
        (Evidence(0, HELLO.plus(DONE)), FINISHED, 0),
        (Evidence(0, HELLO.plus(replace(DONE, complete=False))), LEFT_EARLY, 1),
        (Evidence(0, HELLO), LEFT_EARLY, 1),
        (Evidence(3, HELLO), EXITED, 3),
        (Evidence(-9, HELLO), KILLED, 137),
        (Evidence(-11, HELLO), FAULT, 139),
        (Evidence(-15, HELLO, frozenset({signal.SIGTERM})), STOPPED, 143),
        (Evidence(-9, HELLO, frozenset({signal.SIGTERM})), KILLED, 137),
        (Evidence(-9, HELLO, oom_kills=1), OUT_OF_MEMORY, 137),
        (Evidence(-9, HELLO, kernel="Out of memory: Killed process 7 (python)"), OUT_OF_MEMORY, 137),
        (Evidence(-9, HELLO, frozenset({signal.SIGKILL}), silence=SILENCE), HANG, 137),
        (Evidence(-15, HELLO, frozenset({signal.SIGTERM}), too_large_bytes=2**30), TOO_LARGE, 143),
        (Evidence(0, HELLO.plus(DONE), silence=SILENCE), FINISHED, 0),
        (Evidence(0, HELLO, silence=SILENCE), HANG, 1),
        (Evidence(-15, HELLO), KILLED, 143),
        (Evidence(-15, HELLO, log_end=DEAD_DATA_WORKER), DATA_WORKER, 143),
        (Evidence(-15, DEAD_CHILD), DATA_WORKER, 143),
        (Evidence(-9, DEAD_CHILD), DATA_WORKER, 137),
        (Evidence(-9, DEAD_CHILD, sent=frozenset({15, 9}), silence=SILENCE), DATA_WORKER, 137),
        (Evidence(-15, DEAD_CHILD, sent=frozenset({15})), STOPPED, 143),
        # Somebody had asked for its stacks, or for a checkpoint: that is not what it died of.
        (Evidence(-15, DEAD_CHILD, sent=frozenset({3})), DATA_WORKER, 143),
        (Evidence(-9, DEAD_CHILD, sent=frozenset({37})), DATA_WORKER, 137),
        (Evidence(1, HELLO.plus(replace(RAISED, loss_finite=False))), NUMERICAL, 1),
        (Evidence(1, HELLO.plus(replace(RAISED, exception="FloatingPointError"))), NUMERICAL, 1),
        (Evidence(1, HELLO.plus(NothingOlder("all set aside"))), NOTHING_OLDER, 1),
        (Evidence(None, error="no such file"), SPAWN_FAILED, 126),
        (Evidence(65, HELLO.plus(CheckpointsUnusable("all corrupt", "x"))), UNUSABLE, 65),
        (Evidence(1, HELLO.plus(ScriptMismatch("other shapes"))), MISMATCH, 65),
        (Evidence(0, HELLO.plus(ScriptMismatch("other shapes"))), MISMATCH, 65),
        (Evidence(1, HELLO.plus(UsageRefused("bad"))), USAGE, 64),
        (Evidence(1, HELLO.plus(IN_USE)), BUSY, 1),
        (Evidence(0, HELLO.plus(IN_USE).plus(DONE)), BUSY, 1),
        (Evidence(3, HELLO.plus(IN_USE).plus(PlaceOpened("/run"))), EXITED, 3),
        (Evidence(1, SECOND_IN_USE.plus(raised(exception="BusyError"))), BUSY, 1),
        (Evidence(1, SECOND_IN_USE.plus(RAISED)), EXCEPTION, 1),
    ],
)
def test_each_end_has_its_name(evidence, kind, status):
    """The kind, and the exit status that the run ends with if it ends there."""
    incident = classify(evidence)
    assert (incident.kind, incident.status) == (kind, status)


def test_an_exception_is_told_by_its_own_words():
    """What the worker said about its end is worth more than the exit status."""
    told = HELLO.plus(raised(message="bad\nworse"))
    incident = classify(Evidence(1, told, progressed=True))
    assert (incident.kind, incident.cause) == (EXCEPTION, "ValueError: bad")
    assert not incident.at_start


def test_before_the_first_step_is_at_the_start():
    """An attempt that completed no step failed at its start, however it ended."""
    assert classify(Evidence(-9, HELLO)).at_start
    assert not classify(Evidence(-9, HELLO, progressed=True)).at_start


def test_a_worker_of_ours_that_never_said_a_word_has_not_finished():
    """Status 0 of any other command is its word; ours would have said that the training is complete."""
    assert classify(Evidence(0)).kind == FINISHED
    assert classify(Evidence(0, mute=False)).kind == LEFT_EARLY
