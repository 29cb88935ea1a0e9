"""The supervisor's saver: whatever becomes of its child, each commit is answered, once."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from played import OPENED, Children, asked_steps, committed, is_pinned, mirror_with
from slots import config_of, descriptors, write

from supervisor.saver import Save, Saver

CONFIG = config_of(Path("/run"))
OTHER = config_of(Path("/other"))


class Bench:
    """A saver, its children, and what it tells. ``told`` are (step, file or error)."""

    def __init__(self):
        self.children = Children()
        self.watched = []
        self.told = []
        self.settlings = 0
        self.openings = []
        self.saver = Saver(self.children.spawn, self)

    # The saver's ears

    def watch(self, child):
        self.watched.append(child)

    def unwatch(self, child):
        self.watched.remove(child)

    def saved(self, outcome):
        self.told.append((outcome.save.slot.step, outcome.error or outcome.file))

    def settled(self):
        assert not self.saver.busy
        self.settlings += 1

    # What the loop does, and what a worker asks for

    def open(self, config=CONFIG):
        self.saver.open(config, lambda error, remarks: self.openings.append(error or list(remarks)))

    def opened(self, config=CONFIG):
        """Opens a store, and its child answers."""
        self.open(config)
        self.answer(OPENED)
        return self

    def answer(self, message):
        self.children.last.say(message)
        self.saver.on_message()

    def die(self):
        """The child dies, and the loop hears of it as it does: of the link, or of the end, first."""
        child = self.children.last
        child.die()
        self.saver.on_message()
        self.saver.on_end()

    def hold(self, mirror):
        self.saver.hold(os.dup(mirror.memory.descriptor))
        return self.saver.mirror

    def commit(self, mirror, slot, **why):
        self.saver.commit(Save(mirror, slot, 1, **{"reason": "schedule", "failure": False, **why}))

    @property
    def asked(self):
        return asked_steps(self.children.last)


@pytest.fixture
def bench():
    made = Bench()
    yield made
    made.saver.close()
    made.children.clear_away()


@pytest.fixture
def held(bench):
    """A saver with its store open, and a mirror that holds the steps 1, 2 and 3 in its three slots."""
    bench.opened()
    bench.mirror, _ = mirror_with()
    bench.hold(bench.mirror)
    bench.slots = [write(bench.mirror, step) for step in (1, 2, 3)]
    assert bench.asked == []
    return bench


# Opening


def test_a_store_is_opened_by_a_child(bench):
    """The child gets the configuration and is asked to open; what it found on the way is told."""
    bench.open()
    assert bench.children.configs == [CONFIG]
    assert bench.watched == [bench.children.last]
    assert bench.children.last.hear() == ({"type": "open"}, [])
    assert bench.openings == []
    bench.answer({**OPENED, "remarks": ["set aside: one"]})
    assert bench.openings == [["set aside: one"]]
    assert bench.saver.pids == [bench.children.last.pid]


def test_a_store_that_is_open_is_not_opened_again(bench):
    """The next attempt asks for the same store: its answer is there already, and so is the child."""
    bench.opened()
    bench.open()
    assert bench.openings == [[], []]
    assert len(bench.children.all) == 1


def test_a_store_that_cannot_be_opened_is_told_and_its_child_let_go(bench):
    """Another process has the lock, or the disk is read-only: the worker hears it, and can do without."""
    bench.open()
    bench.answer({**OPENED, "error": "locked by another process"})
    assert bench.openings == ["locked by another process"]
    assert bench.children.last.finished
    assert bench.watched == []
    assert bench.saver.pids == []


def test_another_store_gets_another_child(bench):
    """A child serves one store; the first one leaves when it is let go."""
    bench.opened()
    bench.opened(OTHER)
    assert bench.children.configs == [CONFIG, OTHER]
    assert bench.children.all[0].finished
    assert bench.openings == [[], []]


def test_another_store_waits_until_nothing_is_being_saved(held):
    """What is being committed is for the store it was asked for; then the other one is opened."""
    held.commit(held.saver.mirror, held.slots[0])
    held.open(OTHER)
    assert held.children.configs == [CONFIG]
    held.answer(committed(1))
    assert held.told == [(1, "step_1.ckpt")]
    assert held.children.configs == [CONFIG, OTHER]
    held.answer(OPENED)
    assert held.openings == [[], []]


# Committing


def test_a_slot_is_committed(held):
    """The child gets the slot and the memory; the answer is told, and the slot is free again."""
    slot = held.slots[0]
    held.commit(held.saver.mirror, slot)
    assert held.saver.busy
    assert is_pinned(held.mirror, slot.number)
    message, (descriptor,) = held.children.last.hear()
    assert message == {
        "type": "commit",
        **slot.to_message(),
        "reason": "schedule",
        "failure": False,
        "hurry": True,
    }
    assert os.fstat(descriptor).st_ino == os.fstat(held.mirror.memory.descriptor).st_ino
    os.close(descriptor)
    held.answer(committed(1))
    assert held.told == [(1, "step_1.ckpt")]
    assert not is_pinned(held.mirror, slot.number)
    assert not held.saver.busy
    assert held.settlings == 1


def test_a_commit_that_fails_is_told(held):
    """The error is the outcome; the child lives on."""
    held.commit(held.saver.mirror, held.slots[0])
    held.answer(committed(1, error="disk full"))
    assert held.told == [(1, "disk full")]
    assert not is_pinned(held.mirror, held.slots[0].number)
    assert not held.children.last.finished


def test_one_commit_is_under_way_and_the_newest_waits(held):
    """What came between is told as replaced at once; its slot is free, those of the others are not."""
    for slot in held.slots:
        held.commit(held.saver.mirror, slot)
    assert held.told == [(2, "a newer state has taken its place")]
    assert held.asked == [1]
    assert [is_pinned(held.mirror, slot.number) for slot in held.slots] == [True, False, True]
    held.answer(committed(1))
    assert held.asked == [3]
    assert held.settlings == 0
    held.answer(committed(3))
    assert [step for step, _ in held.told] == [2, 1, 3]
    assert not any(is_pinned(held.mirror, slot.number) for slot in held.slots)
    assert held.settlings == 1


@pytest.mark.parametrize("again", [0, 1])
def test_a_slot_that_is_asked_for_twice_stays_pinned(held, again):
    """A request that is replaced lets go of its slot only where no other request is about the same one."""
    held.commit(held.saver.mirror, held.slots[0])
    held.commit(held.saver.mirror, held.slots[again])
    held.commit(held.saver.mirror, held.slots[1])
    assert is_pinned(held.mirror, held.slots[0].number)
    assert is_pinned(held.mirror, held.slots[1].number)
    held.answer(committed(1))
    assert is_pinned(held.mirror, held.slots[1].number)
    held.answer(committed(2))
    assert not any(is_pinned(held.mirror, slot.number) for slot in held.slots)


def test_a_commit_before_the_store_is_open_waits_for_it(bench):
    """It is sent once the child is ready."""
    mirror, slot = mirror_with(1)
    bench.open()
    bench.commit(bench.hold(mirror), slot)
    assert bench.asked == []
    bench.answer(OPENED)
    assert bench.asked == [1]


def test_a_commit_without_a_store_is_an_error(bench):
    """Nobody has said where checkpoints go: that is told, and nothing is left pinned."""
    mirror, slot = mirror_with(1)
    bench.commit(bench.hold(mirror), slot)
    assert [step for step, _ in bench.told] == [1]
    assert "no store" in bench.told[0][1]
    assert not is_pinned(mirror, slot.number)
    assert not bench.saver.busy


def test_a_commit_after_a_store_that_could_not_be_opened_tries_it_again(bench):
    """The disk may be back: a new child is started for it."""
    mirror, slot = mirror_with(1)
    bench.open()
    bench.answer({**OPENED, "error": "read-only"})
    bench.commit(bench.hold(mirror), slot)
    assert len(bench.children.all) == 2
    bench.answer(OPENED)
    assert bench.asked == [1]
    bench.answer(committed(1))
    assert bench.told == [(1, "step_1.ckpt")]


def test_a_store_that_cannot_be_opened_again_fails_what_waits_for_it(bench):
    """Both the commit under way and the one that waits are told, each once."""
    mirror, first = mirror_with(1)
    second = write(mirror, 2)
    bench.open()
    bench.commit(bench.hold(mirror), first)
    bench.commit(bench.saver.mirror, second)
    bench.answer({**OPENED, "error": "locked"})
    assert bench.openings == ["locked"]
    assert bench.told == [(1, "locked")]
    bench.answer({**OPENED, "error": "locked"})
    assert bench.told == [(1, "locked"), (2, "locked")]
    assert not bench.saver.busy
    assert bench.settlings == 1


# Deaths


def test_a_child_that_dies_idle_is_missed_when_it_is_needed(held):
    """Nothing is started for nothing; the next commit has a new child open the store, and commit."""
    held.die()
    assert held.saver.pids == []
    assert held.watched == []
    assert len(held.children.all) == 1
    held.commit(held.saver.mirror, held.slots[0])
    assert len(held.children.all) == 2
    held.answer(OPENED)
    assert held.asked == [1]
    held.answer(committed(1))
    assert held.told == [(1, "step_1.ckpt")]


def test_a_child_that_dies_while_opening_is_replaced(bench):
    """The worker waits on, and hears of the second one's success."""
    bench.open()
    bench.die()
    assert bench.openings == []
    assert len(bench.children.all) == 2
    bench.answer(OPENED)
    assert bench.openings == [[]]


def test_a_child_that_dies_while_committing_is_replaced_and_asked_again(held):
    """The slot stays pinned meanwhile; it is the same request."""
    held.commit(held.saver.mirror, held.slots[0])
    assert held.asked == [1]
    held.die()
    assert held.told == []
    assert is_pinned(held.mirror, held.slots[0].number)
    held.answer(OPENED)
    assert held.asked == [1]
    held.answer(committed(1))
    assert held.told == [(1, "step_1.ckpt")]
    assert held.openings == [[]]


def test_after_three_deaths_a_commit_has_failed(held):
    """It is told; what waits is tried with a fresh count, and the run goes on."""
    held.commit(held.saver.mirror, held.slots[0])
    held.commit(held.saver.mirror, held.slots[1])
    for _ in range(3):
        assert held.told == []
        held.die()
    assert held.told == [(1, "the saver died 3 times")]
    assert not is_pinned(held.mirror, held.slots[0].number)
    held.die()
    held.die()
    held.answer(OPENED)
    assert held.asked == [2]
    held.answer(committed(2))
    assert held.told[1:] == [(2, "step_2.ckpt")]


def test_after_three_deaths_a_store_cannot_be_opened(bench):
    """The worker hears of it and does without; no fourth child is started."""
    bench.open()
    for _ in range(3):
        bench.die()
    assert bench.openings == ["the saver died 3 times"]
    assert len(bench.children.all) == 3
    assert bench.watched == []


@pytest.mark.parametrize("error", ["", "disk full"])
def test_what_a_child_said_just_before_its_death_counts(held, error):
    """A commit that was answered is not asked for twice."""
    held.commit(held.saver.mirror, held.slots[0])
    child = held.children.last
    child.say(committed(1, error))
    child.die()
    held.saver.on_end()
    assert held.told == [(1, error or "step_1.ckpt")]
    assert len(held.children.all) == 1
    assert not held.saver.busy


def test_an_answer_just_before_a_death_leaves_what_waits_to_the_next_child(held):
    """The first commit is told once, the second is asked of a new child."""
    held.commit(held.saver.mirror, held.slots[0])
    held.commit(held.saver.mirror, held.slots[1])
    child = held.children.last
    child.say(committed(1))
    child.die()
    held.saver.on_end()
    assert held.told == [(1, "step_1.ckpt")]
    assert len(held.children.all) == 2
    held.answer(OPENED)
    assert held.asked == [2]


def test_an_answer_just_before_a_death_opens_the_next_store_once(held):
    """The child for the other store has not died: no second one is started beside it."""
    held.commit(held.saver.mirror, held.slots[0])
    held.open(OTHER)
    child = held.children.last
    child.say(committed(1))
    child.die()
    held.saver.on_end()
    assert held.children.configs == [CONFIG, OTHER]
    assert held.watched == [held.children.last]
    held.answer(OPENED)
    assert held.openings == [[], []]


def test_an_opening_that_fails_just_before_a_death_is_told_once(bench):
    """The error counts; nothing is tried again on account of the death."""
    bench.open()
    child = bench.children.last
    child.say({**OPENED, "error": "locked"})
    child.die()
    bench.saver.on_end()
    assert bench.openings == ["locked"]
    assert len(bench.children.all) == 1


def test_a_child_that_talks_nonsense_is_ended_and_replaced(held):
    """What cannot be understood is no answer: the child is killed, and its successor asked."""
    held.commit(held.saver.mirror, held.slots[0])
    child = held.children.last
    child.other._socket.send(b"no json")
    held.saver.on_message()
    assert child.signals == [signal.SIGKILL]
    held.die()
    held.answer(OPENED)
    assert held.asked == [1]


def test_the_end_of_a_child_that_is_no_longer_ours_is_nothing(held):
    """The loop may still hear of one that was let go."""
    held.saver.close()
    held.saver.on_end()
    assert len(held.children.all) == 1


# Children that cannot be started


def test_a_child_that_cannot_be_started_fails_the_opening(bench):
    """The operating system's reason is told."""
    bench.children.broken = 1
    bench.open()
    assert "cannot be started" in bench.openings[0]
    assert "temporarily unavailable" in bench.openings[0]


def test_a_child_that_cannot_be_started_fails_the_commit_and_no_more(held):
    """What waits fails as well if it must; the next commit tries anew."""
    held.die()
    held.children.broken = 1
    held.commit(held.saver.mirror, held.slots[0])
    assert "cannot be started" in held.told[0][1]
    assert not held.saver.busy
    held.commit(held.saver.mirror, held.slots[1])
    held.answer(OPENED)
    assert held.asked == [2]


def test_a_successor_that_cannot_be_started_fails_all_that_was_asked(held):
    """The commit under way and the one that waits are told, and nothing is busy any more."""
    held.commit(held.saver.mirror, held.slots[0])
    held.commit(held.saver.mirror, held.slots[1])
    held.children.broken = 2
    held.die()
    assert [step for step, _ in held.told] == [1, 2]
    assert not held.saver.busy
    assert not any(is_pinned(held.mirror, slot.number) for slot in held.slots)


# Memory


def test_the_mirror_s_newest_step_is_known(bench):
    """What is in memory is read from memory; without a mirror there is nothing."""
    assert bench.saver.kept_step == 0
    mirror, _ = mirror_with(1, 2)
    bench.hold(mirror)
    assert bench.saver.kept_step == 2
    write(mirror, 3)
    assert bench.saver.kept_step == 3
    bench.saver.let_mirror_go()
    assert bench.saver.kept_step == 0


def test_a_mirror_that_is_replaced_is_closed(bench):
    """No descriptor of it stays, however often workers bring another one."""
    mirror, _ = mirror_with(1)
    before = descriptors()
    bench.hold(mirror)
    one = descriptors()
    for _ in range(5):
        bench.hold(mirror)
        assert descriptors() == one or len(descriptors()) == len(one)
    bench.saver.let_mirror_go()
    assert descriptors() == before


def test_a_mirror_that_is_being_committed_stays_until_then(held):
    """Replaced, or let go: its memory is there for the child until the last commit of it is answered."""
    old = held.saver.mirror
    held.commit(old, held.slots[0])
    held.commit(old, held.slots[1])
    new, _ = mirror_with(9)
    held.hold(new)
    assert old.memory.descriptor >= 0
    held.answer(committed(1))
    assert old.memory.descriptor >= 0
    assert held.asked == [1, 2]
    before = len(descriptors())
    held.answer(committed(2))
    assert old.memory.descriptor == -1
    del old
    # Its own, and its mapping's.
    assert len(descriptors()) == before - 2


def test_memory_that_came_with_a_request_is_closed_when_it_is_answered(held):
    """What automatic parallel has put together is no mirror of the rank's: it goes with its commit."""
    before = descriptors()
    mirror, slot = mirror_with(7)
    held.commit(mirror, slot)
    held.asked  # noqa: B018 - closes the descriptor that was sent
    held.answer(committed(7))
    del mirror
    assert descriptors() == before


def test_memory_of_a_request_that_was_replaced_is_closed(held):
    """Also when it was never committed."""
    held.commit(held.saver.mirror, held.slots[0])
    assert held.asked == [1]
    before = descriptors()
    mirror, slot = mirror_with(7)
    held.commit(mirror, slot)
    held.commit(held.saver.mirror, held.slots[1])
    assert mirror.memory.descriptor == -1
    del mirror
    assert descriptors() == before


@pytest.mark.parametrize("kind", ["zeros", "empty", "pipe", "closed"])
def test_what_is_no_mirror_is_not_held(bench, kind):
    """A descriptor of something else is closed; the mirror that was there stays."""
    mirror, _ = mirror_with(1)
    bench.hold(mirror)
    before = descriptors()
    if kind == "pipe":
        descriptor, writing = os.pipe()
        os.close(writing)
    elif kind == "closed":
        descriptor = 10**6
    else:
        descriptor = os.memfd_create("something")
        os.ftruncate(descriptor, 0 if kind == "empty" else 2**16)
    bench.saver.hold(descriptor)
    assert descriptors() == before
    assert bench.saver.kept_step == 1


def test_only_what_is_newer_and_not_being_saved_is_left_to_save(held):
    """A dead worker's newest step is saved for it, unless that is under way or done."""
    assert held.saver.newer_than(2) == held.slots[2]
    assert held.saver.newer_than(3) is None
    held.commit(held.saver.mirror, held.slots[0])
    assert held.saver.newer_than(2) == held.slots[2]
    held.commit(held.saver.mirror, held.slots[2])
    assert held.saver.newer_than(0) is None


def test_a_dead_worker_s_pins_go_and_ours_stay(held):
    """What the dead one had pinned is free again; what is being committed is not."""
    held.commit(held.saver.mirror, held.slots[0])
    held.mirror.pin(held.slots[2].number)
    held.saver.free_slots()
    assert [is_pinned(held.mirror, slot.number) for slot in held.slots] == [True, False, False]


# Leaving


def test_a_child_is_let_go_when_nothing_is_being_saved(held):
    """Idle: at once. Busy: after the last answer, what waits included."""
    held.commit(held.saver.mirror, held.slots[0])
    held.commit(held.saver.mirror, held.slots[1])
    held.saver.close_when_idle()
    held.answer(committed(1))
    assert not held.children.last.finished
    held.answer(committed(2))
    assert held.children.last.finished
    assert held.watched == []
    held.opened()
    held.saver.close_when_idle()
    assert held.children.last.finished


def test_who_asks_again_is_not_left(held):
    """A worker that opens the store after all keeps the child that was to be let go."""
    held.commit(held.saver.mirror, held.slots[0])
    held.saver.close_when_idle()
    held.open()
    held.answer(committed(1))
    assert not held.children.last.finished


def test_what_a_dead_worker_wanted_opened_is_not_opened_for_nobody(held):
    """The next worker commits by itself and needs the lock: a child of the dead one.s would hold it."""
    held.commit(held.saver.mirror, held.slots[0])
    held.open(OTHER)
    held.saver.close_when_idle()
    held.answer(committed(1))
    assert held.children.configs == [CONFIG]
    assert held.saver.pids == []


def test_an_opening_that_nobody_waits_for_any_more_is_not_told(bench):
    """Whoever asked has gone; the next commit's opening is not theirs."""
    mirror, slot = mirror_with(1)
    bench.open()
    bench.saver.close_when_idle()
    bench.commit(bench.hold(mirror), slot)
    bench.answer(OPENED)
    assert bench.openings == []
    assert bench.asked == [1]
