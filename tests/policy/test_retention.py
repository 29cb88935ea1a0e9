"""Which checkpoints stay: never fewer than promised, under any clock."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilient.config import Best, KeepPolicy, WorkerConfig
from resilient.policy.retention import kept
from resilient.wire.messages import Configure
from resilient.wire.packing import decode, encode


@dataclass(frozen=True)
class Checkpoint:
    generation: int
    created: float
    step: int = 0
    info: Mapping = field(default_factory=dict)


clocks = st.lists(st.floats(-1e6, 1e6), max_size=40)
bests = st.builds(
    Best, st.integers(1, 4), st.sampled_from(["loss", "accuracy"]), st.sampled_from(["min", "max"])
)
more = {"every_steps": st.none() | st.integers(1, 40), "best": st.none() | bests}
policies = st.one_of(
    st.builds(KeepPolicy, max_count=st.integers(1, 10), **more),
    st.builds(KeepPolicy, per_minutes=st.integers(1, 1000), **more),
    st.builds(KeepPolicy, **more),
)


def made(clock):
    """Checkpoints whose steps and values go up and down with the clock."""
    return [
        Checkpoint(generation, created, 3 * generation, score(generation, created))
        for generation, created in enumerate(clock, start=1)
    ]


def score(generation, created):
    value = math.nan if generation % 5 == 0 else round(created) % 7
    return [{}, {"loss": value}, {"loss": value, "metrics": {"accuracy": -value}}][generation % 3]


@given(policies, clocks, st.randoms(use_true_random=False))
def test_the_newest_stays_whatever_the_order(policy, clock, random):
    """The newest generation always stays, in any order of the candidates."""
    checkpoints = made(clock)
    shuffled = random.sample(checkpoints, len(checkpoints))
    assert kept(policy, shuffled) == kept(policy, checkpoints)
    if checkpoints:
        assert checkpoints[-1].generation in kept(policy, checkpoints)


@given(policies, clocks)
def test_deciding_again_keeps_all(policy, clock):
    """Retention applied to its own result removes nothing more."""
    checkpoints = made(clock)
    stays = kept(policy, checkpoints)
    assert kept(policy, [c for c in checkpoints if c.generation in stays]) == stays


@given(st.integers(1, 10), clocks)
def test_count_keeps_exactly_the_newest_generations(count, clock):
    """With a count, exactly the newest generations stay, even where the clock says otherwise.

    Where none of their losses is finite, one with a finite loss stays beside them.
    """
    generations = [checkpoint.generation for checkpoint in made(clock)]
    beside = kept(KeepPolicy(max_count=count), made(clock)) - set(generations[-count:])
    assert len(beside) <= 1
    without_losses = [replace(checkpoint, info={}) for checkpoint in made(clock)]
    assert kept(KeepPolicy(max_count=count), without_losses) == set(generations[-count:])


def test_without_a_policy_everything_stays():
    """With neither a count nor minutes, nothing is ever removed."""
    assert kept(KeepPolicy(), made([5.0, 1.0, 3.0])) == {1, 2, 3}
    assert kept(KeepPolicy(), []) == set()


def replay(policy, clock):
    """The checkpoints left after each commit of a run that applies retention every time."""
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
    """With a steady clock, one stays per n minutes, the newest, and the newest with a finite loss."""
    clock, now = [], 0.0
    for pause in pauses:
        now += pause
        clock.append(now)
    assert len(replay(KeepPolicy(per_minutes=minutes), clock)) <= now // (minutes * 60) + 3


def forwards(checkpoints):
    times = [checkpoint.created for checkpoint in checkpoints]
    return times == sorted(times)


histories = st.lists(
    st.builds(
        Checkpoint,
        st.integers(1, 60),
        st.floats(0, 1e5),
        st.integers(0, 200),
        st.fixed_dictionaries({}, optional={"loss": st.floats() | st.none() | st.just(True)}),
    ),
    max_size=25,
    unique_by=lambda checkpoint: checkpoint.generation,
)


@given(policies, histories)
def test_rules_are_a_union(policy, checkpoints):
    """Exactly the checkpoints that any one rule keeps stay, and the newest."""
    alone = [
        KeepPolicy(policy.max_count, policy.per_minutes),
        KeepPolicy(every_steps=policy.every_steps),
        KeepPolicy(best=policy.best),
    ]
    rules = [rule for rule in alone if rule != KeepPolicy()] or [KeepPolicy()]
    assert kept(policy, checkpoints) == set().union(*(kept(rule, checkpoints) for rule in rules))


def newest_of(checkpoints):
    """The newest checkpoint, and the newest whose loss is finite or unknown: both always stay."""
    losses = {c.generation: c.info.get("loss") for c in checkpoints}
    finite = [g for g, loss in losses.items() if not isinstance(loss, float) or math.isfinite(loss)]
    return {max(some) for some in (losses, finite) if some}


@given(st.integers(1, 50), histories)
def test_the_first_at_or_after_each_multiple_stays(every, checkpoints):
    """For every multiple of K that the run has passed, the checkpoint that passed it first stays."""
    stays = kept(KeepPolicy(every_steps=every), checkpoints)
    cells = {}
    for checkpoint in sorted(checkpoints, key=lambda c: c.generation):
        cells.setdefault(checkpoint.step // every, checkpoint.generation)
    assert stays == {g for cell, g in cells.items() if cell > 0} | newest_of(checkpoints)


def test_a_grid_of_steps_by_example():
    """K = 100: 120 for 100, 310 for 200 and 300; none for what comes before 100."""
    checkpoints = [Checkpoint(g, 0.0, step) for g, step in enumerate((90, 120, 180, 310, 390, 395), start=1)]
    assert kept(KeepPolicy(every_steps=100), checkpoints) == {2, 4, 6}


@given(st.integers(1, 5), st.sampled_from(["min", "max"]), histories)
def test_the_best_stay(count, direction, checkpoints):
    """No removed checkpoint has a better loss than one of the best that stayed."""
    sign = 1 if direction == "min" else -1
    stays = kept(KeepPolicy(best=Best(count, "loss", direction)), checkpoints)
    losses = {c.generation: c.info.get("loss") for c in checkpoints}
    real = {g: sign * x for g, x in losses.items() if isinstance(x, float) and math.isfinite(x)}
    best = sorted(real, key=lambda g: (real[g], g))[:count]
    assert stays == {*best} | newest_of(checkpoints)


def test_what_is_not_finite_is_never_best():
    """NaN, infinities, words and huge integers do not count as losses; a metric is found under its name."""
    infos = [{"loss": x} for x in (math.nan, -math.inf, "0", True, 10**400, None)] + [{"loss": 9.0}, {}, {}]
    checkpoints = [Checkpoint(g, 0.0, g, info) for g, info in enumerate(infos, start=1)]
    assert kept(KeepPolicy(best=Best(2)), checkpoints) == {7, 9}
    checkpoints = [replace(c, info={"metrics": {"acc": c.step % 4}}) for c in checkpoints[:-1]]
    assert kept(KeepPolicy(best=Best(2, "acc", "max")), checkpoints) == {3, 7, 8}
    assert kept(KeepPolicy(best=Best(2, "f1", "max")), checkpoints) == {8}


def test_two_copies_of_one_state_count_once():
    """Two files of one generation, as a rekey leaves them for a while, count as one."""
    twice = [*made([1.0, 2.0, 3.0]), *made([1.0, 2.0, 3.0])[1:]]
    assert kept(KeepPolicy(max_count=2), twice) == {2, 3}
    assert kept(KeepPolicy(max_count=3), twice) == {1, 2, 3}


@given(policies)
def test_a_policy_travels_whole(policy):
    """A worker receives exactly the policy of the command line."""
    config = WorkerConfig("run", "/run", 1, keep=policy)
    assert decode(encode(Configure(config))).config.keep == policy


@pytest.mark.parametrize("text", ["accuracy", "", ":max", "accuracy:best", "loss:"])
def test_a_metric_needs_its_direction(text):
    """The direction of a metric is never guessed; for the loss, smaller is better."""
    assert Best.parse(3, "loss") == Best(3, "loss", "min")
    assert Best.parse(3, "top:5:max") == Best(3, "top:5", "max")
    with pytest.raises(ValueError, match="which values are better"):
        Best.parse(3, text)


def test_a_loss_that_is_not_finite_pushes_no_good_state_out():
    """After any number of checkpoints with a NaN loss, the last one before them still exists."""
    losses = [0.5, 0.25, *[math.nan] * 17]
    checkpoints = [Checkpoint(n, float(n), n, {"loss": loss}) for n, loss in enumerate(losses, start=1)]
    assert kept(KeepPolicy(max_count=2), checkpoints) == {2, 18, 19}
