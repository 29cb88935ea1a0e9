"""Signals as events of the loop: Python's wake-up descriptor, readable in the selector.

The descriptor only wakes: its buffer may be full when a signal comes. What came is noted by the handlers.
What was ignored when we were started stays ignored, as ``nohup`` and a shell's background jobs expect; but
not what a scheduler stops a job with.
"""

from __future__ import annotations

import contextlib
import selectors
import signal
import socket
from collections.abc import Callable, Collection, Iterable, Iterator
from types import FrameType
from typing import Any

from resilient.config import SAVE_SIGNAL

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP)
REQUESTS = {int(signal.SIGQUIT): "stacks", SAVE_SIGNAL: "save"}
"""What is passed on to the workers, and changes nothing about the run."""

_MAY_BE_IGNORED = {signal.SIGHUP, signal.SIGINT, signal.SIGQUIT}
_MOST = 2
"""Of the same signal: a second Ctrl-C means more than one, a third does not."""


@contextlib.contextmanager
def signals(selector: selectors.BaseSelector, hear: Callable[[Collection[int]], None]) -> Iterator[None]:
    """Within it, ``hear`` is called with the numbers of the signals that came, from the selector's loop.

    They are those that stop a run, the requests, and SIGCHLD; in the order they came.
    """
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    arrived: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        if arrived.count(number) < _MOST:
            arrived.append(number)
        # The kernel's byte may have been read before this runs.
        with contextlib.suppress(OSError):
            theirs.send(b"!")

    def deal() -> None:
        # In this order: what comes after the first line wakes us again.
        ours.recv(65536)
        numbers = arrived[:]
        del arrived[: len(numbers)]
        hear(numbers)

    selector.register(ours, selectors.EVENT_READ, deal)
    wakeup = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
    try:
        with _handled((*STOP_SIGNALS, *REQUESTS, signal.SIGCHLD), note):
            yield
    finally:
        signal.set_wakeup_fd(wakeup)
        selector.unregister(ours)
        ours.close()
        theirs.close()


def deaf() -> contextlib.AbstractContextManager[None]:
    """Within it, what stops a run has no effect."""
    return _handled(STOP_SIGNALS, lambda number, frame: None)


@contextlib.contextmanager
def _handled(numbers: Iterable[int], handler: Callable[[int, FrameType | None], Any]) -> Iterator[None]:
    """Has signals handled, but for those that we were told to ignore."""
    wanted = [number for number in numbers if not _is_ignored(number)]
    previous = {number: signal.signal(number, handler) for number in wanted}
    try:
        yield
    finally:
        for number, before in previous.items():
            signal.signal(number, before)


def _is_ignored(number: int) -> bool:
    return number in _MAY_BE_IGNORED and signal.getsignal(number) is signal.SIG_IGN
