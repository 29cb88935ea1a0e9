"""Signals as events of the loop: Python's wake-up descriptor, readable in the selector."""

from __future__ import annotations

import contextlib
import selectors
import signal
import socket
from collections.abc import Callable, Iterator
from types import FrameType

from resilient.config import SAVE_SIGNAL

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP)
REQUESTS = {int(signal.SIGQUIT): "stacks", SAVE_SIGNAL: "save"}
"""What is passed on to the workers, and changes nothing about the run."""


@contextlib.contextmanager
def signals(selector: selectors.BaseSelector, hear: Callable[[bytes], None]) -> Iterator[None]:
    """Within it, ``hear`` is called with the numbers of the signals that came, from the selector's loop.

    They are those that stop a run, the requests, and SIGCHLD.
    """
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    selector.register(ours, selectors.EVENT_READ, lambda: hear(ours.recv(4096)))
    wakeup = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
    caught = (*STOP_SIGNALS, *REQUESTS, signal.SIGCHLD)
    previous = {number: signal.signal(number, _note) for number in caught}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(wakeup)
        selector.unregister(ours)
        ours.close()
        theirs.close()


@contextlib.contextmanager
def deaf() -> Iterator[None]:
    """Within it, what stops a run has no effect."""
    previous = {number: signal.signal(number, _note) for number in STOP_SIGNALS}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _note(number: int, frame: FrameType | None) -> None:
    """A handler that does nothing: the wake-up descriptor carries the signal."""
