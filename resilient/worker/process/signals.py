"""Signals that ask a training process to stop, turned into a checkpoint first.

One rule per kind of handler that the script left in place:

* ignored: stays ignored;
* a function of the script's (OnRequestExit's too): it is called as ever, at once; a checkpoint of the last
  completed step follows at the next boundary, and the training goes on as that function left it. If it calls
  the handler that it had found, which may be ours, the rule is that of the one before it;
* the default of SIGINT: the checkpoint first, then KeyboardInterrupt, as Python raises it;
* the default of the others: the checkpoint first, then the process dies of the signal, as without us.

While a data pipeline of MindSpore's runs, a SIGINT arrives as SIGTERM, here as in plain ``python``: its C++
handler takes the place of Python's and sends the other signal (seen with 2.10).

A handler runs on the main thread between two bytecodes, perhaps in the middle of a step, when the parameters
are half-done: then the signal waits for the boundary. Only a second Ctrl-C does not wait: the person means
it. Of the others a second one may be the same request, sent to the supervisor and to us.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

from resilient.config import SAVE_SIGNAL

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP)


class SignalGuard:
    """Stands in front of the handlers of the stop signals.

    ``ready()`` tells whether a checkpoint can be made right now, ``save(signal number)`` makes it.
    ``came(signal number)`` hears of each at once.
    """

    def __init__(
        self,
        ready: Callable[[], bool],
        save: Callable[[int], None],
        came: Callable[[int], None] = lambda number: None,
    ) -> None:
        self._ready = ready
        self._save = save
        self._came = came
        # The handlers that were there, the newest last.
        self._previous: dict[int, list[Any]] = {}
        self._pending: list[int] = []
        # Of a signal that is being handled: what it has interrupted, how many of the handlers that were
        # there are at work, and the last of them that was reached: what it stands for follows the checkpoint.
        self._frames: dict[int, FrameType | None] = {}
        self._depths: dict[int, int] = {}
        self._reached: dict[int, Any] = {}
        self.received: int | None = None

    def install(self) -> None:
        """Takes its place in front of whatever handlers there are now; again after somebody else did."""
        if not _on_main_thread():
            return
        ours = self._handle
        for number in STOP_SIGNALS:
            # At every step: signal.getsignal makes an enumeration's member of each answer, and is slow at it.
            present = _signal.getsignal(number)
            # None: installed from C, which Python can neither call nor put back.
            if present == ours or present in (signal.SIG_IGN, None):
                continue
            handlers = self._previous.setdefault(number, [])
            if not handlers or handlers[-1] != present:
                handlers.append(present)
            signal.signal(number, ours)

    def restore(self) -> None:
        """Puts the handlers back that were there, except where somebody else has replaced ours since."""
        if not _on_main_thread():
            return
        for number, handlers in self._previous.items():
            if signal.getsignal(number) == self._handle:
                signal.signal(number, handlers[-1])
        self._previous.clear()

    def at_boundary(self) -> None:
        """Deals with what came meanwhile. May raise KeyboardInterrupt, or end the process."""
        while self._pending:
            self._act(self._pending.pop(0))

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if number in self._frames:
            if frame in (None, self._frames[number]):
                # No signal: the handler that was there calls the one that it had found, ours.
                self._descend(number, frame)
            return
        self.received = number
        self._came(number)
        self._frames[number] = frame
        try:
            self._descend(number, frame)
        finally:
            del self._frames[number]
        insists = number in self._pending and number == signal.SIGINT
        if number not in self._pending:
            self._pending.append(number)
        if self._ready():
            self.at_boundary()
        elif insists:
            self._pending.remove(number)
            self._pass_on(number, frame)

    def _descend(self, number: int, frame: FrameType | None) -> None:
        """Calls the handler that was there before us; one that calls up in turn finds the one before it."""
        depth, handlers = self._depths.get(number, 0), self._previous.get(number, [])
        previous = handlers[-1 - depth] if depth < len(handlers) else signal.SIG_DFL
        self._reached[number] = previous
        if callable(previous) and previous is not signal.default_int_handler:
            self._depths[number] = depth + 1
            try:
                previous(number, frame)
            finally:
                self._depths[number] = depth

    def _act(self, number: int) -> None:
        self._save(number)
        self._pass_on(number, None)

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        previous = self._reached.get(number, signal.SIG_DFL)
        if previous is signal.default_int_handler:
            signal.default_int_handler(number, frame)
        elif previous == signal.SIG_DFL:
            die_of(number)


class SaveSignal:
    """Hears SAVE_SIGNAL while a training call runs. Otherwise it is ignored: its default is to kill.

    A script that has a handler of its own for this signal keeps it, and its meaning.
    """

    def __init__(self, note: Callable[[], None]) -> None:
        self._note = note

    def listen(self) -> None:
        """From now on ``note`` is called for each request."""
        if _on_main_thread() and _signal.getsignal(SAVE_SIGNAL) == signal.SIG_IGN:
            signal.signal(SAVE_SIGNAL, self._handle)
            # Nothing is to fail because of it, were it in the middle of a system call of somebody's in C.
            signal.siginterrupt(SAVE_SIGNAL, False)

    def ignore(self) -> None:
        """No longer."""
        if _on_main_thread() and _signal.getsignal(SAVE_SIGNAL) == self._handle:
            ignore_save_requests()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self._note()


class PipeGuard:
    """Keeps a training from dying of SIGPIPE when its supervisor has died: it has to save first.

    With the supervisor go the pipes that the output is written to. A script that has given the signal its
    default back means pipes of its own: while the supervisor lives, it dies of them as it wants to.
    ``is_gone()`` tells whether the supervisor has died.
    """

    def __init__(self, is_gone: Callable[[], bool]) -> None:
        self._is_gone = is_gone

    def install(self) -> None:
        """Takes the place of the default, where it is that; again after the script has set it."""
        if _on_main_thread() and _signal.getsignal(signal.SIGPIPE) == signal.SIG_DFL:
            signal.signal(signal.SIGPIPE, self._handle)

    def restore(self) -> None:
        """Puts the default back."""
        if _on_main_thread() and _signal.getsignal(signal.SIGPIPE) == self._handle:
            signal.signal(signal.SIGPIPE, signal.SIG_DFL)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if not self._is_gone():
            die_of(number)


def ignore_save_requests() -> None:
    """There is nothing to save (yet). Called first of all in a process that somebody may send one to."""
    signal.signal(SAVE_SIGNAL, signal.SIG_IGN)


def _on_main_thread() -> bool:
    """Only there Python allows to install handlers."""
    return threading.current_thread() is threading.main_thread()


def die_of(number: int) -> None:
    """Ends the process by this signal, so that whoever waits for it sees the true reason."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()
    signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [number])
    os.kill(os.getpid(), number)
