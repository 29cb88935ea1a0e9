"""A standby that is not needed any more."""

from __future__ import annotations

import selectors
import signal
from pathlib import Path

import pytest
from slots import config_of

from chaos.children import PlayedWorker
from resilient.errors import LinkError
from supervisor import standby
from supervisor.standby import Standby


class Importing(PlayedWorker):
    """A worker in the middle of an import: only SIGKILL ends it."""

    def finish(self):
        assert self.signals == [signal.SIGKILL], "its last output would be waited for"
        with pytest.raises(LinkError):
            self.other.poll()
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
    worker.die()
