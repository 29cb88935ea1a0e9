"""resilient stop, status and explain on real runs, while they run and after they have died."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

import pytest

pytestmark = pytest.mark.process

PATIENT = """
    import signal, sys, time
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(9))
    print("ready", flush=True)
    while True:
        time.sleep(600)
"""


def resilient(run, *words):
    """What a command of the tools says, and its status."""
    command = [sys.executable, "-m", "resilient.tools", *words]
    done = subprocess.run(command, cwd=run.folder, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, " ".join(done.stdout.split()), done.stderr


def test_a_run_is_stopped_by_a_word(supervise):
    """stop reaches the supervisor, which ends with 75; then nobody works on the run; its story says why."""
    run = supervise(PATIENT)
    run.wait_for("ready")
    status, told, _ = resilient(run, "status", "run")
    assert (status, f"supervisor: process {run.process.pid}" in told) == (0, True), told
    status, told, remarks = resilient(run, "stop", "run")
    assert status == 0, told + remarks
    assert told.startswith("stopped; ")
    assert f"the supervisor (process {run.process.pid}) is told to stop" in remarks
    assert run.end() == 75
    assert "stopped by SIGTERM" in run.err()
    status, told, _ = resilient(run, "stop", "run")
    assert (status, "nobody works on the run" in told) == (1, True)
    status, told, _ = resilient(run, "explain", "run")
    assert "It had been asked to stop (SIGTERM), so no other attempt followed." in told
    assert "the run was stopped" in told


def test_the_story_of_a_run_that_failed_and_whose_supervisor_was_killed(supervise):
    """Two attempts, the second one cut off: each is told, and that the supervisor itself was killed."""
    run = supervise(
        """
        import os, sys, time
        if os.path.exists("once"):
            print("ready", flush=True)
            time.sleep(600)
        open("once", "w").close()
        sys.exit(4)
        """
    )
    run.wait_for("ready")
    status, told, _ = resilient(run, "explain", "run")
    assert status == 0
    assert "exited with status 4 [exited, exit status 4]" in told
    assert "Attempt 2" in told
    assert "It is running now." in told
    run.send(signal.SIGKILL)
    run.end()
    status, told, _ = resilient(run, "explain", "run")
    assert f"The supervisor (process {run.process.pid}) vanished without a last word" in told
    assert "run the same command again" in told
    status, told, _ = resilient(run, "explain", "run", "--json")
    assert json.loads("{" + told.rpartition("} {")[2])["running"] is False
