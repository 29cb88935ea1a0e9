"""Stacks of all threads: written on a fault and on SIGQUIT, and found again in a log."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from newest_stacks import newest_in

QUIT = "import os, signal; os.kill(os.getpid(), signal.SIGQUIT); print('went on', flush=True)"
FAULT = "import ctypes; print('before', file=__import__('sys').stderr, flush=True); ctypes.string_at(0)"


def run(program, *flags):
    command = [
        sys.executable,
        *flags,
        "-c",
        f"from resilient.worker.process import stacks; stacks.install()\n{program}",
    ]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_sigquit_writes_stacks_and_ends_nothing():
    """On stderr, and the program goes on."""
    done = run(QUIT)
    assert (done.returncode, done.stdout) == (0, "went on\n")
    assert newest_in(done.stderr) == done.stderr.rstrip("\n")
    assert 'File "<string>", line 2 in <module>' in done.stderr


@pytest.mark.parametrize(
    "number", [signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGFPE, signal.SIGILL]
)
def test_a_fault_writes_stacks_and_still_ends_the_process(number):
    """Of its own signal, so that whoever waits for it sees the true reason."""
    done = run(f"import os; os.kill(os.getpid(), {int(number)})")
    assert done.returncode == -number
    assert newest_in(done.stderr).startswith("Fatal Python error: ")
    assert 'File "<string>", line 2 in <module>' in done.stderr


def test_what_the_script_says_later_goes_before_it():
    """A script that sends the stacks of a fault elsewhere, or wants none, has its way."""
    done = run(f"import faulthandler; faulthandler.disable()\n{FAULT}")
    assert (done.returncode, done.stderr) == (-signal.SIGSEGV, "before\n")


def test_an_interpreter_that_was_told_before_is_left_alone():
    """With ``-X faulthandler`` it is on already; SIGQUIT comes on top."""
    assert run(FAULT, "-X", "faulthandler").returncode == -signal.SIGSEGV
    assert run(QUIT, "-X", "faulthandler").stdout == "went on\n"


def test_without_stderr_nothing_is_in_the_way():
    """A process whose stderr is closed runs as it would."""
    program = (
        "import os; os.close(2); from resilient.worker.process import stacks; stacks.install(); print('ran')"
    )
    done = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, timeout=60)
    assert (done.returncode, done.stdout) == (0, b"ran\n")


ONE = (
    "Thread 0x00007f1 (most recent call first):\n"
    '  File "/lib/threading.py", line 320 in wait\n'
    "  ...\n\n"
    "Current thread 0x00007f2 (most recent call first):\n"
    "  <no Python frame>"
)
OTHER = (
    "Fatal Python error: Aborted\n\n"
    "Current thread 0x00007f2 (most recent call first):\n"
    '  File "x.py", line 1 in f'
)


@pytest.mark.parametrize(
    ("log", "found"),
    [
        ("", ""),
        ("epoch: 1 step: 4\nno stacks here\n", ""),
        (ONE, ONE),
        (f"epoch: 1\n{ONE}\nepoch: 2\n", ONE),
        (f"{ONE}\n\nepoch: 2\n{OTHER}\n\nExtension modules: numpy (total: 1)\n", OTHER),
        (f"{OTHER}\nepoch: 2\n{ONE}\n", ONE),
        ("Thread 0x1 (most recent call first):", "Thread 0x1 (most recent call first):"),
        ("said: Thread 0x1 (most recent call first):\n", ""),
    ],
)
def test_the_newest_stacks_are_found_in_a_log(log, found):
    """From the first thread's line to the last frame, the fault's name included, whatever lies around it."""
    assert newest_in(log) == found


PIECES = ["\n", " ", "x", '  File "', "  ", "  ...", ONE, OTHER, "Thread 0x1 (most recent call first):"]


@given(st.lists(st.sampled_from(PIECES)))
def test_any_log_can_be_searched(pieces):
    """What is found is a piece of it."""
    log = "".join(pieces)
    assert newest_in(log) in log
