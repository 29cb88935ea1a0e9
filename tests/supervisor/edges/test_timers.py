"""Timers: when the loop has to look again, and what is due then."""

from __future__ import annotations

import math
import os
import selectors

import pytest

from chaos.stepped_clock import SteppedClock
from supervisor.edges.timers import Timers


@pytest.mark.parametrize("delay_s", [2.0**31, 1e12, 1e300, math.inf])
def test_no_wait_is_too_long_for_the_kernel(delay_s):
    """A timer in the next millennium, or never: the loop waits, a bounded time each, and nothing fires."""
    clock = SteppedClock()
    timers = Timers(clock)
    fired = []
    timers.set("far", delay_s, lambda: fired.append("far"))
    assert 0 < timers.wait_s <= 3600
    reading, writing = os.pipe()
    os.close(writing)
    with selectors.DefaultSelector() as selector, os.fdopen(reading) as at_its_end:
        selector.register(at_its_end, selectors.EVENT_READ)
        assert selector.select(timers.wait_s), "the kernel takes it as a time to wait"
    timers.fire()
    timers.set("near", 0.0, lambda: fired.append("near"))
    assert timers.wait_s == 0
    timers.fire()
    assert fired == ["near"]
    assert timers.wait_s > 0


def test_without_timers_there_is_no_limit():
    """Nothing is to be looked at: the loop sleeps until something happens."""
    assert Timers(SteppedClock()).wait_s is None
