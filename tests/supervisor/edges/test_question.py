"""Questions that are answered, late or never, and those that cannot even be asked."""

from __future__ import annotations

import threading

import pytest

from resilient.config import KeepPolicy
from resilient.host.world import World
from supervisor.edges.question import Question
from supervisor.edges.vitals import Vitals
from supervisor.verdict.readiness import Need, ObstacleKind, ReadinessCheck, judge
from supervisor.watching.disk_watch import DiskWatch
from supervisor.watching.footprint import Footprint, FootprintMeter


@pytest.fixture
def no_threads(monkeypatch):
    """The limit of processes is reached; the function that is returned removes what is in the way."""

    def refuse(thread):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as refusing:
        refusing.setattr(threading.Thread, "start", refuse)
        yield refusing.undo


def test_an_answer_is_waited_for_as_long_as_one_likes():
    """And is there later on, if it comes at all."""
    goes_on = threading.Event()
    question = Question(lambda: goes_on.wait(60))
    question.wait(0.01)
    assert not question.is_answered
    goes_on.set()
    question.wait(60)
    assert question.is_answered
    assert question.answer is True


def test_a_question_without_a_thread_is_lost_and_nobody_waits_for_it(no_threads):
    """It is not asked in our own time either."""
    question = Question(lambda: pytest.fail("asked"))
    question.wait(3600)
    assert question.lost
    assert not question.is_answered


def test_without_threads_the_disk_is_asked_directly(no_threads, tmp_path):
    """A limit on processes is no dead disk: another attempt is launched, and a full disk is found as ever."""
    (tmp_path / "lock").touch()
    check = ReadinessCheck(tmp_path)
    assert judge(check.look(), Need()) is None
    assert judge(check.look(), Need(checkpoint_bytes=1 << 60)).kind is ObstacleKind.DISK
    no_threads()
    assert judge(check.look(), Need()) is None


def test_without_threads_a_save_is_measured_the_next_time(no_threads, tmp_path):
    """The size of a checkpoint is known as soon as one could be looked at."""
    (tmp_path / "a.ckpt").write_bytes(bytes(100))
    watch = DiskWatch(tmp_path, KeepPolicy(max_count=5), World().clock)
    watch.saved(tmp_path, "a.ckpt")
    assert watch.checkpoint_bytes == 0
    no_threads()
    watch.saved(tmp_path, "a.ckpt")
    watch._asked.wait(60)
    assert watch.checkpoint_bytes == 100
    assert watch.warning() == ""


def test_a_checkpoint_that_has_gone_is_not_measured(tmp_path):
    """Retention may be faster than we are."""
    watch = DiskWatch(tmp_path, KeepPolicy(max_count=5), World().clock)
    watch.saved(tmp_path, "gone.ckpt")
    watch._asked.wait(60)
    assert watch.checkpoint_bytes == 0


def test_without_threads_memory_is_weighed_the_next_time(no_threads):
    """It is no reason to end anything."""
    scales = FootprintMeter(World().clock, lambda pids: Footprint(7, 5))
    seen = Vitals("S", members=(1, 2), resident_bytes=100)
    assert scales.weigh(seen) is None
    no_threads()
    assert scales.weigh(seen) == Footprint(7, 5)
