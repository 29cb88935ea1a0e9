"""What workers ask to have committed: answered whatever happens, and no key is ever told."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path

import pytest
from messages_said import saved
from played import OPENED, committed, is_pinned, mirror_with
from save_requests_bench import RUN, STORE, SaveRequestsBench
from slots import GCM, KEY, descriptors

from resilient.config import KeepPolicy, WorkerConfig
from resilient.errors import NonsenseError
from resilient.wire.messages import (
    CheckpointSaved,
    DropMirror,
    FirstStep,
    SaveDone,
    SaveFailed,
    SaverReady,
    SaveSlot,
    StoreOpened,
    TakeMirror,
    Warned,
)
from resilient.wire.packing import decode, encode

SECRETS = [KEY.hex(), str(KEY), base64.b64encode(KEY).decode()]


@pytest.fixture
def bench():
    made = SaveRequestsBench()
    yield made
    made.close()


@pytest.fixture
def ready(bench):
    bench.get_ready()
    return bench


def test_what_is_about_something_else_is_left_to_the_loop(bench):
    """It is not taken, and descriptors that came with it are closed."""
    before = descriptors()
    other = os.memfd_create("something")
    assert not bench.save_requests.hear(bench.worker, FirstStep(3), [other])
    assert descriptors() == before
    assert bench.said == []


def test_a_store_is_opened_as_the_worker_says(bench):
    """Directory, retention and sealing are the script's own; run and rank are the run's."""
    bench.ask(STORE)
    (config,) = bench.children.configs
    assert isinstance(config, WorkerConfig)
    assert (config.run_id, config.rank) == (RUN.run_id, RUN.rank)
    assert config.directory == Path("/run/there")
    assert (config.keep, config.sealing) == (KeepPolicy(max_count=3), GCM)
    assert bench.answers == []
    bench.answer(SaverReady(remarks=("set aside: one",)))
    assert bench.answers == [StoreOpened("")]
    assert bench.said == [(bench.worker, Warned("set aside: one"))]


def test_a_store_that_cannot_be_opened_is_the_worker_s_to_know(bench):
    """It hears the error, and can commit by itself."""
    bench.ask(STORE)
    bench.answer(SaverReady("locked"))
    assert bench.answers == [StoreOpened("locked")]


def test_a_save_is_told_to_the_loop_and_to_who_asked(ready):
    """The loop hears step, epoch, file, generation and seconds; the worker that it may go on."""
    ready.save(ready.slots[2])
    assert ready.save_requests.busy
    assert ready.asked == [3]
    ready.answer(committed(3, remarks=("meta.json is out of date",), generation=7))
    assert ready.said == [
        (ready.worker, saved(3, file="step_3.ckpt", generation=7)),
        (ready.worker, Warned("meta.json is out of date")),
    ]
    assert ready.answers == [SaveDone("")]
    assert not ready.save_requests.busy
    assert ready.settlings == 1


def test_a_save_that_fails_is_told_to_both(ready):
    """The loop journals the error, the worker hears it."""
    ready.save(ready.slots[2], reason="end")
    ready.answer(committed(3, error="disk full"))
    assert ready.said == [(ready.worker, SaveFailed(3, "disk full", "end"))]
    assert ready.answers == [SaveDone("disk full")]


def test_a_save_of_memory_that_comes_with_it_is_of_that_memory(ready):
    """What automatic parallel has put together is committed, not the rank's mirror; nothing of it stays."""
    before = descriptors()
    apart, slot = mirror_with(50)
    ready.save(slot, apart)
    message, (sent,) = ready.children.last.hear()
    assert message.slot.step == 50
    assert os.fstat(sent).st_ino == os.fstat(apart.memory.descriptor).st_ino
    os.close(sent)
    ready.answer(committed(50))
    apart.close()
    del apart
    assert descriptors() == before


def test_a_worker_that_dies_meanwhile_is_no_error(ready):
    """Its save is finished all the same, and told to the loop."""
    ready.save(ready.slots[2])
    ready.worker.die()
    ready.worker.finish()
    ready.answer(committed(3))
    assert ready.kinds() == [CheckpointSaved]


def test_no_key_is_ever_told(bench):
    """Neither what the loop journals nor what the worker hears has a trace of it, whatever goes wrong."""
    bench.ask(STORE)
    bench.answer(SaverReady("cannot"))
    for broken in ({"keep": "nonsense"}, {"sealing": {**WIRED["sealing"], "mode": 3}}):
        assert not bench.hand_over(heard({**WIRED, **broken}))
    bench.hand_over(heard({"type": "save", "slot": {}, "epoch": SECRETS[-1], "reason": "", "failure": True}))
    bench.children.broken = 1
    bench.ask(STORE)
    answers = bench.answers
    assert len(answers) == 5
    told = repr(bench.said) + repr(answers)
    assert not [secret for secret in SECRETS if secret in told]
    assert KEY.hex() not in repr(bench.children.configs)


WIRED = json.loads(encode(STORE))
SAVE = {"type": "save", "slot": {"number": 0, "sequence": 1, "step": 1}, "epoch": 1, "reason": "x"}
NONSENSE = [
    {"type": "store"},
    {**WIRED, "directory": 3},
    {**WIRED, "keep": [1, 2]},
    {**WIRED, "keep": None},
    {**WIRED, "keep": {**WIRED["keep"], "max_count": -3}},
    {**WIRED, "sealing": {"mode": "AES-GCM", "key": None, "old_keys": []}},
    {**WIRED, "sealing": {"mode": "AES-GCM", "key": "*", "old_keys": 3}},
    {"type": "save"},
    {**SAVE, "failure": False, "slot": {"number": 99, "sequence": 1, "step": 1}},
    {**SAVE, "failure": False, "slot": {"number": -1, "sequence": 1, "step": 1}},
    {**SAVE, "failure": False, "slot": {"number": "0", "sequence": 1, "step": 1}},
    {**SAVE, "failure": False, "epoch": None},
    {**SAVE, "failure": "no"},
]


def heard(content):
    """What the link makes of this JSON: a message, or the error."""
    try:
        return decode(json.dumps(content).encode())
    except NonsenseError as error:
        return error


@pytest.mark.parametrize("content", NONSENSE, ids=str)
@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_request_without_sense_is_answered_and_leaks_nothing(ready, content, count):
    """A worker that asks for nonsense hears so, because it waits; the supervisor lives on, nothing leaks."""
    mirror, _ = mirror_with(1)
    before = descriptors()
    ready.hand_over(heard(content), *[mirror] * count)
    assert descriptors() == before
    answer = {"store": StoreOpened, "save": SaveDone}[content["type"]]
    assert [(type(a), bool(a.error)) for a in ready.answers] == [(answer, True)]
    assert not ready.save_requests.busy
    assert ready.save_requests.kept_step == 3


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_mirror_is_the_memory_that_comes_with_the_message(ready, count):
    """One descriptor is kept, and no more; without any the mirror is what it was."""
    mirror, _ = mirror_with(1)
    before = len(descriptors())
    ready.ask(TakeMirror(), *[mirror] * count)
    assert ready.save_requests.kept_step == (1 if count else 3)
    assert len(descriptors()) <= before + 1
    assert ready.answers == []


def test_a_save_without_a_mirror_is_answered(bench):
    """There is nothing to commit: the worker hears so."""
    _, slot = mirror_with(1)
    bench.save(slot)
    (answer,) = bench.answers
    assert isinstance(answer, SaveDone)
    assert answer.error


def test_a_save_of_something_that_is_no_mirror_is_answered(ready):
    """Memory that makes no sense is closed, and not taken for the rank's mirror."""
    before = descriptors()
    other = os.memfd_create("something")
    os.ftruncate(other, 2**16)
    message = SaveSlot(ready.slots[2], 1, "x", failure=False)
    assert ready.save_requests.hear(ready.worker, message, [other])
    assert descriptors() == before
    assert [bool(answer.error) for answer in ready.answers] == [True]
    assert not ready.save_requests.busy


# Between two attempts


def test_the_next_attempt_gets_what_is_as_new_as_the_disk(ready):
    """Memory of the newest durable step, or of a later one, is offered; a dead worker's pins are gone."""
    ready.mirror.pin(ready.slots[0].number)
    for durable_step in (0, 2, 3):
        (offered,) = ready.save_requests.offer(ready.standing(durable_step))
        assert os.fstat(offered).st_ino == os.fstat(ready.mirror.memory.descriptor).st_ino
    assert not is_pinned(ready.mirror, ready.slots[0].number)
    assert ready.save_requests.pids == [ready.children.last.pid]


def test_what_is_being_committed_stays_pinned_for_the_next_attempt(ready):
    """It writes into the same memory while the last attempt's state is still on its way to the disk."""
    ready.save_requests.save_newer(ready.standing(0), "killed", failure=True)
    assert ready.save_requests.offer(ready.standing(0))
    assert is_pinned(ready.mirror, ready.slots[2].number)


def test_older_memory_is_not_offered(ready):
    """Where the disk is newer the memory is let go, and the saver with it: the next worker needs its lock."""
    before = len(descriptors())
    assert ready.save_requests.offer(ready.standing(4)) == []
    assert ready.save_requests.kept_step == 0
    assert ready.save_requests.pids == []
    assert ready.children.last.finished
    assert len(descriptors()) < before


def test_without_memory_there_is_nothing_to_offer(bench):
    """Also when a mirror was handed over in which nothing is complete."""
    assert bench.save_requests.offer(bench.standing(0)) == []
    empty, _ = mirror_with()
    bench.ask(TakeMirror(), empty)
    assert bench.save_requests.offer(bench.standing(0)) == []


def test_a_dead_worker_s_newest_step_is_saved_for_it(ready):
    """Only where the disk has an older one; it is told as nobody's."""
    ready.save_requests.save_newer(ready.standing(3), "killed", failure=True)
    assert not ready.save_requests.busy
    ready.save_requests.save_newer(ready.standing(2), "killed", failure=True)
    message, sent = ready.children.last.hear()
    for descriptor in sent:
        os.close(descriptor)
    assert (message.slot.step, message.reason, message.failure) == (3, "killed", True)
    assert message.hurry
    ready.answer(committed(3, epoch=2))
    ((worker, told),) = ready.said
    assert worker is None
    assert told == saved(3, file="step_3.ckpt", epoch=2, reason="killed")
    assert ready.answers == []


def test_what_is_being_saved_already_is_not_saved_again(ready):
    """The worker asked for it, and was killed."""
    ready.save(ready.slots[2])
    ready.save_requests.save_newer(ready.standing(0), "killed", failure=True)
    assert ready.asked == [3]
    ready.answer(committed(3))
    assert ready.asked == []
    assert ready.kinds() == [CheckpointSaved]


def test_who_goes_without_a_mirror_frees_the_lock(ready):
    """A worker that commits by itself from now on: the mirror is closed, and the saver let go."""
    ready.ask(DropMirror())
    assert ready.save_requests.kept_step == 0
    assert ready.save_requests.pids == []
    assert ready.children.last.finished


def test_a_saver_that_dies_is_noticed_through_the_selector(ready):
    """Its end wakes the loop; the commit is asked of another one."""
    ready.save(ready.slots[2])
    ready.children.last.die()
    ready.turn()
    assert len(ready.children.all) == 2
    ready.answer(OPENED)
    assert ready.asked == [3]
    ready.answer(committed(3))
    assert ready.kinds() == [CheckpointSaved]
    assert len(ready.selector.get_map()) == 2


def test_a_hung_disk_is_given_time_by_what_a_save_takes(ready):
    """Ten times the last save, and two minutes at least; the first one has its size to go by."""
    size_bytes = ready.save_requests.cost.state_bytes
    assert size_bytes > 0
    assert ready.save_requests.cost.patience_s == 120.0 + size_bytes / 5e6
    ready.save(ready.slots[2])
    ready.answer(committed(3, seconds=60.0))
    assert ready.save_requests.cost.patience_s == 600.0
