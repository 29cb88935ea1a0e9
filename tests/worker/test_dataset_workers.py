"""What is seen of a dataset's processes when one has died."""

import os
import signal
import subprocess
import sys

import pytest

from resilient.worker.process.dataset_workers import GONE, find_dead


def ended(code):
    """A child of ours that has ended, and waits to be reaped."""
    child = subprocess.Popen([sys.executable, "-c", f"import os, signal; {code}"])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    return child


@pytest.mark.parametrize(
    ("code", "how"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", "SIGKILL"),
        ("os._exit(3)", "status 3"),
        ("os._exit(0)", ""),
    ],
)
def test_how_a_child_died_is_read_and_nothing_is_reaped(code, how):
    """Who waits for it gets its status as before."""
    child = ended(code)
    assert find_dead([child.pid]) == how
    assert child.wait() == {"SIGKILL": -signal.SIGKILL, "status 3": 3, "": 0}[how]


def test_one_that_was_reaped_is_gone():
    """Of another that is still there, more is known."""
    reaped, other = ended("os._exit(3)"), ended("os._exit(4)")
    reaped.wait()
    assert find_dead([reaped.pid]) == GONE
    assert find_dead([reaped.pid, other.pid]) == "status 4"
    other.wait()


def test_a_living_child_is_not_dead():
    """Nor does looking wait for it."""
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    assert find_dead([child.pid]) == ""
    child.communicate(b"\n")
