"""A worker that cannot be started: tried again as the policy says, and nothing left open."""

from __future__ import annotations

import pytest
from slots import descriptors

from resilient.config import WorkerConfig
from resilient.host.world import World
from resilient.run.rundir import FAILED, RunDirectory
from supervisor.edges import wakeup
from supervisor.edges.journal_writer import JournalWriter
from supervisor.loop.loop import Plan, Supervisor
from supervisor.telling.console import Console
from supervisor.telling.story import Story
from supervisor.verdict.restart import RestartPolicy


class Refused:
    """Workers that the operating system refuses; ``shared`` is how much memory each was to be given."""

    def __init__(self):
        self.shared = []

    def spawn(self, config, log, descriptors=()):
        self.shared.append(len(descriptors))
        # Never twice the same reason: that alone would end the run.
        raise OSError(11, f"refused for the {len(self.shared)}. time")

    def spawn_saver(self, config, log):
        raise AssertionError("there is nothing to save")

    def spawn_standby(self, config, log):
        raise AssertionError("there is nothing to stand by for")

    def sweep(self, spared=()):
        return []

    def reap_orphans(self, workers):
        """There are none."""


@pytest.fixture
def directory(tmp_path):
    found = RunDirectory(tmp_path / "run", World())
    lock = found.lock()
    yield found
    lock.release()


def test_workers_that_cannot_be_started_leave_nothing_open(directory, capfd):
    """Each try makes a heartbeat's page; where nobody gets it, it is closed, and the run ends as failed."""
    world, workers = World(), Refused()
    story = Story(Console(), world.clock, directory.root)
    record = directory.open()
    config = WorkerConfig(run_id=record.run_id, directory=directory.root, seed=record.seed)
    before = descriptors()
    journal = JournalWriter(directory.journal, world.clock, story.trouble)
    plan = Plan(config, RestartPolicy(max_restarts=3, min_s=0.0, max_s=0.0), grace_s=1.0)
    with wakeup.restored():
        status = Supervisor(directory, plan, workers, story, journal, world).run()
    journal.close()
    assert workers.shared[0] == 1
    assert len(workers.shared) >= 2
    assert status != 0
    assert directory.open().status == FAILED
    assert "refused" in capfd.readouterr().err
    assert descriptors() == before
