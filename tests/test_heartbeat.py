"""The heartbeat: one page by which a worker is known to be alive, without a message."""

from __future__ import annotations

import os
import signal
import struct
import time

import pytest
from slots import descriptors

from resilient.heartbeat import PAGE_BYTES, Heartbeat, Phase


def test_nothing_has_been_said_at_first():
    """A new page says that the worker is starting, and has completed no step."""
    page = Heartbeat.create()
    beat = page.read()
    assert (beat.phase, beat.step, beat.at_ns) == (Phase.STARTING, 0, 0)
    page.close()


@pytest.mark.parametrize("phase", Phase)
def test_what_is_beaten_is_read_through_another_mapping(phase):
    """Phase, step and time are the writer's; the time is the monotonic clock's, which all processes share."""
    page = Heartbeat.create()
    other = Heartbeat(os.dup(page.descriptor))
    before = time.monotonic_ns()
    other.beat(phase, 2**40)
    beat = page.read()
    assert (beat.phase, beat.step) == (phase, 2**40)
    assert before <= beat.at_ns <= time.monotonic_ns()
    page.close()
    other.close()


def test_a_beat_without_a_step_leaves_it():
    """Between two steps only the phase and the time change."""
    page = Heartbeat.create()
    page.beat(Phase.CALLBACKS, 7)
    first = page.read()
    page.beat(Phase.STEP)
    second = page.read()
    assert (second.phase, second.step) == (Phase.STEP, 7)
    assert second.at_ns >= first.at_ns
    page.beat(Phase.OVER, 0)
    assert page.read().step == 0
    page.close()


def test_the_last_beat_of_a_killed_process_stays():
    """Where a worker was when it was killed is read afterwards."""
    page = Heartbeat.create()
    child = os.fork()
    if child == 0:
        page.beat(Phase.STEP, 41)
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    assert (page.read().phase, page.read().step) == (Phase.STEP, 41)
    page.close()


def test_a_phase_of_a_later_version_is_no_error():
    """A number that is no phase of ours is read as the first one: nothing more is known."""
    page = Heartbeat.create()
    os.pwrite(page.descriptor, struct.pack("=QQQ", 99, 5, 6), 0)
    beat = page.read()
    assert (beat.phase, beat.step, beat.at_ns) == (Phase.STARTING, 5, 6)
    page.close()


def test_a_page_nobody_holds_any_more_does_no_harm():
    """A worker beats on when its supervisor has gone."""
    page = Heartbeat.create()
    other = Heartbeat(os.dup(page.descriptor))
    page.close()
    del page
    other.beat(Phase.SAVING, 3)
    assert other.read().step == 3
    other.close()


def test_closing_leaves_no_descriptor():
    """Neither its own nor the mapping's, once the page is dropped; closing twice is closing once."""
    before = descriptors()
    page = Heartbeat.create()
    page.close()
    page.close()
    del page
    assert descriptors() == before


def test_a_memory_smaller_than_a_page_is_refused():
    """What cannot be mapped is an error at once, not one in the middle of the training."""
    descriptor = os.memfd_create("something")
    os.ftruncate(descriptor, PAGE_BYTES // 2)
    with pytest.raises(ValueError, match="length"):
        Heartbeat(descriptor)
    os.close(descriptor)
