"""Which checkpoints stay: never fewer than promised, under any clock."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from resilient.config import KeepPolicy
from resilient.retention import kept


@dataclass(frozen=True)
class Checkpoint:
    generation: int
    created: float


clocks = st.lists(st.floats(-1e6, 1e6), max_size=40)
policies = st.one_of(
    st.builds(KeepPolicy, max_count=st.integers(1, 10)),
    st.builds(KeepPolicy, per_minutes=st.integers(1, 1000)),
    st.just(KeepPolicy()),
)


def made(clock):
    return [Checkpoint(generation, created) for generation, created in enumerate(clock, start=1)]


@given(policies, clocks, st.randoms(use_true_random=False))
def test_the_newest_stays_whatever_the_order(policy, clock, random):
    """The newest generation always stays; the order in which candidates come makes no difference."""
    checkpoints = made(clock)
    shuffled = random.sample(checkpoints, len(checkpoints))
    assert kept(policy, shuffled) == kept(policy, checkpoints)
    if checkpoints:
        assert checkpoints[-1].generation in kept(policy, checkpoints)


@given(policies, clocks)
def test_deciding_again_keeps_all(policy, clock):
    """Retention applied to what it kept removes nothing more."""
    checkpoints = made(clock)
    stays = kept(policy, checkpoints)
    assert kept(policy, [c for c in checkpoints if c.generation in stays]) == stays


@given(st.integers(1, 10), clocks)
def test_count_keeps_exactly_the_newest_generations(count, clock):
    """With a count, exactly the newest generations stay, even where the clock says otherwise."""
    generations = [checkpoint.generation for checkpoint in made(clock)]
    assert kept(KeepPolicy(max_count=count), made(clock)) == set(generations[-count:])


def test_without_a_policy_everything_stays():
    """With neither a count nor minutes, nothing is ever removed."""
    assert kept(KeepPolicy(), made([5.0, 1.0, 3.0])) == {1, 2, 3}
    assert kept(KeepPolicy(), []) == set()


def replay(policy, clock):
    """What is left after each commit of a run that applies retention every time."""
    present = []
    for checkpoint in made(clock):
        present.append(checkpoint)
        stays = kept(policy, present)
        present = [candidate for candidate in present if candidate.generation in stays]
    return present


@given(st.integers(1, 1000), clocks)
def test_minutes_leave_no_gap_that_was_not_there(minutes, clock):
    """Every checkpoint ever made has one that stayed within n minutes before it, with no jump between."""
    everything, present = made(clock), replay(KeepPolicy(per_minutes=minutes), clock)
    for checkpoint in everything:
        covering = [
            stayed
            for stayed in present
            if stayed.generation <= checkpoint.generation
            and checkpoint.created - stayed.created < minutes * 60
            and forwards(everything[stayed.generation - 1 : checkpoint.generation])
        ]
        assert covering, f"nothing stands for {checkpoint}"


@given(st.integers(1, 60), st.lists(st.floats(0, 600), max_size=60))
def test_minutes_keep_no_more_than_promised(minutes, pauses):
    """With a steady clock, one stays per n minutes, and the newest."""
    clock, now = [], 0.0
    for pause in pauses:
        now += pause
        clock.append(now)
    assert len(replay(KeepPolicy(per_minutes=minutes), clock)) <= now // (minutes * 60) + 2


def forwards(checkpoints):
    times = [checkpoint.created for checkpoint in checkpoints]
    return times == sorted(times)
