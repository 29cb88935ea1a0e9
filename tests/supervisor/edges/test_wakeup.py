"""Signals as the loop hears them: real ones, sent to this process."""

from __future__ import annotations

import os
import selectors
import signal

import pytest

from supervisor.edges import wakeup

DEADLINE_S = 30.0


@pytest.fixture
def heard():
    """A loop's ear: ``heard.wait()`` is one round of the loop, ``heard.numbers`` what came."""

    class Ear:
        def __init__(self):
            self.numbers = []
            self.selector = selectors.DefaultSelector()

        def wait(self, timeout_s=DEADLINE_S):
            for key, _ in self.selector.select(timeout_s):
                key.data()
            return self.numbers

    ear = Ear()
    with ear.selector, wakeup.signals(ear.selector, lambda numbers: ear.numbers.extend(numbers)):
        yield ear


def test_a_stop_is_heard_whatever_came_before_it(heard):
    """Thousands of signals, more than any buffer holds, while the loop is busy; then SIGTERM."""
    for _ in range(20_000):
        os.kill(os.getpid(), signal.SIGCHLD)
    os.kill(os.getpid(), signal.SIGTERM)
    numbers = heard.wait()
    assert signal.SIGTERM in numbers
    assert numbers.count(signal.SIGCHLD) >= 1


def test_signals_are_heard_in_their_order_and_a_second_one_counts(heard):
    """A second Ctrl-C is a person who insists; a hundredth is not more."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGINT, signal.SIGUSR1, *[signal.SIGINT] * 100):
        os.kill(os.getpid(), number)
    assert heard.wait() == [signal.SIGTERM, signal.SIGINT, signal.SIGINT, signal.SIGUSR1]


def test_what_comes_while_the_loop_sleeps_wakes_it(heard):
    """The loop waits for ever otherwise."""
    pid = os.fork()
    if pid == 0:
        os.kill(os.getppid(), signal.SIGUSR1)
        os._exit(0)
    while signal.SIGUSR1 not in heard.wait():
        pass
    os.waitpid(pid, 0)


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM])
def test_what_was_ignored_stays_ignored_but_not_sigterm(number):
    """As nohup and background jobs want it; a scheduler's SIGTERM is always heard."""
    before = signal.signal(number, signal.SIG_IGN)
    try:
        with selectors.DefaultSelector() as selector:
            with wakeup.signals(selector, lambda numbers: None):
                ignored = signal.getsignal(number) is signal.SIG_IGN
                with wakeup.deaf():
                    assert (signal.getsignal(number) is signal.SIG_IGN) == ignored
            assert signal.getsignal(number) is signal.SIG_IGN
    finally:
        signal.signal(number, before)
    assert ignored == (number != signal.SIGTERM)
