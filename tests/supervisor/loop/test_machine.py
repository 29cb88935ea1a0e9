"""The supervisor's table: complete where it must be, and always on its way to an end."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.loop.machine import (
    TABLE,
    IllegalEventError,
    Machine,
    SupervisorAction,
    SupervisorEvent,
    SupervisorState,
    diagram,
)

ARCHITECTURE = Path(__file__).resolve().parents[3] / "ARCHITECTURE.md"


class Workplace:
    """What the loop does, reduced to what can go wrong: how many groups live, which timers run."""

    def __init__(self):
        self.machine = Machine()
        self.journal = []
        self.alive = False
        self.held = False
        self.timer = None
        self.late = False
        self.launched = 0
        self.reaped = 0
        self.abandoned = 0
        self.finished = 0
        self.budget = 5
        self.stopped = False
        self.saving = False

    def possible(self):
        """The events that can happen now; a stop can come at any time, and after it somebody may insist."""
        events = [SupervisorEvent.INSIST if self.stopped else SupervisorEvent.STOP]
        if self.saving:
            events.append(SupervisorEvent.SETTLED)
        if self.alive:
            events.append(SupervisorEvent.GROUP_OVER)
            if self.budget and not self.stopped:
                events.append(SupervisorEvent.GROUP_FAILED)
        if self.machine.state is SupervisorState.RUNNING:
            events += [SupervisorEvent.HUNG, SupervisorEvent.TOO_LARGE]
        if self.machine.state is SupervisorState.LOOKING:
            events.append(SupervisorEvent.MOVES)
        if self.machine.state is SupervisorState.CLEARING:
            events.append(SupervisorEvent.HOPELESS)
        if self.late:
            events.append(SupervisorEvent.LATE)
        if self.timer is not None:
            events.append(self.timer)
        if self.timer is SupervisorEvent.BACKOFF_OVER:
            events += [SupervisorEvent.NOT_READY, SupervisorEvent.HOPELESS]
        return events

    def happen(self, event):
        if event in (SupervisorEvent.GROUP_OVER, SupervisorEvent.GROUP_FAILED):
            assert self.alive
            self.reaped += 1
            self.alive = False
        if event is SupervisorEvent.GROUP_FAILED:
            self.budget -= 1
        if event is self.timer or event in (
            SupervisorEvent.NOT_READY,
            SupervisorEvent.HOPELESS,
            SupervisorEvent.MOVES,
        ):
            self.timer = None
        self.late &= event is not SupervisorEvent.LATE
        self.stopped |= event is SupervisorEvent.STOP
        if event is SupervisorEvent.SETTLED:
            self.saving = False
        before = self.machine.state
        actions = self.machine.feed(event)
        self.journal.append((before, event, self.machine.state))
        for action in actions:
            self.perform(action)

    def perform(self, action):
        ending = {
            SupervisorAction.TAKE_STACKS: SupervisorEvent.MOTIONLESS,
            SupervisorAction.END: SupervisorEvent.GRACE_OVER,
        }
        if action is SupervisorAction.LAUNCH:
            assert not self.alive, "two groups at once"
            assert not self.held, "a group beside one that the kernel holds"
            assert not self.stopped, "a group after a stop"
            self.alive = True
            self.launched += 1
        elif action in (SupervisorAction.WAIT, SupervisorAction.WAIT_LONGER):
            assert not self.alive
            self.timer = SupervisorEvent.BACKOFF_OVER
        elif action in ending:
            assert self.alive
            self.timer = ending[action]
        elif action is SupervisorAction.FORWARD:
            assert self.alive
            self.timer, self.late = SupervisorEvent.GRACE_OVER, True
        elif action in (SupervisorAction.SECURE, SupervisorAction.GO_ON):
            assert self.alive
        elif action in (SupervisorAction.KILL, SupervisorAction.LOOK_AGAIN):
            assert self.alive
            self.timer, self.late = SupervisorEvent.GRACE_OVER, False
        elif action is SupervisorAction.ABANDON:
            assert self.alive
            self.alive, self.held = False, True
            self.abandoned += 1
        elif action is SupervisorAction.AWAIT_SAVE:
            assert not self.alive, "a group that lives may still have something to save"
            self.saving, self.late = True, False
            self.timer = SupervisorEvent.GRACE_OVER
        elif action is SupervisorAction.FINISH:
            assert not self.alive, "the run ends while a group lives"
            self.finished += 1
            self.saving = False
            self.timer = None


@given(st.data())
def test_any_order_of_events_keeps_the_rules(data):
    """Whatever happens in whatever order: one group at a time, none after a stop, each reaped, one end.

    And however it goes on once a stop was asked for, a few events later it is over.
    """
    place = Workplace()
    place.happen(SupervisorEvent.BEGIN)
    for _ in range(data.draw(st.integers(0, 30))):
        place.happen(data.draw(st.sampled_from(place.possible())))
    if not place.stopped:
        place.happen(SupervisorEvent.STOP)
    for _ in range(12):
        if place.machine.state is SupervisorState.ENDED:
            break
        # A person who insists again and again changes nothing about that.
        forced = [event for event in place.possible() if event is not SupervisorEvent.INSIST]
        place.happen(data.draw(st.sampled_from(forced)))
    assert place.machine.state is SupervisorState.ENDED
    assert place.finished == 1
    assert place.launched <= 1 + 5
    assert place.reaped == place.launched - place.abandoned
    # What is journalled leaves no gap: each line begins where the one before has ended.
    assert place.journal[0][0] is SupervisorState.NEW
    assert all(one[2] is other[0] for one, other in zip(place.journal, place.journal[1:], strict=False))


def test_an_event_outside_of_the_table_is_an_error():
    """What cannot happen is not passed over in silence."""
    with pytest.raises(IllegalEventError, match="GRACE_OVER in state NEW"):
        Machine().feed(SupervisorEvent.GRACE_OVER)


def test_every_state_can_be_left_and_a_stop_is_always_heard():
    """Only the end is final. A stop, or one that is insisted on, is understood from the first group on."""
    for state in SupervisorState:
        assert state is SupervisorState.NEW or {
            (state, SupervisorEvent.STOP),
            (state, SupervisorEvent.INSIST),
        } & set(TABLE)
        reachable = {transition.state for (origin, _), transition in TABLE.items() if origin is state}
        assert state is SupervisorState.ENDED or reachable - {state}


def test_architecture_shows_this_table():
    """The table in ARCHITECTURE.md is the one the code runs."""
    text = ARCHITECTURE.read_text()
    shown = text.partition("<!-- machine:begin -->\n")[2].partition("\n<!-- machine:end -->")[0]
    assert shown == diagram()
