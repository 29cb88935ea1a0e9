"""A script that trains on a thread is complete when the training is, not when its main thread is over."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
PROGRAM = HERE / "programs" / "threaded.py"

pytestmark = pytest.mark.mindspore


def run(folder, kind, *options):
    ours = ["--run-dir", "run", "--no-encrypt", "--backoff", "0:0", "--mirror-every", "1", *options]
    command = [sys.executable, "-m", "supervisor.command.cli", *ours, str(PROGRAM), kind]
    environment = {**os.environ, "PYTHONPATH": str(HERE)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, cwd=folder, env=environment)
    return done.returncode, done.stdout + done.stderr


def test_a_training_that_fails_behind_the_end_of_the_main_thread_is_resumed(tmp_path):
    """It is no complete run: another attempt goes on with the step that failed."""
    status, said = run(tmp_path, "waits")
    assert status == 0, said
    assert said.count("trained") == 1, said
    assert "resumed at step 10" in said


def test_a_training_that_ends_with_the_main_thread_is_not_complete(tmp_path):
    """Python ends the daemon thread in the middle of its call; the run does not end with status 0."""
    status, said = run(tmp_path, "daemon", "--max-restarts", "0")
    assert status != 0, said
    assert "run complete" not in said
