"""A worker whose checkpoints another process has locked: the holder is named, and another attempt follows."""

from __future__ import annotations

import os

import pytest
from supervised import TRAINING, events

from resilient.host.files import DiskFiles
from resilient.store import layout

pytestmark = pytest.mark.process

OPENS = (
    TRAINING
    + """
    from resilient.saving import saver_process as process_saver
    from resilient.policy.settings import Settings
    process_saver._LOCK_S = 0.1
    me.open(Settings())
"""
)


@pytest.fixture
def hold(tmp_path):
    """Takes the lock of a run's checkpoints for this process."""
    root = tmp_path / "run"
    DiskFiles().make_directory(root)
    lock = DiskFiles().lock(layout.rank_lock(root, 0), str(os.getpid()).encode())
    yield lock
    lock.release()


def test_a_lock_that_another_process_holds_is_waited_for(supervise, hold):
    """It is no bad usage: as soon as it is free, the run goes on."""
    run = supervise(OPENS, "--backoff", "0.2:0.2", "--max-restarts", "1000")
    run.wait_for("restart 3 of", "err")
    hold.release()
    assert run.end() == 0, run.err()
    first = events(run, "incident_judged")[0]
    assert first["kind"] == "directory in use"
    assert f"process {os.getpid()} (" in first["cause"]


def test_who_waits_in_vain_hears_who_has_it(supervise, hold):
    """The last words name the process, and the status is the script's, not that of a bad command line."""
    run = supervise(OPENS, "--max-restarts", "1")
    assert run.end() == 1
    words = run.err().splitlines()[-1]
    assert f"process {os.getpid()} (" in words
    assert "stop that process, or wait for its end" in words
