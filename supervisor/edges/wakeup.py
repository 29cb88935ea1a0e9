"""Signals as events of the loop: Python's wake-up descriptor, readable in the selector.

The descriptor only wakes: its buffer may be full when a signal comes. What came is noted by the handlers.
What was ignored when we were started stays ignored, as ``nohup`` and a shell's background jobs expect; but
not what a scheduler stops a job with.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import socket
import sys
from collections.abc import Callable, Collection, Iterable, Iterator
from types import FrameType
from typing import Any, NoReturn

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
    return _handled(STOP_SIGNALS, _do_nothing)


def deafen() -> None:
    """From here on, neither what stops a run nor a request has an effect: the run is over.

    A scheduler repeats its signal until we are gone. The end of ``signals`` changes nothing about that: one
    moment of the kernel's own handling would take our exit status away. Python gives the signals back when it
    ends: a process that has a status to keep ends with ``leave``.
    """
    for number in (*STOP_SIGNALS, *REQUESTS):
        if not _is_ignored(number):
            signal.signal(number, _do_nothing)


def leave(status: int) -> NoReturn:
    """Ends this process with a status. Nothing is handled once Python takes itself apart, so it does not."""
    deafen()
    for stream in (sys.stdout, sys.stderr):
        # Closed, full, or nobody reads it; None where we were started without one.
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()
    os._exit(status)


@contextlib.contextmanager
def restored() -> Iterator[None]:
    """Afterwards signals are handled as before, whatever happens within."""
    before = {number: signal.getsignal(number) for number in (*STOP_SIGNALS, *REQUESTS)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _do_nothing(number: int, frame: FrameType | None) -> None:
    """Unlike SIG_IGN it is not inherited, and a signal that is under way finds a handler."""


@contextlib.contextmanager
def _handled(numbers: Iterable[int], handler: Callable[[int, FrameType | None], Any]) -> Iterator[None]:
    """Has signals handled, but for those that we were told to ignore."""
    wanted = [number for number in numbers if not _is_ignored(number)]
    previous = {number: signal.signal(number, handler) for number in wanted}
    try:
        yield
    finally:
        for number, before in previous.items():
            # Within it somebody may have made us deaf for good.
            if signal.getsignal(number) is handler:
                signal.signal(number, before)


def _is_ignored(number: int) -> bool:
    return number in _MAY_BE_IGNORED and signal.getsignal(number) is signal.SIG_IGN
