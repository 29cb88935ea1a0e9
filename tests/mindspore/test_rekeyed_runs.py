"""A run that gets another key between two attempts goes on as if nothing had been, finished or not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest
from test_resume import run, uninterrupted

pytestmark = pytest.mark.mindspore

# Ends the process before the n-th change of the disk.
DYING = """
import os, sys, signal
from resilient.host.files import DiskFiles
left = [int(sys.argv.pop(1))]
def dying(name):
    original = getattr(DiskFiles, name)
    def method(self, *args):
        left[0] -= 1
        if left[0] < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(self, *args)
    setattr(DiskFiles, name, method)
for name in ("create", "rename", "remove", "sync_directory"):
    dying(name)
from resilient.tools import main
sys.exit(main())
"""


@pytest.fixture
def given_up(tmp_path):
    """A run that was given up in its second epoch, under the key ``old``; and the options that name keys."""
    for name in ("old", "new"):
        (tmp_path / name).write_text(os.urandom(32).hex())
        (tmp_path / name).chmod(0o600)
    old = ("--key-file", str(tmp_path / "old"))
    run(tmp_path, "plain", "exception@11", "--max-restarts", "0", status=1, key=old)
    return tmp_path


def rekey(folder, *before):
    words = [*before, "rekey", str(folder / "run"), "--old-key-file", str(folder / "old")]
    command = [sys.executable, *words, "--key-file", str(folder / "new")]
    return subprocess.run(command, capture_output=True, text=True)


def test_it_goes_on_with_the_new_key(given_up):
    """Rekeyed to the end: the new key alone resumes, to the result of a run that never failed."""
    assert rekey(given_up, "-m", "resilient.tools").returncode == 0
    result, said = run(given_up, "plain", "never", key=("--key-file", str(given_up / "new")))
    assert "resumed at step 10" in said
    assert result == uninterrupted("plain")


@pytest.mark.parametrize("place", [12])
def test_it_goes_on_when_the_rekey_was_killed(given_up, place):
    """Killed in the middle: the new key alone is refused, both together resume from the newest state."""
    assert rekey(given_up, "-c", DYING, str(place)).returncode == -signal.SIGKILL
    new = ("--key-file", str(given_up / "new"))
    _, said = run(given_up, "plain", "never", status=65, key=new)
    assert "--old-key-file" in said
    result, said = run(given_up, "plain", "never", key=(*new, "--old-key-file", str(given_up / "old")))
    assert "resumed at step 10" in said
    assert result == uninterrupted("plain")
