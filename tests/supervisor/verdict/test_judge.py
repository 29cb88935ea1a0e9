"""The judge: what it remembers of a run, and what it keeps on disk for the next supervisor."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from messages_said import raised, resumed, saved

from chaos.disk_state import after_power_loss
from chaos.seeded_entropy import SeededEntropy
from chaos.simulated_disk import SimulatedDisk
from chaos.stepped_clock import SteppedClock
from resilient.config import Origin, Shun
from resilient.host.world import World
from resilient.wire.messages import Hello, NothingOlder, PlaceOpened, Resuming, ScriptEnded
from supervisor.edges.journal_writer import JournalWriter
from supervisor.group.last_words import LastWords
from supervisor.verdict.classify import EXCEPTION, FINISHED, MISMATCH, NOTHING_OLDER, Evidence
from supervisor.verdict.judge import Judge
from supervisor.verdict.ledger import Poison, TrialFile, TrialLedger
from supervisor.verdict.restart import RestartPolicy

RUN = Path("/run")
HELLO = LastWords((Hello(1),))
DONE = ScriptEnded(complete=True, status=0)


def failed(step, message="bad", **more):
    """An attempt that an exception ended after this step."""
    told = HELLO.plus(raised(step, message=message, **more))
    return Evidence(1, told, progressed=True, step=step, phase="step")


class Bench:
    """A judge over a simulated disk, and its journal."""

    def __init__(self, folder, disk=None, poison=Poison.ROLLBACK):
        self.disk = disk or SimulatedDisk()
        self.disk.make_directory(RUN)
        world = World(files=self.disk, clock=SteppedClock(), entropy=SeededEntropy())
        self.complaints = []
        self.path = folder / "journal.jsonl"
        journal = JournalWriter(self.path, world.clock, self.complaints.append)
        self.file = TrialFile(RUN, world, self.complaints.append)
        self.judge = Judge(RestartPolicy(poison=poison), self.file, journal, world)

    def note(self, message, alive=True):
        self.judge.note(message, alive=alive)

    def fail(self, attempt, evidence, stopping=False):
        """One attempt from its launch to its judgment."""
        self.judge.begin(attempt)
        self.judge.judge(evidence, stopping=stopping)
        return self.judge.verdict

    def events(self, name):
        lines = map(json.loads, self.path.read_text().splitlines())
        return [event for event in lines if event["event"] == name]


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path)


def poisoned(bench):
    """Twice the same at step 25, with a checkpoint of step 24: an older state is to be gone on from."""
    bench.note(saved(24))
    bench.fail(1, failed(24))
    bench.note(Resuming(24, "memory"))
    bench.fail(2, failed(24))


def test_after_a_rollback_what_is_newer_on_disk_counts_for_nothing(bench):
    """Else the steps that are computed again would not be saved, because a spoilt state had their number."""
    poisoned(bench)
    assert bench.judge.origin == Origin((Shun(24, 2),))
    bench.judge.begin(3)
    bench.note(resumed(20))
    assert bench.judge.durable_step == 20
    bench.note(saved(24), alive=False)
    assert bench.judge.durable_step == 20
    bench.note(saved(22))
    assert bench.judge.durable_step == 22


def test_what_is_damaged_on_disk_counts_for_nothing(bench):
    """The worker has fallen back to an older checkpoint: what it computes again is to be saved again."""
    bench.note(saved(24))
    bench.note(resumed(20, "CKP-2_4.ckpt"))
    assert bench.judge.durable_step == 20


def test_what_was_resumed_from_memory_is_not_on_disk_by_that(bench):
    """Else it would not be saved when the worker dies, and be told as safe: its commit may have failed."""
    bench.note(resumed(24, "memory"))
    assert bench.judge.durable_step == 0
    bench.note(saved(24))
    bench.note(resumed(24, "memory"))
    assert bench.judge.durable_step == 24


def test_memory_that_was_set_aside_is_not_offered(bench):
    """The mirror holds the very state that has failed; an older one in it would be good."""
    poisoned(bench)
    assert not bench.judge.standing(24).usable
    assert bench.judge.standing(23).usable


def test_memory_is_not_gone_on_from_after_a_loss_that_was_not_finite(bench):
    """What the slot's loss was is not known here: the worker reads the manifests instead."""
    bench.fail(1, failed(25, "loss is NAN", loss_finite=False))
    assert not bench.judge.standing(3).usable
    assert bench.judge.origin.finite


NONE_OLDER = Evidence(1, HELLO.plus(NothingOlder("set aside")))


def test_where_nothing_is_older_the_same_state_is_tried_again(bench):
    """A failure that came twice may still pass: the third time is the end, as with an older state."""
    poisoned(bench)
    verdict = bench.fail(3, NONE_OLDER)
    assert verdict.delay_s is not None
    assert verdict.action == "there is no older state: the same one is tried again"
    assert bench.judge.origin == Origin(), "the next worker may read the state"
    assert bench.judge.standing(24).usable
    verdict = bench.fail(4, failed(24))
    assert verdict.delay_s is None
    assert verdict.reason == "step 25 has failed three times in the same way"


def test_where_nothing_is_older_than_a_spoilt_loss_that_is_the_cause(bench):
    """The last words are about what went wrong, not about what cannot be done; the status is the script's."""
    bench.fail(1, failed(25, "loss is NAN", loss_finite=False))
    verdict = bench.fail(2, NONE_OLDER)
    incident = bench.judge.incident
    assert (verdict.delay_s, incident.kind, incident.status) == (None, NOTHING_OLDER, 1)
    assert incident.cause == "ValueError: loss is NAN"
    assert (
        verdict.reason
        == "the loss of step 26 was not finite: going back to an older state, and there is none"
    )


def test_who_gives_up_forgets_what_was_set_aside(bench):
    """The person who has removed the cause goes on from the newest state."""
    poisoned(bench)
    assert bench.file.read().origin.shunned
    assert bench.fail(3, failed(24)).delay_s is None
    assert bench.file.read() == TrialLedger()
    assert bench.judge.origin == Origin()


def test_a_loss_that_was_not_finite_is_not_forgotten(bench):
    """A state that is spoilt stays so, whoever starts the run again."""
    nan = failed(25, "loss is NAN", loss_finite=False)
    bench.fail(1, nan)
    bench.fail(2, nan)
    assert bench.fail(3, nan).delay_s is None
    assert bench.file.read() == TrialLedger(origin=Origin(finite=True))


def test_a_trial_is_on_disk_before_the_state_is_read(tmp_path):
    """The machine goes down twice while a state is gone on from: the third supervisor knows."""
    disk = None
    for attempt in (1, 2):
        bench = Bench(tmp_path, disk)
        bench.judge.open(attempt - 1)
        bench.judge.begin(attempt)
        bench.note(Resuming(24, "CKP-3_4.ckpt"))
        # Of what was not synced nothing is left.
        disk = SimulatedDisk(after_power_loss(bench.disk.state(), lambda outcomes: 0))
    bench = Bench(tmp_path, disk)
    assert "two attempts have ended on the state of step 24" in bench.judge.open(2)
    assert bench.judge.origin.shunned == (Shun(24, 2),)
    assert bench.events("shunned")[-1]["step"] == 24


def test_a_stop_is_judged_and_followed_by_nothing(bench):
    """However it ended: who asked for a stop gets no other attempt."""
    assert bench.fail(1, failed(3), stopping=True).delay_s is None
    assert bench.judge.incident.kind == EXCEPTION


def test_a_stop_keeps_what_was_set_aside(bench, tmp_path):
    """Nobody has removed a cause: the same command must not go on from the poisoned state again."""
    poisoned(bench)
    before = bench.judge.origin
    bench.note(Resuming(20, "CKP-2_4.ckpt"))
    bench.fail(3, Evidence(-15, HELLO, frozenset({15})), stopping=True)
    assert bench.judge.origin == before
    later = Bench(tmp_path, bench.disk)
    assert later.judge.open(3) == ""
    assert later.judge.origin == before == Origin((Shun(24, 2),))
    assert not later.file.read().open


def test_a_stop_that_the_kernel_holds_up_keeps_it_too(bench):
    """A process that cannot be killed ends the run; asked to stop is asked to stop."""
    poisoned(bench)
    bench.fail(3, Evidence(-9, HELLO, frozenset({9})), stopping=True)
    bench.judge.give_up("the kernel holds one of its processes")
    assert bench.file.read().origin.shunned


def test_a_trial_that_a_stop_cuts_short_is_no_failure(bench, tmp_path):
    """However often a run is stopped while it resumes: its state is not set aside for that."""
    disk = bench.disk
    for attempt in range(1, 5):
        stopped = Bench(tmp_path, disk)
        stopped.judge.open(attempt - 1)
        stopped.note(Resuming(24, "CKP-3_4.ckpt"))
        stopped.fail(attempt, Evidence(-15, HELLO, frozenset({15})), stopping=True)
        assert stopped.judge.origin == Origin()


def test_a_script_that_ends_without_its_last_state_on_disk_keeps_it(bench):
    """The same command goes on, and not from what was set aside."""
    poisoned(bench)
    bench.fail(3, Evidence(0, HELLO.plus(DONE)))
    assert bench.file.read().origin.shunned


def test_a_judgment_is_journalled_whole(bench):
    """What `resilient explain` tells: the cause, what it rests on, and what was decided."""
    bench.note(saved(20))
    bench.fail(4, failed(24))
    bench.judge.journal(bench.judge.standing(24))
    event = bench.events("incident_judged")[0]
    wanted = {
        "attempt": 4,
        "kind": "exception",
        "step": 24,
        "phase": "step",
        "saved_step": 20,
        "kept_step": 24,
    }
    assert {name: event[name] for name in wanted} == wanted
    assert event["evidence"] == ["the exception left the script"]
    assert event["restart_in_s"] >= 0
    assert event["reason"] == "restart 1 of 10"


PLACED = HELLO.plus(PlaceOpened("/run"))


def left(bench, phase, attempt=1):
    """An attempt that is killed in this phase of its training."""
    bench.fail(attempt, Evidence(-9, PLACED, progressed=True, step=3, phase=phase))


@pytest.mark.parametrize(
    "phase", ["data", "step", "callbacks", "between", "busy", "beginning", "opening", "closing", "ending"]
)
def test_a_script_that_leaves_its_training_undone_is_not_complete(bench, tmp_path, phase):
    """It ends with status 0 and has trained nothing, whoever supervises it then, until it has trained."""
    left(bench, phase)
    again = Bench(tmp_path, disk=bench.disk)
    again.judge.open(1)
    for attempt in (2, 3):
        again.fail(attempt, Evidence(0, HELLO.plus(DONE)))
        assert again.judge.incident.kind == MISMATCH
        assert "--fresh --archive" in again.judge.incident.hint
    again.fail(4, Evidence(0, PLACED.plus(DONE)))
    assert again.judge.incident.kind == FINISHED
    again.fail(5, Evidence(0, HELLO.plus(DONE)))
    assert again.judge.incident.kind == FINISHED


def test_a_script_that_dies_behind_its_training_may_know_what_is_done(bench):
    """It finds its own result, and has nothing left to train."""
    left(bench, "script")
    bench.fail(2, Evidence(0, HELLO.plus(DONE)))
    assert bench.judge.incident.kind == FINISHED
