"""Restarts: granted within a budget, refilled by durable progress, refused where they would only repeat."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from supervisor.verdict.classify import (
    EXCEPTION,
    EXITED,
    FINISHED,
    KILLED,
    MISMATCH,
    UNUSABLE,
    USAGE,
    Incident,
)
from supervisor.verdict.restart import History, RestartPolicy, decide

POLICY = RestartPolicy(max_restarts=3, window_s=100.0, min_s=1.0, max_s=8.0)
KILL = Incident(KILLED, "killed by SIGKILL", 137)
FAILURE = Incident(EXITED, "exited with status 3", 3)
AT_START = Incident(EXCEPTION, "ImportError: no such thing", 1, at_start=True)


def attempts(incident, times, policy=POLICY, history=None):
    """Decides after each failure, at these times; the verdicts until the first refusal."""
    history = history or History()
    verdicts = []
    for now_s in times:
        verdict = decide(history, replace(incident, step=len(verdicts)), policy, now_s, 0.5)
        verdicts.append(verdict)
        if verdict.delay_s is None:
            break
        history = verdict.history
    return verdicts


def test_the_budget_ends_the_run():
    """The fourth failure within the window is one too many for a budget of three."""
    verdicts = attempts(KILL, [0, 1, 2, 3])
    assert [verdict.delay_s is None for verdict in verdicts] == [False, False, False, True]
    assert "3 restarts within 100 s" in verdicts[-1].reason


def test_old_restarts_leave_the_window():
    """Failures further apart than the window never use up the budget."""
    assert all(verdict.delay_s is not None for verdict in attempts(KILL, range(0, 2000, 50)))


def test_durable_progress_refills_the_budget_and_shortens_the_wait():
    """A run that gets on may fail as often as it likes."""
    history = History()
    for step in range(1, 50):
        history = replace(history, durable_step=step * 10)
        verdict = decide(history, KILL, POLICY, float(step), 0.5)
        assert verdict.delay_s == 1.0
        history = verdict.history


def test_an_attempt_that_completed_no_step_refills_nothing():
    """What became durable while it lived was left by the one before it."""
    history = attempts(KILL, [0, 1, 2])[-1].history
    later = replace(history, durable_step=24)
    assert decide(later, replace(KILL, at_start=True), POLICY, 3.0, 0.5).delay_s is None
    assert decide(later, KILL, POLICY, 3.0, 0.5).delay_s == 1.0


def test_a_checkpoint_that_was_there_before_is_no_progress():
    """Falling back to the same checkpoint again and again does not refill the budget."""
    history = History(durable_step=10, judged_step=10)
    assert attempts(KILL, [0, 1, 2, 3], history=history)[-1].delay_s is None


def test_the_wait_grows_and_is_capped():
    """Without progress each wait doubles, up to the maximum."""
    policy = replace(POLICY, max_restarts=10)
    assert [verdict.delay_s for verdict in attempts(KILL, range(6), policy)] == [1, 2, 4, 8, 8, 8]


def test_the_wait_stays_at_its_maximum_however_often_a_run_has_failed():
    """A power of two that no float holds is no failure of the supervisor."""
    for barren in (1_000, 1_024, 5_000, 10**9):
        assert decide(History(barren=barren), KILL, POLICY, 0.0, 0.5).delay_s == POLICY.max_s


def test_jitter_spreads_a_wait_by_a_quarter_each_way():
    """The same random number gives the same wait; no wait exceeds the maximum."""
    policy = RestartPolicy(min_s=4.0, max_s=8.0)
    waits = [
        decide(History(barren=b), KILL, policy, 0.0, jitter).delay_s for b in (0, 1) for jitter in (0, 1)
    ]
    assert waits == [3.0, 5.0, 6.0, 8.0]


def test_the_same_failure_at_the_start_is_not_tried_a_third_time():
    """Twice the same before the first step: starting again would only repeat it."""
    verdicts = attempts(AT_START, range(9))
    assert len(verdicts) == 2
    assert "same way twice" in verdicts[-1].reason


def test_kills_from_outside_have_a_budget_of_their_own():
    """A preemption takes nothing from what the run's own failures may use, and the other way round."""
    history = attempts(KILL, [0, 1, 2])[-1].history
    own = attempts(FAILURE, [3, 4, 5, 6], history=history)
    assert [verdict.delay_s is None for verdict in own] == [False, False, False, True]
    assert attempts(KILL, [7], history=own[-2].history)[-1].delay_s is None


def test_a_stop_is_followed_by_nothing():
    """Whatever a group has died of: once a stop was asked for there is no other."""
    assert decide(History(), KILL, POLICY, 0.0, 0.5, stopping=True).delay_s is None


def test_a_poisoned_step_is_given_up_within_four_attempts():
    """The verdict says what is different about the second restart, and why there is no third."""
    poison = Incident(EXCEPTION, "ValueError: bad", 1, step=24, phase="step")
    history = History(durable_step=24)
    verdicts = []
    while not verdicts or verdicts[-1].delay_s is not None:
        verdicts.append(decide(history, poison, POLICY, 0.0, 0.5, attempt=len(verdicts) + 1))
        history = verdicts[-1].history
    assert len(verdicts) == 3
    assert "going back to an older state" in verdicts[1].action
    assert "three times in the same way" in verdicts[-1].reason


def test_two_different_failures_at_the_start_are_two_failures():
    """Only the very same failure counts as a repetition."""
    first = decide(History(), AT_START, POLICY, 0.0, 0.5)
    other = replace(AT_START, cause="OSError: something else")
    assert decide(first.history, other, POLICY, 1.0, 0.5).delay_s is not None


def test_refusals_and_a_clean_finish_are_final():
    """Nothing is started again where that changes nothing."""
    for kind in (FINISHED, UNUSABLE, MISMATCH, USAGE):
        assert decide(History(), Incident(kind, "", 0), POLICY, 0.0, 0.5).delay_s is None


@given(
    st.lists(st.tuples(st.floats(0, 50), st.booleans(), st.floats(0, 0.999)), max_size=60),
    st.integers(0, 4),
    st.floats(0, 5),
    st.floats(5, 50),
)
def test_the_budget_holds_for_every_history(failures, budget, min_s, max_s):
    """In no window without progress are there more restarts than the budget; no wait exceeds its maximum."""
    policy = RestartPolicy(budget, 100.0, min_s, max_s)
    history, now_s, granted = History(), 0.0, []
    for gap_s, progressed, jitter in failures:
        now_s += gap_s
        if progressed:
            history = replace(history, durable_step=history.durable_step + 1)
            granted = []
        verdict = decide(history, KILL, policy, now_s, jitter)
        if verdict.delay_s is None:
            return
        assert 0 <= verdict.delay_s <= max_s
        granted = [at_s for at_s in granted if now_s - at_s < policy.window_s] + [now_s]
        assert len(granted) <= budget
        history = verdict.history
