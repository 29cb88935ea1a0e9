"""How often the mirror copies: as often as possible at a small cost."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chaos.stepped_clock import SteppedClock
from resilient.policy.pace import Pace
from resilient.policy.schedule import MIRROR_SHARE, mirror_every

durations = st.floats(1e-6, 1e4)


def run(pace, clock, steps, *, step_s, copy_s):
    """The steps after which a run with these times copies."""
    copied = []
    for step in range(1, steps + 1):
        clock.advance(step_s)
        if pace.wants():
            clock.advance(copy_s)
            pace.copied(copy_s)
            copied.append(step)
    return copied


def gaps(steps):
    return [after - before for before, after in pairwise(steps)]


@given(durations, durations)
def test_copying_takes_at_most_its_share(copy_s, step_s):
    """One copy every so many steps costs at most 2% of their time; one step less would cost more."""
    every = mirror_every(copy_s, step_s)
    assert every >= 1
    assert copy_s <= MIRROR_SHARE * every * step_s * (1 + 1e-9)
    assert every == 1 or copy_s > MIRROR_SHARE * (every - 1) * step_s * (1 - 1e-9)


@pytest.mark.parametrize(("copy_s", "step_s"), [(0.0, 1.0), (1.0, 0.0), (0.0, 0.0), (-1.0, 1.0)])
def test_what_was_not_measured_yet_is_copied(copy_s, step_s):
    """Before any measurement, every boundary is copied."""
    assert mirror_every(copy_s, step_s) == 1


@given(st.floats(1e-3, 10), st.floats(1e-4, 10))
def test_a_run_pays_its_share_and_no_more(step_s, copy_s):
    """With steady times the gaps are steady, and the copies in them take at most 2% of the steps' time."""
    clock = SteppedClock()
    pace = Pace(clock, None)
    every = mirror_every(copy_s, step_s)
    copied = run(pace, clock, min(8 * every + 16, 20_000), step_s=step_s, copy_s=copy_s)
    settled = gaps(copied)[8:]
    assert all(every - 1 <= gap <= every + 1 for gap in settled)
    assert all(copy_s <= MIRROR_SHARE * (gap + 1) * step_s * (1 + 1e-6) for gap in settled)


def test_the_first_boundaries_are_held():
    """Until copies and steps have been measured each boundary is copied: a run that dies early loses nothing.

    The first copy into each slot is slower than all others, and measures nothing.
    """
    clock = SteppedClock()
    assert run(Pace(clock, None), clock, 200, step_s=1.0, copy_s=1.0)[:6] == [1, 2, 3, 4, 54, 104]


def test_compiling_is_no_step():
    """The first steps of a process compile and allocate, so their time does not count."""
    clock = SteppedClock()
    pace = Pace(clock, None)
    run(pace, clock, 1, step_s=600.0, copy_s=0.1)
    run(pace, clock, 1, step_s=60.0, copy_s=0.1)
    run(pace, clock, 2, step_s=1.0, copy_s=0.1)
    assert pace.every == mirror_every(0.1, 1.0) == 5


def test_a_copy_is_no_part_of_the_next_step():
    """The measured time of a step excludes copies of any length."""
    clock = SteppedClock()
    pace = Pace(clock, None)
    run(pace, clock, 2000, step_s=0.5, copy_s=7.0)
    assert pace.every == mirror_every(7.0, 0.5)


def test_the_rhythm_follows_the_training():
    """When steps become ten times as fast, about ten times as many lie between two copies."""
    clock = SteppedClock()
    pace = Pace(clock, None)
    run(pace, clock, 200, step_s=1.0, copy_s=0.1)
    assert pace.every == 5
    run(pace, clock, 400, step_s=0.1, copy_s=0.1)
    assert 50 <= pace.every <= 51


def test_one_slow_step_does_not_change_it():
    """A single step that takes fifty times as long, for example waiting for data, changes the pace little."""
    clock = SteppedClock()
    pace = Pace(clock, None)
    run(pace, clock, 200, step_s=1.0, copy_s=1.0)
    assert pace.every == 50
    run(pace, clock, 1, step_s=50.0, copy_s=1.0)
    assert 8 <= pace.every <= 50
    run(pace, clock, 60, step_s=1.0, copy_s=1.0)
    assert 49 <= pace.every <= 50


@pytest.mark.parametrize("every", [1, 2, 7])
def test_a_fixed_rhythm_is_kept(every):
    """With a fixed number of steps, times do not matter."""
    clock = SteppedClock()
    copied = run(Pace(clock, every), clock, 70, step_s=1e-3, copy_s=10.0)
    assert copied == list(range(every, 71, every))


def test_a_copy_out_of_turn_begins_the_count_anew():
    """A boundary that is copied for a save counts as a copy."""
    clock = SteppedClock()
    pace = Pace(clock, 5)
    run(pace, clock, 3, step_s=1.0, copy_s=0.1)
    pace.copied(0.1)
    assert run(pace, clock, 10, step_s=1.0, copy_s=0.1) == [5, 10]


class Training:
    """Simulated steps and copies of given lengths."""

    def __init__(self, every=None):
        self.clock = SteppedClock()
        self.pace = Pace(self.clock, every)

    def step(self, step_s, observe_s=0.0, copy_s=0.0):
        """Performs one step; returns whether it was copied."""
        self.clock.advance(step_s)
        wanted = self.pace.wants()
        if wanted:
            self.clock.advance(observe_s + copy_s)
            self.pace.copied(copy_s)
        return wanted

    def share(self, steps, step_s, **costs):
        """The share of its time that so many steps spend on copies."""
        copies = sum(self.step(step_s, **costs) for _ in range(steps))
        return copies * sum(costs.values()) / (steps * step_s)


def test_copies_take_two_percent_at_most():
    """Observing and copying together take at most 2% of the steps' time, and not much less."""
    training = Training()
    training.share(200, 0.01, observe_s=0.001, copy_s=0.002)
    assert 0.015 < training.share(3000, 0.01, observe_s=0.001, copy_s=0.002) <= 0.02


def test_a_cheap_copy_is_made_at_every_step():
    """If a copy takes less than 2% of a step, every step is copied."""
    training = Training()
    assert all(training.step(1.0, copy_s=0.015) for _ in range(20))


def test_the_first_copies_into_fresh_memory_do_not_count():
    """The first copies are several times slower than later ones, so their cost does not count."""
    training = Training()
    training.pace.copied(0.5)
    assert [training.step(0.1, copy_s=0.5) for _ in range(2)] == [True, True]
    assert training.step(0.1, copy_s=0.02)
    assert [training.step(0.1, copy_s=0.02) for _ in range(20)].count(True) == 2


def test_the_end_of_an_epoch_is_no_step():
    """The end of an epoch right after its last step does not count as a fast step, and is not copied."""
    training = Training()
    training.share(200, 1.0, copy_s=0.1)
    for _ in range(50):
        training.step(1.0, copy_s=0.1)
        training.clock.advance(0.001)
        training.pace.wants(is_step=False)
    assert training.pace.every == mirror_every(0.1, 1.0)


def test_an_epochs_end_that_took_long_is_worth_a_copy():
    """The end of an epoch is copied after an evaluation that took fifty times as long as a copy."""
    training = Training()
    training.share(200, 1.0, copy_s=0.1)
    training.clock.advance(4.9)
    assert not training.pace.wants(is_step=False)
    training.clock.advance(5.1)
    assert training.pace.wants(is_step=False)


@pytest.mark.parametrize(("every", "wanted"), [(1, True), (2, False)])
def test_with_each_step_the_ends_of_epochs_are_kept_too(every, wanted):
    """--mirror-every 1 copies each boundary; larger numbers count only steps."""
    assert Training(every).pace.wants(is_step=False) is wanted
