"""Signals that come again and again while a run ends: its status stays what it is."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest
from supervised import DEADLINE_S

pytestmark = pytest.mark.process

READY = """
    import threading
    print("ready", flush=True)
    threading.Event().wait()
"""

# At each call of the supervisor's own from the end of its loop on, also while Python takes itself apart.
INSISTS = """
import atexit, os, signal, sys
numbers = [getattr(signal, name) for name in {names}]

def repeat(*event):
    for number in numbers:
        os.kill(os.getpid(), number)

from supervisor.loop import loop
run = loop.Supervisor.run

def run_and_repeat(supervisor):
    status = run(supervisor)
    repeat()
    sys.setprofile(repeat)
    return status

loop.Supervisor.run = run_and_repeat
atexit.register(repeat)

class AtTheVeryEnd:
    def __del__(self, repeat=repeat):
        repeat()

sys.at_the_very_end = AtTheVeryEnd()
from supervisor.command import cli
sys.exit(cli.main())
"""


@pytest.mark.parametrize("names", [["SIGTERM"], ["SIGINT"], ["SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2"]])
@pytest.mark.parametrize("words", [["true"], ["false"]])
def test_a_signal_that_is_repeated_takes_no_status_away(tmp_path, names, words):
    """Schedulers do that, and so do people: nothing of it is a stop once the run is over."""
    run = subprocess.run(
        [
            *(sys.executable, "-c", INSISTS.format(names=names)),
            *("--run-dir", str(tmp_path / "run"), "--max-restarts", "0", "--no-python", *words),
        ],
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
    )
    assert run.returncode == (0 if words == ["true"] else 1), run.stderr
    assert "before anything was launched" not in run.stderr
    assert "Traceback" not in run.stderr
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["status"] == ("complete" if words == ["true"] else "failed")


def test_a_stop_that_is_repeated_until_the_end_is_one_stop(supervise):
    """As often as this can send it: the status is that of a stop."""
    run = supervise(READY)
    run.wait_for("ready")
    while run.process.poll() is None:
        os.kill(run.process.pid, signal.SIGTERM)
    assert run.process.returncode == 75
    assert "before anything was launched" not in run.err()
