"""The benchmarks still run: a figure that nobody can measure again is none."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parent.parent.parent / "benchmarks"


@pytest.mark.mindspore
def test_the_stall_is_measured(tmp_path):
    """On a few megabytes, once: every row of the table is there."""
    words = ["--only", "stall", "--sizes", "4", "--rounds", "1", "--stock-rounds", "1"]
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / "mirror.py"), *words, "--folder", str(tmp_path)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    for row in ("one memcpy", "mirror", "stock save"):
        assert row in done.stdout
