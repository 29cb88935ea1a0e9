"""A standby that is not needed any more."""

from __future__ import annotations

import selectors
import signal
from pathlib import Path

import pytest
from slots import config_of

from chaos.played_worker import PlayedWorker
from supervisor.group import standby
from supervisor.group.standby import Standby


class Importing(PlayedWorker):
    """A worker in the middle of an import: only SIGKILL ends it."""

    def signal(self, number):
        super().signal(number)
        self.die()

    def finish(self):
        assert self.signals == [signal.SIGKILL], "its last output would be waited for"
        super().finish()


def test_a_standby_is_killed_before_its_output_is_waited_for(monkeypatch):
    """It may be in a long import: asking it to leave would hold up the end of the run."""
    monkeypatch.setattr(standby, "available_bytes", lambda: 1 << 40)
    worker = Importing()
    with selectors.DefaultSelector() as selector:
        one = Standby(lambda config, log: worker, selector, pytest.fail, pytest.fail)
        one.prepare(config_of(Path("/run")), Path("/log"))
        assert one.pids == [worker.pid]
        one.close()
        assert worker.finished
        assert one.pids == []
        assert not selector.get_map()
        one.close()


def test_a_standby_that_the_kernel_does_not_watch_is_none(monkeypatch):
    """Nobody would hear of its end: it is ended, and that is said."""
    monkeypatch.setattr(standby, "available_bytes", lambda: 1 << 40)

    class Full(selectors.DefaultSelector):
        def register(self, source, events, data=None):
            if source is worker.link:
                raise OSError(28, "No space left on device")
            return super().register(source, events, data)

    worker, warnings = Importing(), []
    with Full() as selector:
        one = Standby(lambda config, log: worker, selector, pytest.fail, warnings.append)
        one.prepare(config_of(Path("/run")), Path("/log"))
        assert one.take() is None
        assert not selector.get_map()
    assert worker.finished
    assert "cannot be started: [Errno 28]" in warnings[0]
