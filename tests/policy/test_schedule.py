"""When a scheduled checkpoint is made."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from resilient.config import SavePolicy
from resilient.policy.schedule import due


def saves(policy, boundaries, last_step=0):
    """The steps after which a run with these boundaries (step, seconds) saves."""
    saved, last_s = [], 0.0
    for step, now_s in boundaries:
        if due(policy, step, last_step, now_s, last_s):
            saved.append(step)
            last_step, last_s = step, now_s
    return saved


@given(st.integers(1, 20), st.integers(0, 100), st.integers(0, 100))
def test_a_resumed_run_saves_at_the_same_steps(every, resumed, length):
    """A run resumed at any step saves at the same steps as the uninterrupted run."""
    policy = SavePolicy(every_steps=every)
    whole = saves(policy, [(step, 0.0) for step in range(1, resumed + length + 1)])
    rest = saves(policy, [(step, 0.0) for step in range(resumed + 1, resumed + length + 1)], resumed)
    assert rest == [step for step in whole if step > resumed]
    assert all(step % every == 0 for step in whole)


def test_a_skipped_step_is_made_up_for():
    """If boundaries lie several steps apart, the first one past the grid saves."""
    assert saves(SavePolicy(every_steps=10), [(step, 0.0) for step in range(7, 60, 7)]) == [
        14,
        21,
        35,
        42,
        56,
    ]


def test_seconds_count_from_the_last_checkpoint():
    """With seconds, a checkpoint is due once they have passed, not before."""
    boundaries = [(1, 4.9), (2, 5.0), (3, 9.0), (4, 10.5), (5, 30.0)]
    assert saves(SavePolicy(every_s=5.0), boundaries) == [2, 4, 5]


def test_the_same_step_is_not_saved_twice():
    """A saved boundary is never due again."""
    assert not due(SavePolicy(every_s=1.0), 3, 3, 100.0, 0.0)
    assert not due(SavePolicy(every_steps=1), 3, 3, 100.0, 0.0)


def test_without_a_policy_nothing_is_scheduled():
    """With neither steps nor seconds, only the end of a training call saves."""
    assert saves(SavePolicy(), [(step, step * 1e6) for step in range(1, 50)]) == []
