"""A run directory whose file system is frozen: the supervisor itself waits for nothing there."""

from __future__ import annotations

import signal
import subprocess
from contextlib import contextmanager

import pytest
from supervised import TRAINING, events, is_alive

from resilient.host.world import World
from resilient.run.rundir import RunDirectory

pytestmark = pytest.mark.process


@contextmanager
def frozen(place):
    """The file system takes nothing within it."""
    subprocess.run(["fsfreeze", "-f", place], check=True)
    try:
        yield
    finally:
        subprocess.run(["fsfreeze", "-u", place], check=True)


POLITE = (
    TRAINING
    + """
    def end(*_):
        print("asked to end", flush=True)
        sys.exit(143)
    signal.signal(signal.SIGTERM, end)
    step(1)
    print("up", os.getpid(), flush=True)
    for number in range(2, 100 if attempt == 1 else 5):
        print("step", number, flush=True)
        step(number)
        time.sleep(0.1)
"""
)


def test_a_stop_reaches_the_worker_while_the_run_directory_is_frozen(supervise, frozen_disk):
    """The worker gets its signal and ends; the supervisor says what is not written, and its process ends.

    It is written once the disk answers, before anybody else may work on the run; the same command goes on.
    """
    run = supervise(POLITE, "--grace", "10", folder=frozen_disk)
    run.wait_for("step 3")
    pid = int(run.out().split()[1])
    with frozen(frozen_disk):
        run.wait_for("step 9")
        run.send(signal.SIGTERM)
        run.wait_for("asked to end")
        assert run.end() == 75, run.err()
        assert not is_alive(pid)
        assert "run.json could not be written yet; process " in run.err()
    again = supervise(POLITE, folder=frozen_disk)
    assert again.end() == 0, again.err()
    assert "was killed" not in again.err(), "the record of the first one was written after all"
    assert [event["status"] for event in events(again, "ended")] == [75, 0]
    assert [event["signal"] for event in events(again, "stop_requested")] == ["SIGTERM"]
    log = (frozen_disk / "run" / "logs" / "attempt_0001" / "rank_0.log").read_text()
    assert "step 9" in log
    assert "asked to end" in log
    assert RunDirectory(frozen_disk / "run", World()).read().attempts == 2


def test_a_restart_waits_for_a_frozen_disk(supervise, frozen_disk):
    """An attempt fails meanwhile: the next is launched when the disk answers, and the journal is whole."""
    script = (
        TRAINING
        + """
    step(10 * attempt)
    print("up", attempt, flush=True)
    if attempt == 1:
        sys.stdin.readline()
        os._exit(7)
    """
    )
    run = supervise(script, folder=frozen_disk, stdin=subprocess.PIPE)
    run.wait_for("up 1")
    with frozen(frozen_disk):
        run.process.stdin.close()
        run.wait_for("exited with status 7", "err")
        run.wait_for("does not answer", "err")
    assert run.end() == 0, run.err()
    assert [event["attempt"] for event in events(run, "attempt")] == [1, 2]
