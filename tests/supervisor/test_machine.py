"""The supervisor's table: complete where it must be, and always on its way to an end."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.machine import TABLE, Action, Event, IllegalEventError, Machine, State, diagram

ARCHITECTURE = Path(__file__).resolve().parent.parent.parent / "ARCHITECTURE.md"


class Workplace:
    """What the loop does, reduced to what can go wrong: how many groups live, which timer runs."""

    def __init__(self):
        self.machine = Machine()
        self.alive = False
        self.timer = None
        self.launched = 0
        self.reaped = 0
        self.finished = 0
        self.stopped = False
        self.saving = False

    def possible(self):
        """The events that can happen now; a stop can come at any time, and after it somebody may insist."""
        events = [Event.INSIST if self.stopped else Event.STOP]
        if self.saving:
            events.append(Event.SETTLED)
        if self.alive:
            events.append(Event.GROUP_OVER)
            events.append(Event.GROUP_FAILED)
        if self.timer is not None:
            events.append(self.timer)
        return events

    def happen(self, event):
        if event in (Event.GROUP_OVER, Event.GROUP_FAILED):
            assert self.alive
            self.alive = False
            self.reaped += 1
        if event is self.timer:
            self.timer = None
        self.stopped |= event is Event.STOP
        if event is Event.SETTLED:
            self.saving = False
        for action in self.machine.feed(event):
            self.perform(action)

    def perform(self, action):
        if action is Action.LAUNCH:
            assert not self.alive, "two groups at once"
            assert not self.stopped, "a group after a stop"
            self.alive = True
            self.launched += 1
        elif action is Action.WAIT:
            self.timer = Event.BACKOFF_OVER
        elif action is Action.CANCEL_WAIT:
            self.timer = None
        elif action is Action.FORWARD:
            assert self.alive
            self.timer = Event.GRACE_OVER
        elif action is Action.KILL:
            assert self.alive
        elif action is Action.AWAIT_SAVE:
            assert not self.alive, "a group that lives may still have something to save"
            self.saving = True
            self.timer = Event.GRACE_OVER
        elif action is Action.FINISH:
            assert not self.alive, "the run ends while a group lives"
            self.finished += 1
            self.saving = False
            self.timer = None


@given(st.data())
def test_any_order_of_events_keeps_the_rules(data):
    """Whatever happens in whatever order: one group at a time, none after a stop, each reaped, one end."""
    place = Workplace()
    place.happen(Event.BEGIN)
    for _ in range(data.draw(st.integers(0, 30))):
        place.happen(data.draw(st.sampled_from(place.possible())))
    place.happen(Event.STOP)
    if place.alive:
        place.happen(Event.GROUP_FAILED)
    if place.saving:
        place.happen(data.draw(st.sampled_from([Event.SETTLED, Event.GRACE_OVER])))
    assert place.machine.state is State.ENDED
    assert place.finished == 1
    assert place.launched == place.reaped


def test_an_event_outside_of_the_table_is_an_error():
    """What cannot happen is not passed over in silence."""
    with pytest.raises(IllegalEventError, match="GRACE_OVER in state NEW"):
        Machine().feed(Event.GRACE_OVER)


def test_every_state_can_be_left_and_every_state_hears_a_stop():
    """A stop request is understood in every state; only the end is final."""
    for state in State:
        assert (state, Event.STOP) in TABLE
        reachable = {transition.state for (origin, _), transition in TABLE.items() if origin is state}
        assert state is State.ENDED or reachable - {state}


def test_architecture_shows_this_table():
    """The table in ARCHITECTURE.md is the one the code runs."""
    text = ARCHITECTURE.read_text()
    shown = text.partition("<!-- machine:begin -->\n")[2].partition("\n<!-- machine:end -->")[0]
    assert shown == diagram()
