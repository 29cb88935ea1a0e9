"""The heartbeat: two pages by which a worker is known to be alive, without a message."""

from __future__ import annotations

import os
import signal
import struct
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from slots import descriptors

from resilient.wire.heartbeat import PAGES_BYTES, Heartbeat, Phase


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


def test_a_memory_smaller_than_the_pages_is_refused():
    """What cannot be mapped is an error at once, not one in the middle of the training."""
    descriptor = os.memfd_create("something")
    os.ftruncate(descriptor, PAGES_BYTES // 2)
    with pytest.raises(ValueError, match="shorter than"):
        Heartbeat(descriptor)
    os.close(descriptor)


def test_it_cannot_be_cut_off():
    """A worker that truncates the memory would kill its supervisor with SIGBUS: the kernel refuses it."""
    page = Heartbeat.create()
    with pytest.raises(PermissionError):
        os.ftruncate(page.descriptor, 0)
    page.close()


def test_silences_are_counted_by_phase():
    """The time from a beat to the next is a silence of the phase that the first of them told."""
    page = Heartbeat.create()
    reader = Heartbeat(os.dup(page.descriptor))
    for phase in (Phase.STEP, Phase.STEP, Phase.CALLBACKS, Phase.STEP, Phase.DATA):
        page.beat(phase)
    counts = {phase: reader.samples(phase) for phase in Phase if reader.samples(phase)}
    assert counts == {Phase.STEP: 3, Phase.CALLBACKS: 1}
    page.close()
    reader.close()


def test_a_silence_is_as_long_as_it_was():
    """Its bucket's bound is not below what has passed, and at most twice that."""
    page = Heartbeat()
    before_ns = time.monotonic_ns()
    page.beat(Phase.STEP)
    first_ns = time.monotonic_ns()
    while time.monotonic_ns() - first_ns < 5_000_000:
        pass
    second_ns = time.monotonic_ns()
    page.beat(Phase.DATA)
    after_ns = time.monotonic_ns()
    bound_s = page.longest(Phase.STEP, 0.5)
    assert (second_ns - first_ns) / 1e9 < bound_s <= 2 * (after_ns - before_ns) / 1e9


def histogram(page, phase, counts):
    """Writes a phase's buckets, as anybody with the descriptor can."""
    os.pwrite(page.descriptor, struct.pack("=64Q", *counts), (1 + phase) * 64 * 8)


@given(st.lists(st.integers(0, 40), min_size=1, max_size=300), st.floats(0.001, 1.0))
def test_a_quantile_is_bounded_from_above(bits, quantile):
    """So many of the silences are not longer than the bound, and without its bucket there are fewer."""
    page = Heartbeat.create()
    histogram(page, Phase.SAVING, [bits.count(n) for n in range(64)])
    bound_ns = round(page.longest(Phase.SAVING, quantile) * 1e9)
    assert sum(2**n <= bound_ns for n in bits) >= quantile * len(bits)
    assert sum(2**n < bound_ns for n in bits) < quantile * len(bits)
    assert page.samples(Phase.SAVING) == len(bits)
    page.close()


def test_one_in_a_thousand_is_not_the_quantile():
    """Of a thousand silences the 0.999 quantile is the longest but one; the longest has no say in it."""
    page = Heartbeat.create()
    histogram(page, Phase.STEP, [999 * (n == 10) + (n == 20) for n in range(64)])
    assert page.longest(Phase.STEP, 0.999) == 2**10 / 1e9
    assert page.longest(Phase.STEP, 0.9991) == 2**20 / 1e9
    page.close()


def test_nothing_is_known_of_a_phase_that_was_never_left():
    """Then there are no samples, and there is no longest silence."""
    page = Heartbeat()
    page.beat(Phase.STEP)
    assert (page.samples(Phase.STEP), page.longest(Phase.STEP, 0.999)) == (0, 0.0)


@given(st.binary(min_size=64, max_size=PAGES_BYTES))
def test_whatever_lies_in_the_pages_is_read(data):
    """A worker that writes at random kills nobody: it is read as something, and it can beat on."""
    page = Heartbeat.create()
    os.pwrite(page.descriptor, data, 0)
    page.beat(Phase.STEP)
    os.pwrite(page.descriptor, data, 0)
    assert page.read().phase in Phase
    assert page.phase in Phase
    for phase in Phase:
        assert page.samples(phase) >= 0
        assert page.longest(phase, 0.999) >= 0.0
    page.beat(Phase.DATA, 3)
    assert page.read().step == 3
    page.close()


def test_a_full_bucket_does_not_end_the_training():
    """Not even where memory was overwritten with ones: it begins again from nought."""
    page = Heartbeat.create()
    os.pwrite(page.descriptor, b"\xff" * PAGES_BYTES, 0)
    page.beat(Phase.STEP, 1)
    page.beat(Phase.DATA)
    assert (page.read().phase, page.read().step) == (Phase.DATA, 1)
    page.close()


@pytest.mark.parametrize("fails", [False, True])
def test_a_phase_within_another_returns_to_it(fails):
    """An evaluation in a callback: afterwards the worker is in its callbacks again, also after a failure."""
    page = Heartbeat()
    page.beat(Phase.CALLBACKS, 4)
    try:
        with page.during(Phase.EVALUATING):
            assert page.read().phase is Phase.EVALUATING
            if fails:
                raise KeyError
    except KeyError:
        pass
    assert (page.read().phase, page.read().step) == (Phase.CALLBACKS, 4)
