"""REQUIRE_ALL=1 makes each skip a failure, whatever skips."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SUPPORT = Path(__file__).resolve().parent / "support"
SKIPPING = """
import pytest

@pytest.fixture
def missing():
    pytest.skip("no fixture here")

@pytest.mark.skipif(True, reason="no mark here")
def test_by_mark(): ...

def test_by_call():
    pytest.skip("no call here")

def test_by_fixture(missing): ...

@pytest.mark.xfail(reason="known")
def test_that_is_expected_to_fail():
    assert False

def test_that_passes(): ...
"""


@pytest.fixture
def report(tmp_path):
    """Runs pytest on tests that skip, in a process of its own; its exit status and its words."""
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = -ra -p no_skips -p no:cacheprovider\n")
    (tmp_path / "test_skipping.py").write_text(SKIPPING)
    (tmp_path / "test_module.py").write_text("import pytest\npytest.importorskip('no_module_here')\n")

    def run(**more: str) -> tuple[int, str]:
        kept = {name: value for name, value in os.environ.items() if name != "REQUIRE_ALL"}
        variables = {**kept, "PYTHONPATH": str(SUPPORT), **more}
        command = [sys.executable, "-m", "pytest"]
        done = subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, text=True)
        return done.returncode, done.stdout

    return run


REASONS = ("no mark here", "no call here", "no fixture here", "could not import 'no_module_here'")


def test_a_skip_is_none_of_ours_where_nothing_is_required(report):
    """Without the variable the run passes and names each reason, as ever."""
    status, words = report()
    assert status == 0
    assert "1 passed, 4 skipped, 1 xfailed" in words
    assert all(f": {reason}" in words for reason in REASONS)


def test_each_skip_fails_where_all_are_required(report):
    """By a mark, in a test, in a fixture or of a whole file; a failure that is expected stays one."""
    status, words = report(REQUIRE_ALL="1")
    assert status == 2
    status, words = report(REQUIRE_ALL="1", PYTEST_ADDOPTS="--continue-on-collection-errors")
    assert status == 1
    assert "1 failed, 1 passed, 1 xfailed, 3 errors" in words
    summary = words[words.index("short test summary") :]
    assert all(f"Skipped: {reason}" in summary for reason in REASONS)
