"""The table of a training call's phases: complete, and honest about the live values."""

from __future__ import annotations

from pathlib import Path

import pytest

from resilient.worker.boundary.phases import (
    SIGNALS_WAIT,
    TABLE,
    CallEvent,
    CallState,
    Phases,
    Savable,
    diagram,
)

ARCHITECTURE = Path(__file__).resolve().parent.parent.parent / "ARCHITECTURE.md"


@pytest.mark.parametrize("state", CallState)
def test_every_state_knows_every_event(state):
    """Whatever a training tells in whatever order, it does not end by this table."""
    assert all((state, event) in TABLE for event in CallEvent)


@pytest.mark.parametrize("event", CallEvent)
def test_a_call_that_has_failed_stays_failed(event):
    """Nothing that comes later makes its values whole again, and a signal acts at once."""
    phases = Phases()
    phases.feed(CallEvent.BOUNDARY)
    phases.feed(CallEvent.STEP_BEGINS)
    phases.feed(CallEvent.FAIL)
    phases.feed(event)
    assert phases.state is CallState.FAILED
    assert phases.savable is Savable.HELD
    assert CallState.FAILED not in SIGNALS_WAIT


def test_live_values_are_saved_only_where_no_code_of_the_script_has_changed_them():
    """Between two steps they are the boundary, behind a complete update the next one, and nowhere else."""
    live = {state for state in CallState if phases_in(state).savable in (Savable.LIVE, Savable.NEXT)}
    assert live == {CallState.BETWEEN, CallState.CALLBACKS}


def phases_in(state):
    phases = Phases()
    phases.state = state
    return phases


def test_architecture_shows_these_tables():
    """The tables in ARCHITECTURE.md are those the code runs."""
    text = ARCHITECTURE.read_text()
    shown = text.partition("<!-- phases:begin -->\n")[2].partition("\n<!-- phases:end -->")[0]
    assert shown == diagram()
