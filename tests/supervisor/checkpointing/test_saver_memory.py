"""What the supervisor's saver holds on to, mirrors and its child, and when it lets them go."""

from __future__ import annotations

import os

import pytest
from played import OPENED, committed, is_pinned, mirror_with
from saver_bench import CONFIG, OTHER
from slots import descriptors, write


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
    # Its own; its mapping has none.
    assert len(descriptors()) == before - 1


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
