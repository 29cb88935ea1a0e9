"""Signals as events of the loop: Python's wake-up descriptor, readable in the selector."""

from __future__ import annotations

import contextlib
import selectors
import signal
import socket
from collections.abc import Callable, Iterable, Iterator
from types import FrameType


@contextlib.contextmanager
def signals(
    selector: selectors.BaseSelector, numbers: Iterable[int], hear: Callable[[bytes], None]
) -> Iterator[None]:
    """Within it, ``hear`` is called with the numbers of the signals that came, from the selector's loop."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    selector.register(ours, selectors.EVENT_READ, lambda: hear(ours.recv(4096)))
    wakeup = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
    previous = {number: signal.signal(number, _note) for number in numbers}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(wakeup)
        selector.unregister(ours)
        ours.close()
        theirs.close()


def _note(number: int, frame: FrameType | None) -> None:
    """A handler that does nothing: the wake-up descriptor carries the signal."""
