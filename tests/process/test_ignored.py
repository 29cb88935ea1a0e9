"""A supervisor that was started by ``nohup``, in a script's background, or by whoever ignores signals."""

from __future__ import annotations

import signal
import subprocess

import pytest
from supervised import events

pytestmark = pytest.mark.process

WAITS = "print('up', flush=True)\ninput()\nprint('over')"


def ignoring(*numbers):
    """To be done in the child, between fork and exec."""

    def ignore():
        for number in numbers:
            signal.signal(number, signal.SIG_IGN)

    return ignore


def test_what_was_ignored_at_the_start_stops_nothing(supervise):
    """SIGHUP under nohup, SIGINT and SIGQUIT in the background: the training goes on to its end."""
    numbers = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT)
    run = supervise(WAITS, stdin=subprocess.PIPE, before=ignoring(*numbers))
    run.wait_for("up")
    for number in numbers:
        run.send(number)
    run.process.stdin.write(b"\n")
    run.process.stdin.close()
    assert run.end() == 0, run.err()
    assert run.out() == "up\nover\n"
    assert events(run, "stop_requested") + events(run, "request") == []


def test_a_scheduler_s_sigterm_is_heard_even_if_it_was_ignored(supervise):
    """A parent that ignores SIGTERM does not make a job that cannot be stopped."""
    run = supervise(WAITS, stdin=subprocess.PIPE, before=ignoring(signal.SIGTERM))
    run.wait_for("up")
    run.send(signal.SIGTERM)
    assert run.end() == 75, run.err()
    run.process.stdin.close()
