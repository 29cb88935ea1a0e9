"""The pause between two groups: it ends when the way is free, or when waiting is of no use."""

from __future__ import annotations

import pytest

from chaos.stepped_clock import SteppedClock
from supervisor.edges.timers import Timers
from supervisor.loop.machine import SupervisorEvent
from supervisor.loop.pause import Pause
from supervisor.verdict.readiness import Obstacle, ObstacleKind

FULL = Obstacle(ObstacleKind.DISK, "no room")
GUESS = Obstacle(ObstacleKind.MEMORY, "perhaps no memory", fatal=False)
EXCHANGED = Obstacle(ObstacleKind.REPLACED, "another directory", may_pass=False)


def events_of(obstacle, seconds):
    """What happens in so many seconds with one thing in the way; a looped wait goes on as the loop does."""
    clock, events, reasons = SteppedClock(), [], []
    timers = Timers(clock)
    pause = Pause(timers, clock, lambda: obstacle, events.append, reasons.append)
    pause.begin(5.0)
    for _ in range(seconds):
        clock.advance(1.0)
        before = len(events)
        timers.fire()
        if events[before:] == [SupervisorEvent.NOT_READY]:
            pause.go_on()
    return events, reasons


def test_a_free_way_ends_it_after_the_backoff():
    """Not earlier, and once."""
    assert events_of(None, 4) == ([], [])
    assert events_of(None, 700) == ([SupervisorEvent.BACKOFF_OVER], [])


def test_what_may_pass_is_waited_for_and_not_for_ever():
    """Ten minutes; then the run is given up with the reason."""
    events, reasons = events_of(FULL, 700)
    assert set(events[:-1]) == {SupervisorEvent.NOT_READY}
    assert (events[-1], reasons) == (SupervisorEvent.HOPELESS, ["no room"])


def test_a_guess_holds_nothing_up_for_long():
    """What was measured may be wrong: after half a minute the group is launched all the same."""
    events, reasons = events_of(GUESS, 60)
    assert (events[-1], reasons) == (SupervisorEvent.BACKOFF_OVER, [])
    assert len(events) > 5


@pytest.mark.parametrize("seconds", [6, 700])
def test_what_cannot_pass_is_not_waited_for(seconds):
    """It is given up at the first look."""
    assert events_of(EXCHANGED, seconds) == ([SupervisorEvent.HOPELESS], ["another directory"])
