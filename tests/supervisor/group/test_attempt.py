"""An attempt: what it has done by itself, and what was there before."""

from __future__ import annotations

import pytest
from messages_said import resumed

from resilient.wire.heartbeat import Heartbeat, Phase
from resilient.wire.messages import FirstStep, Resuming
from supervisor.group.attempt import Attempt


@pytest.fixture
def attempt():
    made = Attempt(2, [], 0.0, Heartbeat.create())
    yield made
    made.close()


def test_a_state_that_is_about_to_be_read_is_no_progress(attempt):
    """A worker that dies of reading it has failed at its start, whatever the state's step."""
    attempt.hear(Resuming(24, "CKP"))
    assert (attempt.step, attempt.progressed) == (24, False)
    attempt.hear(resumed(24))
    attempt.heartbeat.beat(Phase.STEP, 24)
    attempt.look()
    assert (attempt.step, attempt.progressed) == (24, False)


def test_of_several_states_the_last_one_counts(attempt):
    """The newest could not be read: the next one is older, and is no step of this attempt's either."""
    attempt.hear(Resuming(24, "CKP"))
    attempt.hear(Resuming(20, "CKP"))
    attempt.hear(resumed(20))
    assert (attempt.step, attempt.progressed) == (20, False)
    attempt.hear(FirstStep(21))
    assert (attempt.step, attempt.progressed) == (21, True)


def test_a_step_of_its_own_stays_progress(attempt):
    """A second network that is put back later takes nothing from it."""
    attempt.heartbeat.beat(Phase.STEP, 3)
    attempt.look()
    attempt.hear(resumed(2))
    assert (attempt.step, attempt.progressed) == (3, True)
