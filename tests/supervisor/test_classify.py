"""Why an attempt ended: every kind of evidence has its name."""

from __future__ import annotations

import signal

import pytest

from supervisor.classify import (
    EXCEPTION,
    EXITED,
    FINISHED,
    KILLED,
    LEFT_EARLY,
    MISMATCH,
    SPAWN_FAILED,
    STOPPED,
    UNUSABLE,
    USAGE,
    Evidence,
    classify,
)

HELLO = {"hello": {}}


@pytest.mark.parametrize(
    ("evidence", "kind", "status"),
    [
        (Evidence(0), FINISHED, 0),
        (Evidence(0, {**HELLO, "finished": {"complete": True}}), FINISHED, 0),
        (Evidence(0, {**HELLO, "finished": {"complete": False}}), LEFT_EARLY, 1),
        (Evidence(0, HELLO), LEFT_EARLY, 1),
        (Evidence(3, HELLO), EXITED, 3),
        (Evidence(-9, HELLO), KILLED, 137),
        (Evidence(-11, HELLO), KILLED, 139),
        (Evidence(-15, HELLO, frozenset({signal.SIGTERM})), STOPPED, 143),
        (Evidence(-9, HELLO, frozenset({signal.SIGTERM})), KILLED, 137),
        (Evidence(None, error="no such file"), SPAWN_FAILED, 126),
        (Evidence(65, {**HELLO, "unusable": {"error": "all corrupt", "hint": "x"}}), UNUSABLE, 65),
        (Evidence(1, {**HELLO, "mismatch": {"error": "other shapes"}}), MISMATCH, 65),
        (Evidence(0, {**HELLO, "mismatch": {"error": "other shapes"}}), MISMATCH, 65),
        (Evidence(1, {**HELLO, "usage": {"error": "busy"}}), USAGE, 64),
    ],
)
def test_each_end_has_its_name(evidence, kind, status):
    """The kind, and the exit status that the run ends with if it ends there."""
    incident = classify(evidence)
    assert (incident.kind, incident.status) == (kind, status)


def test_an_exception_is_told_by_its_own_words():
    """What the worker said about its end is worth more than the exit status."""
    told = {**HELLO, "incident": {"kind": "exception", "exception": "ValueError", "message": "bad\nworse"}}
    incident = classify(Evidence(1, told, progressed=True))
    assert (incident.kind, incident.cause) == (EXCEPTION, "ValueError: bad")
    assert not incident.at_start


def test_before_the_first_step_is_at_the_start():
    """An attempt that completed no step failed at its start, however it ended."""
    assert classify(Evidence(-9, HELLO)).at_start
    assert not classify(Evidence(-9, HELLO, progressed=True)).at_start
