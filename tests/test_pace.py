"""How often a boundary is copied follows from what copies and steps are seen to take."""

from chaos.clock import SteppedClock
from resilient.pace import Pace


class Training:
    """Steps and copies that take as long as is said."""

    def __init__(self, every=None):
        self.clock = SteppedClock()
        self.pace = Pace(self.clock, every)

    def step(self, step_s, observe_s=0.0, copy_s=0.0):
        """One step; whether it was copied."""
        self.clock.advance(step_s)
        wanted = self.pace.wants()
        if wanted:
            self.clock.advance(observe_s + copy_s)
            self.pace.copied(copy_s)
        return wanted

    def share(self, steps, step_s, **costs):
        """Which share of its time so many steps spend on copies."""
        copies = sum(self.step(step_s, **costs) for _ in range(steps))
        return copies * sum(costs.values()) / (steps * step_s)


def test_copies_take_two_percent_at_most():
    """Observing and copying together take at most 2% of the steps' time, and not much less."""
    training = Training()
    training.share(200, 0.01, observe_s=0.001, copy_s=0.002)
    assert 0.015 < training.share(3000, 0.01, observe_s=0.001, copy_s=0.002) <= 0.02


def test_a_cheap_copy_is_made_at_every_step():
    """Where a copy takes less than 2% of a step, no step is without one."""
    training = Training()
    assert all(training.step(1.0, copy_s=0.015) for _ in range(20))


def test_the_first_copies_into_fresh_memory_do_not_count():
    """They are several times as slow as those that follow: what they cost decides nothing."""
    training = Training()
    training.pace.copied(0.5)
    assert [training.step(0.1, copy_s=0.5) for _ in range(2)] == [True, True]
    assert training.step(0.1, copy_s=0.02)
    assert [training.step(0.1, copy_s=0.02) for _ in range(20)].count(True) == 2


def test_a_fixed_rhythm_is_kept():
    """With --mirror-every 3 every third boundary is copied, whatever it costs."""
    training = Training(3)
    assert [training.step(0.001, copy_s=1.0) for _ in range(6)] == [False, False, True, False, False, True]
