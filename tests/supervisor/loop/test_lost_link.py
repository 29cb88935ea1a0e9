"""A command that is none of ours says nothing and never beats: it is looked at seldom."""

from __future__ import annotations

import pytest

from chaos.played_worker import PlayedWorker
from chaos.stepped_clock import SteppedClock
from resilient.config import KeepPolicy
from resilient.host.world import World
from resilient.run.rundir import RunDirectory
from resilient.wire.heartbeat import Heartbeat
from supervisor.group.attempt import Attempt
from supervisor.watching.watchman import Limits, Watchman


@pytest.mark.parametrize("memory_bytes", [None, 1 << 40])
def test_a_mute_command_does_not_keep_the_supervisor_awake(tmp_path, memory_bytes):
    """However long it runs, the next look is a second or more away, and it finds no hang."""
    clock = SteppedClock()
    world = World(clock=clock)
    watchman = Watchman(
        Limits(1.0, memory_bytes, mute=True), RunDirectory(tmp_path, world), KeepPolicy(), world
    )
    worker, page = PlayedWorker(), Heartbeat.create()
    watchman.begin(Attempt(1, [worker], clock.monotonic(), page))
    for _ in range(100):
        assert watchman.next_look_s >= 1
        clock.advance(watchman.next_look_s)
        assert watchman.look() is None
    worker.die()
    worker.finish()
    page.close()
