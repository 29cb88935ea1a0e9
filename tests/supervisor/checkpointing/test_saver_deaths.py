"""The supervisor's saver when its child dies, talks nonsense, or cannot be started: nothing is lost."""

from __future__ import annotations

import signal

import pytest
from played import OPENED, committed, is_pinned
from saver_bench import CONFIG, OTHER

from resilient.wire.messages import SaverReady


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
    child.say(SaverReady("locked"))
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
