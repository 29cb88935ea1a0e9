"""What a training worker does when it is asked for a checkpoint, and for its stacks."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from newest_stacks import newest_in

PROGRAM = Path(__file__).parent / "programs" / "asked.py"

pytestmark = pytest.mark.mindspore


def run(folder: Path, what: str, *more: str, restarts="0"):
    """The status, what was said, and the journal's events."""
    options = ["--run-dir", str(folder / "run"), "--no-encrypt", "--max-restarts", restarts, *more]
    command = [sys.executable, "-m", "supervisor.command.cli", *options, str(PROGRAM), what]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=folder)
    events = [json.loads(line) for line in (folder / "run" / "journal.jsonl").read_text().splitlines()]
    return done, events


def saves(events):
    return [(event["step"], event["reason"]) for event in events if event["event"] == "saved"]


@pytest.mark.parametrize("mirror", ["--mirror", "--no-mirror"])
def test_a_checkpoint_is_made_at_the_next_boundary(tmp_path, mirror):
    """Of the step it was asked for in. With nothing new there is a remark, and no second checkpoint."""
    done, events = run(tmp_path, "save", mirror, "--save-steps", "8")
    assert done.returncode == 0, done.stderr
    assert saves(events) == [(3, "request"), (8, "schedule"), (16, "schedule")]
    remarks = [event["text"] for event in events if event["event"] == "remark"]
    assert remarks == [f"asked for a checkpoint: step {step} is saved already" for step in (8, 16)]


def test_outside_of_a_training_call_it_is_ignored(tmp_path):
    """Neither killed by it nor saved for it: before the import, before the training, and after it."""
    done, events = run(tmp_path, "outside")
    assert done.returncode == 0, done.stderr
    assert "came to its end" in done.stdout
    assert saves(events) == [(16, "end")]


def test_a_script_keeps_its_own_handler_of_this_signal(tmp_path):
    """Then the signal means what the script says."""
    done, events = run(tmp_path, "handled")
    assert (done.returncode, done.stdout.count("my own handler")) == (0, 1), done.stderr
    assert saves(events) == [(16, "end")]


def test_stacks_are_written_while_c_holds_the_lock(tmp_path):
    """Those of all threads, into the attempt's log; and the run goes on to its end."""
    done, _ = run(tmp_path, "stacks")
    assert done.returncode == 0, done.stderr
    found = newest_in((tmp_path / "run" / "logs" / "attempt_0001" / "rank_0.log").read_text())
    assert "in hold_the_lock" in found
    assert found.count("(most recent call first):") >= 2
    assert "threading.py" in found
    assert "Fatal" not in found


def test_a_script_keeps_its_own_handler_of_sigquit(tmp_path):
    """One that handles SIGQUIT is not helped with it."""
    done, _ = run(tmp_path, "caught")
    assert (done.returncode, done.stdout.count("my own handler")) == (0, 1), done.stderr
    assert "most recent call first" not in done.stderr


def test_a_segmentation_fault_leaves_its_stacks(tmp_path):
    """The kernel's signal ends the worker as before; where it happened is in the log."""
    done, events = run(tmp_path, "fault")
    assert done.returncode == 128 + 11
    found = newest_in((tmp_path / "run" / "logs" / "attempt_0001" / "rank_0.log").read_text())
    assert found.startswith("Fatal Python error: Segmentation fault\n")
    assert "asked.py" in found
    assert saves(events)[-1][0] == 2
