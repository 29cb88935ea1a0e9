"""Workers and savers that the kernel does not watch for us: nobody would hear of their end."""

from __future__ import annotations

import errno
import os
import selectors
from pathlib import Path

import pytest
from played import Children
from slots import config_of, descriptors

from chaos.played_worker import PlayedWorker
from resilient.host.world import World
from resilient.run.rundir import RunDirectory
from supervisor.checkpointing.saver_child import SaverChild
from supervisor.group.launcher import Launcher
from supervisor.group.standby import Standby


class Mortal(PlayedWorker):
    """A worker that a signal ends."""

    def signal(self, number):
        super().signal(number)
        self.die()


class Full(selectors.DefaultSelector):
    """The kernel watches so many things, and no more (fs.epoll.max_user_watches)."""

    left = 0

    def register(self, source, events, data=None):
        if not self.left:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.left -= 1
        return super().register(source, events, data)


@pytest.mark.parametrize("left", [0, 1])
def test_a_worker_that_is_not_watched_is_ended(tmp_path, left):
    """The launch has failed, as if it could not have been started; nothing of it stays."""
    before = descriptors()
    worker = Mortal()

    class Workers:
        def spawn(self, config, log, descriptors=()):
            return worker

    with Full() as selector:
        selector.left = left
        standby = Standby(lambda config, log: pytest.fail("none"), selector, pytest.fail, pytest.fail)
        directory = RunDirectory(tmp_path, World())
        launcher = Launcher(directory, Workers(), standby, selector, World().clock)
        with pytest.raises(OSError, match="No space left"):
            launcher.launch(config_of(tmp_path), [])
        assert launcher.attempt is None
        assert not selector.get_map()
    assert worker.finished
    assert descriptors() == before


def test_a_saver_that_is_not_watched_is_ended():
    """What was to be saved has failed, and is told; the next one is started anew."""
    children, told = Children(), []

    class Ears:
        def watch(self, child):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        def unwatch(self, child):
            pass

    def spawn(config):
        children.all.append(Mortal())
        return children.last

    saver = SaverChild(spawn, Ears())
    saver.open(config_of(Path("/run")), lambda error, remarks: told.append(error))
    assert children.last.finished
    assert saver.pids == []
    assert "cannot be started: [Errno 28]" in told[0]
