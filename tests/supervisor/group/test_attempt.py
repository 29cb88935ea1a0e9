"""An attempt: what it has done by itself, and what was there before."""

from __future__ import annotations

import pytest

from resilient.wire.heartbeat import Heartbeat, Phase
from supervisor.group.attempt import Attempt


@pytest.fixture
def attempt():
    made = Attempt(2, [], 0.0, Heartbeat.create())
    yield made
    made.close()


def hear(attempt, kind, step):
    attempt.hear({"type": kind, "step": step})


def test_a_state_that_is_about_to_be_read_is_no_progress(attempt):
    """A worker that dies of reading it has failed at its start, whatever the state's step."""
    hear(attempt, "resuming", 24)
    assert (attempt.step, attempt.progressed) == (24, False)
    hear(attempt, "resumed", 24)
    attempt.heartbeat.beat(Phase.STEP, 24)
    attempt.look()
    assert (attempt.step, attempt.progressed) == (24, False)


def test_of_several_states_the_last_one_counts(attempt):
    """The newest could not be read: the next one is older, and is no step of this attempt's either."""
    hear(attempt, "resuming", 24)
    hear(attempt, "resuming", 20)
    hear(attempt, "resumed", 20)
    assert (attempt.step, attempt.progressed) == (20, False)
    hear(attempt, "progress", 21)
    assert (attempt.step, attempt.progressed) == (21, True)


def test_a_step_of_its_own_stays_progress(attempt):
    """A second network that is put back later takes nothing from it."""
    attempt.heartbeat.beat(Phase.STEP, 3)
    attempt.look()
    hear(attempt, "resumed", 2)
    assert (attempt.step, attempt.progressed) == (3, True)
