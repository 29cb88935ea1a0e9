"""The trial ledger: bad states are walked past, poisoned steps given up, and none of it is forgotten."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chaos.seeded_entropy import SeededEntropy
from chaos.simulated_disk import SimulatedDisk
from chaos.stepped_clock import SteppedClock
from resilient.config import Origin, Shun
from resilient.host.world import World
from supervisor.verdict.classify import EXCEPTION, FAULT, KILLED, NUMERICAL, Incident
from supervisor.verdict.ledger import (
    LedgerDecision,
    Poison,
    TrialFile,
    TrialLedger,
    begin,
    failed,
    good,
    reopen,
)

ERROR = Incident(EXCEPTION, "ValueError: bad value 17", 1, step=24, phase="step")
AT_ONCE = Incident(FAULT, "it crashed: SIGSEGV", 139, at_start=True, step=24)


def fail(ledger, incident, attempt, poison=Poison.ROLLBACK):
    finding = failed(ledger, incident, attempt, poison)
    return finding, finding.ledger


def test_a_poisoned_step_is_given_up_at_the_third_attempt():
    """First it is tried again, then from an older state, and the third time is the end."""
    first, ledger = fail(TrialLedger(), ERROR, 1)
    assert (first.action, first.stop) == ("", "")
    second, ledger = fail(begin(ledger, 24, "memory"), replace(ERROR, at_start=True), 2)
    assert "step 25 has failed twice" in second.action
    assert ledger.origin.shunned == (Shun(24, 2),)
    third, _ = fail(good(begin(ledger, 20, "CKP-2_4.ckpt")), ERROR, 3)
    assert "step 25 has failed three times" in third.stop


@pytest.mark.parametrize("poison", Poison)
def test_a_script_that_fails_behind_its_training_is_no_poisoned_step(poison):
    """No state is gone back behind and no batch left out for it; the third time is the end all the same."""
    error = replace(ERROR, phase="script", at_start=True)
    ledger = TrialLedger()
    for attempt in (1, 2):
        finding, ledger = fail(begin(ledger, 24, "memory"), error, attempt, poison)
        assert (finding.action, finding.stop) == ("", "")
        assert ledger.origin == Origin()
    assert "the script after step 24 has failed three times" in fail(ledger, error, 3, poison)[0].stop


def test_numbers_in_an_error_make_no_difference():
    """An address or a value that differs from time to time is the same failure."""
    _, ledger = fail(TrialLedger(), ERROR, 1)
    again, _ = fail(ledger, replace(ERROR, cause="ValueError: bad value 18"), 2)
    assert again.action


def test_another_step_is_another_failure():
    """The same words somewhere else are no repetition: a run that gets on is not given up."""
    ledger = TrialLedger()
    for step in (3, 9, 12, 40):
        finding, ledger = fail(ledger, replace(ERROR, step=step), 1)
        assert (finding.action, finding.stop) == ("", "")


def test_the_step_that_follows_is_another_one():
    """A crash in the callbacks of a step, and the same crash in the step after it."""
    _, ledger = fail(TrialLedger(), replace(AT_ONCE, phase="callbacks", at_start=False), 1)
    finding, _ = fail(begin(ledger, 24, "memory"), replace(AT_ONCE, phase="compiling"), 2)
    assert (finding.action, finding.stop) == ("", "")


def test_the_policy_may_end_the_run_or_leave_the_batch_out():
    """--on-poison decides at the second failure."""
    _, ledger = fail(TrialLedger(), ERROR, 1)
    assert "--on-poison stop" in fail(ledger, ERROR, 2, Poison.STOP)[0].stop
    left_out, ledger = fail(ledger, ERROR, 2, Poison.SKIP_BATCH)
    assert "its batch is left out" in left_out.action
    assert ledger.origin == Origin(skipped=(25,))


def test_a_state_that_kills_its_resumer_twice_is_set_aside():
    """Two attempts that end on one state, however they end, and an older one is gone on from."""
    _, ledger = fail(begin(TrialLedger(), 24, "memory"), AT_ONCE, 5)
    assert ledger.origin == Origin()
    other = replace(AT_ONCE, cause="it crashed: SIGBUS")
    second, ledger = fail(begin(ledger, 24, "CKP-3_4.ckpt"), other, 6)
    assert "two attempts have ended on the state of step 24" in second.action
    assert ledger.origin.shunned == (Shun(24, 6),)


def test_the_same_end_on_two_states_is_not_the_states_fault():
    """A resume that fails whatever it goes on from is given up, before every checkpoint is set aside."""
    _, ledger = fail(begin(TrialLedger(), 24, "memory"), AT_ONCE, 2)
    _, ledger = fail(begin(ledger, 24, "memory"), AT_ONCE, 3)
    third, ledger = fail(begin(ledger, 20, "CKP-2_4.ckpt"), replace(AT_ONCE, step=20), 4)
    assert "from two different states" in third.stop


def test_a_completed_step_clears_a_state():
    """Ending once on a state, and getting on from it later, is nothing against it."""
    _, ledger = fail(begin(TrialLedger(), 24, "memory"), AT_ONCE, 2)
    ledger = good(begin(ledger, 24, "memory"))
    assert ledger.trial is None


@pytest.mark.parametrize("phase", ["beginning", "opening", "closing", "ending"])
@pytest.mark.parametrize("poison", Poison)
def test_an_exception_where_no_step_is_under_way_blames_no_step_and_no_state(phase, poison):
    """In hooks around a call or an epoch: another state, or another batch, would come to the same place."""
    failure = Incident(EXCEPTION, "TypeError: no begin", 1, at_start=True, step=24, phase=phase)
    ledger = TrialLedger()
    for attempt in (1, 2):
        finding = failed(begin(ledger, 24, "memory"), failure, attempt, poison)
        assert (finding.action, finding.stop) == ("", "")
        ledger = finding.ledger
    assert ledger.origin == Origin()
    stop = failed(begin(ledger, 24, "memory"), failure, 3, poison).stop
    assert stop == "the script after step 24 has failed three times in the same way"


def test_a_crash_where_no_step_is_under_way_leaves_no_batch_out():
    """The state is tried twice, as any other; the step after it never began."""
    crash = Incident(FAULT, "it crashed: SIGSEGV", 139, at_start=True, step=24, phase="script")
    first = failed(begin(TrialLedger(), 24, "memory"), crash, 1, Poison.SKIP_BATCH)
    second = failed(begin(first.ledger, 24, "memory"), crash, 2, Poison.SKIP_BATCH)
    assert second.ledger.origin.skipped == ()
    assert second.ledger.origin.shunned == (Shun(24, 2),)


def test_kills_from_outside_blame_nobody():
    """Preemptions, however many, set no state aside and poison no step."""
    ledger = TrialLedger()
    for attempt in range(20):
        killed = Incident(KILLED, "killed by SIGKILL", 137, at_start=True, step=24)
        finding, ledger = fail(begin(ledger, 24, "memory"), killed, attempt)
        assert (finding.action, finding.stop) == ("", "")
    assert ledger.origin == Origin()


def test_a_trial_that_took_the_supervisor_along_counts():
    """What was open when everything died has failed; the second time its state is set aside."""
    ledger = reopen(begin(TrialLedger(), 24, "CKP"), 1).ledger
    assert not ledger.origin.shunned
    assert reopen(TrialLedger(), 1) == LedgerDecision(TrialLedger())
    found = reopen(begin(ledger, 24, "CKP"), 2)
    assert found.ledger.origin.shunned == (Shun(24, 2),)
    assert "going back to an older state" in found.action


def test_a_loss_that_is_not_finite_goes_back_at_once_and_then_further():
    """To the newest state with a finite loss; when that leads there again, to one before it."""
    nan = Incident(NUMERICAL, "ValueError: loss is NAN", 1, step=25, phase="callbacks")
    first, ledger = fail(good(begin(TrialLedger(), 20, "CKP")), nan, 1)
    assert "the loss of step 25 was not finite" in first.action
    assert ledger.origin == Origin((Shun(25, 1),), finite=True)
    _, ledger = fail(good(begin(ledger, 24, "CKP")), nan, 2)
    assert ledger.origin.shunned[-1] == Shun(24, 2)
    third, _ = fail(good(begin(ledger, 20, "CKP")), nan, 3)
    assert third.stop


def test_an_origin_allows_what_was_made_again():
    """A state is known by its step and the attempt that made it; without a note of that it is an old one."""
    origin = Origin((Shun(24, 2),), finite=True)
    assert not origin.allows(24, {"attempt": 2})
    assert not origin.allows(30, {})
    assert origin.allows(24, {"attempt": 3, "loss": 0.5})
    assert origin.allows(23, {"attempt": 1})
    assert not origin.allows(23, {"attempt": 1, "loss": float("nan")})
    assert Origin.from_json(json.loads(json.dumps(origin.to_json()))) == origin


STEPS = st.integers(0, 4)
EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("begin"), STEPS),
        st.tuples(st.just("good"), STEPS),
        st.tuples(st.sampled_from([EXCEPTION, NUMERICAL, FAULT, KILLED]), STEPS),
    ),
    max_size=40,
)


@given(EVENTS, st.sampled_from(Poison))
def test_no_failure_is_repeated_for_ever(events, poison):
    """Of any history: the same failure at the same step never passes a third time in a row."""
    ledger, streak, last = TrialLedger(), 0, None
    for attempt, (what, step) in enumerate(events, 1):
        if what == "begin":
            ledger = begin(ledger, step, "CKP")
        elif what == "good":
            ledger = good(ledger)
        else:
            incident = Incident(what, what, 1, step=step)
            finding, ledger = fail(ledger, incident, attempt, poison)
            if what != KILLED:
                streak = streak + 1 if (what, step) == last else 1
                last = what, step
            assert bool(finding.stop) or streak < 3
            if finding.stop:
                return


def trial_file(disk, heard=None):
    world = World(files=disk, clock=SteppedClock(), entropy=SeededEntropy())
    return TrialFile(Path("/run"), world, (heard if heard is not None else []).append)


FULL = TrialLedger(
    trial=None,
    open=False,
    from_step=4,
    fingerprint=("fault", "it crashed", 139),
    failed_step=4,
    repeated=2,
    origin=Origin((Shun(4, 2),), True, (9,)),
)


@pytest.mark.parametrize("ledger", [TrialLedger(), FULL, begin(FULL, 3, "memory")])
def test_the_ledger_survives_on_disk(ledger):
    """What is written is read again, by another process."""
    disk = SimulatedDisk()
    disk.make_directory(trial_file(disk)._path.parent)
    trial_file(disk).write(ledger)
    assert trial_file(disk).read() == ledger


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"format": 2}', b'{"format": 1, "trial": 7}'])
def test_a_ledger_that_makes_no_sense_is_begun_anew(content, tmp_path):
    """It is advice, and no reason to refuse a run; it is said once."""
    heard = []
    file = TrialFile(tmp_path, World(), heard.append)
    (tmp_path / "trials.json").write_bytes(content)
    assert file.read() == file.read() == TrialLedger()
    assert len(heard) == 1


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(1, 6)), max_size=12))
def test_rules_that_say_nothing_new_are_not_kept(rules):
    """Whatever was shunned in whatever order: the same states are, by the fewest rules that say so."""
    origin = Origin()
    for step, attempt in rules:
        origin = origin.shunning(Shun(step, attempt))
    for step in range(8):
        for attempt in range(8):
            covered = any(Shun(*rule).covers(step, attempt) for rule in rules)
            assert origin.allows(step, {"attempt": attempt}) != covered
    kept = origin.shunned
    assert not any(a.includes(b) for a in kept for b in kept if a is not b)
