"""Real trainings, killed at random instants, and what the judge of it says about made-up ones."""

import contextlib
import itertools
import random
from dataclasses import replace

import pytest

from chaos import kills
from chaos.memory_group import memory_group, out_of_memory_kills
from chaos.victims import Victim
from chaos.witness import Death, RepeatedSteps, judge, parse
from resilient.host import kernel_log
from resilient.journal.events import AttemptJudged

STEPS = 3


def lines(text):
    return parse("".join(f"{line.strip()}\n" for line in text.split(",")))


def whole(pid, first=1, last=STEPS):
    return ",".join(f"{pid} begun {step},{pid} done {step}" for step in range(first, last + 1))


@pytest.mark.mindspore
@pytest.mark.campaign
@pytest.mark.timeout(600)
def test_no_kill_loses_a_completed_step(tmp_path, capsys):
    """Twenty kills at random instants, of the worker, the saver, the supervisor or all: the same result."""
    campaign = kills.Campaign(tmp_path, seed=4)
    campaign.carry_out(20, jobs=2, say=print)
    print(*kills.summary(campaign.reports), sep="\n")
    assert not campaign.failed, capsys.readouterr().out
    assert campaign.struck >= 20


@pytest.mark.mindspore
def test_a_worker_that_is_killed_for_its_memory_loses_no_completed_step(tmp_path):
    """The kernel kills it at the limit of its control group: the run ends as one that was left alone."""
    with contextlib.ExitStack() as stack:
        try:
            group = stack.enter_context(memory_group(512 * 1024 * 1024))
        except OSError as error:
            pytest.skip(f"no control group can be made here: {error}")
        arguments = ("--memory-group", str(group), "--hog", "100")
        shape = replace(kills.shape_of(0), arguments=arguments)
        victim = Victim(tmp_path / "run", shape)
        stack.callback(victim.clear_away)
        victim.start()
        victim.wait_until_gone()
        assert out_of_memory_kills(group) == 1
    written = victim.lines()
    _, second = dict.fromkeys(line.pid for line in written)
    death = Death(next(number for number, line in enumerate(written) if line.pid == second))
    account = judge(written, [death], shape.steps)
    assert account.errors == ()
    print("run again because its copy was in progress:", account.in_copy)
    assert victim.status() == 0
    # The group is not the supervisor's: it knows from the kernel's log alone.
    kind = "out of memory" if kernel_log.readable() else "killed"
    assert victim.events(AttemptJudged)[0].kind == kind
    assert victim.result() == kills.undisturbed(tmp_path / "undisturbed", shape)


@pytest.mark.parametrize(
    ("text", "deaths", "in_copy"),
    [
        (whole(1), [], 0),
        (f"1 begun 1,1 done 1,{whole(2, 2)}", [Death(2)], 0),
        (f"1 begun 1,1 done 1,{whole(2, 1)}", [Death(2)], 1),
        (f"1 begun 1,1 done 1,1 begun 2,{whole(2, 2)}", [Death(3), Death(3)], 0),
        (f"{whole(1)},{whole(2, 3)}", [Death(6)], 1),
    ],
)
def test_what_a_kill_may_cost(text, deaths, in_copy):
    """Nothing; or the last completed step once more, if its copy may have been in progress."""
    assert judge(lines(text), deaths, STEPS) == RepeatedSteps(in_copy, 0, ())


@pytest.mark.parametrize(
    ("text", "deaths"),
    [
        (f"1 begun 1,1 done 1,1 begun 2,{whole(2, 1)}", [Death(3)]),  # step 1 was safe
        (f"{whole(1, 1, 2)},{whole(2, 1)}", [Death(4)]),  # two steps back
        (f"1 begun 1,1 done 1,{whole(2, 1)}", [Death(2, copies=False)]),  # the worker could end by itself
        (f"1 begun 1,1 done 1,{whole(2, 2)}", []),  # nobody killed it
        (f"1 begun 1,{whole(2, 2)}", [Death(1)]),  # step 1 was left out
        (f"{whole(1, 1, 2)},{whole(2, 2)}", [Death(4, durable_step=2)]),  # step 2 was durable
        ("1 begun 1,1 done 1,1 begun 3,1 done 3", []),
        (whole(1, 1, 2), []),  # the end is missing
    ],
)
def test_what_a_kill_must_not_cost(text, deaths):
    """The judge sees a completed step that was run again, and a step that never ran."""
    assert judge(lines(text), deaths, STEPS).errors


def test_after_the_death_of_everything_the_durable_step_counts():
    """Then the steps since the last durable checkpoint may be run again, and they are counted."""
    text = lines(f"{whole(1, 1, 2)},{whole(2, 2)}")
    assert judge(text, [Death(4, durable_step=1)], STEPS) == RepeatedSteps(0, 1, ())


@pytest.mark.parametrize("durable_step", [None, 2])
def test_a_state_that_was_set_aside_is_not_resumed_from(durable_step):
    """The journal says so. Each time it does, the run may resume further back, and no more often."""
    text = lines(f"{whole(1, 1, 2)},{whole(2, 1)}")
    deaths = [Death(4, durable_step)]
    assert judge(text, deaths, STEPS, states_set_aside=1) == RepeatedSteps(0, 0, (), set_aside=2)
    twice = lines(f"{whole(1, 1, 2)},{whole(2, 1, 2)},{whole(3, 1)}")
    assert len(judge(twice, [*deaths, Death(8, durable_step)], STEPS, states_set_aside=1).errors) == 1


def test_a_plan_never_kills_two_starts_in_a_row():
    """A run that fails twice before its first step is given up: the plan must not ask for that."""
    for seed in range(200):
        planned = kills.plan(random.Random(seed), kills.KILLS_PER_RUN)
        starts = [kill.start is not None for kill in planned]
        assert not any(one and next_one for one, next_one in itertools.pairwise(starts))
        assert [kill.step for kill in planned] == sorted({kill.step for kill in planned})
