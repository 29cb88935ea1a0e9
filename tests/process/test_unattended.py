"""A process that has been started and cannot be looked after does not live, and nothing of it stays open."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.process

PROGRAM = Path(__file__).with_name("unattended.py")


@pytest.mark.parametrize(
    ("kind", "how"),
    [
        ("worker", "descriptors"),
        ("saver", "descriptors"),
        ("worker", "pidfd"),
        ("saver", "pidfd"),
        ("worker", "threads"),
    ],
)
def test_what_cannot_be_attended_is_ended(tmp_path, kind, how):
    """No descriptor or no thread left, at whichever of the steps: an OSError, no process, nothing open."""
    command = [sys.executable, str(PROGRAM), str(tmp_path), kind, how]
    done = subprocess.run(command, stdout=subprocess.PIPE, timeout=200, check=True, text=True)
    tries = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert len(tries) >= 2
    assert [found["error"] == "" for found in tries] == [False] * (len(tries) - 1) + [True]
    for found in tries:
        assert (found["children"], found["leaked"]) == ([], []), found
