"""The supervisor's saver: stores are opened, slots committed, and each request is answered, once."""

from __future__ import annotations

import os

import pytest
from played import OPENED, committed, is_pinned, mirror_with
from saver_bench import CONFIG, OTHER
from slots import write

from resilient.wire.messages import CommitSlot, SaverReady, TakeOver


def test_a_store_is_opened_by_a_child(bench):
    """The child gets the configuration and is asked to open; what it found on the way is told."""
    bench.open()
    assert bench.children.configs == [CONFIG]
    assert bench.watched == [bench.children.last]
    assert bench.children.last.hear() == (TakeOver(), [])
    assert bench.openings == []
    bench.answer(SaverReady(remarks=("set aside: one",)))
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
    bench.answer(SaverReady("locked by another process"))
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


def test_a_slot_is_committed(held):
    """The child gets the slot and the memory; the answer is told, and the slot is free again."""
    slot = held.slots[0]
    held.commit(held.saver.mirror, slot)
    assert held.saver.busy
    assert is_pinned(held.mirror, slot.number)
    message, (descriptor,) = held.children.last.hear()
    assert message == CommitSlot(slot, "schedule", failure=False, hurry=True)
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
    bench.answer(SaverReady("read-only"))
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
    bench.answer(SaverReady("locked"))
    assert bench.openings == ["locked"]
    assert bench.told == [(1, "locked")]
    bench.answer(SaverReady("locked"))
    assert bench.told == [(1, "locked"), (2, "locked")]
    assert not bench.saver.busy
    assert bench.settlings == 1


def test_an_answer_with_very_many_remarks_is_heard(held):
    """Thousands of files could not be removed: the commit is done all the same, and asked for once."""
    held.commit(held.mirror, held.slots[2])
    assert held.asked == [3]
    remarks = tuple(f"step_{n}.ckpt could not be removed: Read-only file system" for n in range(3000))
    held.children.last.other.send(committed(3, remarks=remarks), patience_s=0.0)
    held.saver.on_message()
    assert held.told == [(3, "step_3.ckpt")]
    assert not held.saver.busy
