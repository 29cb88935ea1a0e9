"""A stream of ours that somebody may read: stdout or stderr, written by a thread of its own.

Whoever reads it may stop for ever (``less``, a terminal after Ctrl-S), be gone (EPIPE), or be a full disk.
Nobody but the thread waits for that. What waits to be written is bounded: a worker's output waits for room,
as it would without us, or is left out where a terminal is too slow for it; our own lines never wait. What is
left out is counted and told in its place, once the stream takes something again: the log has it all.
"""

from __future__ import annotations

import contextlib
import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable

from resilient.host.descriptors import identity

_WAITING_BYTES = 16 * 1024 * 1024
_SLACK_BYTES = 4 * 1024 * 1024
_PIECE_BYTES = 16 * 1024
"""Small, so that a slow reader is seen to take something."""

_STALL_S = 2.0
_DRAIN_S = 60.0
_MOMENT_S = 0.01


class OwnLine(bytes):
    """A line of our own."""


class Cursor:
    """Where the output of one or two outlets stands: those that lead to one terminal, or one file, share it.

    A line of ours begins on a line of its own, also behind a progress bar that has not come to its end.
    """

    def __init__(self) -> None:
        # One writes at a time: of what two have written to one terminal nobody knows which came last.
        self.turn = threading.Lock()
        self.is_inside_line = False

    def passed(self, data: bytes | memoryview) -> None:
        """This was written."""
        if data:
            # A carriage return goes back over a line that is there: it ends none.
            self.is_inside_line = data[-1:] != b"\n"


def outlets(stdout: int = 1, stderr: int = 2) -> tuple[Outlet, Outlet]:
    """Our stdout and stderr."""
    cursor = Cursor()
    apart = identity(stdout) != identity(stderr)
    return Outlet(stdout, cursor=cursor), Outlet(stderr, cursor=Cursor() if apart else cursor)


class Outlet:
    """Writes to a descriptor, in the order of what it is given.

    ``limit_bytes`` is how much may wait before a worker has to.
    """

    def __init__(
        self, descriptor: int, limit_bytes: int = _WAITING_BYTES, cursor: Cursor | None = None
    ) -> None:
        self._descriptor = descriptor
        self._cursor = cursor or Cursor()
        self._complained = False
        self._complain: Callable[[str], None] | None = None
        self._limit_bytes = limit_bytes
        self._may_skip = os.isatty(descriptor)
        self._changed = threading.Condition()
        # Of what was left out there is the size.
        self._waiting: deque[bytes | OwnLine | int] = deque()
        self._waiting_bytes = 0
        self._left_out_bytes = 0
        self._pieces = 0
        self._at_end = False
        self._done = False
        self._thread: threading.Thread | None = None

    def report_to(self, complain: Callable[[str], None]) -> None:
        """From now on this one hears, once, that the descriptor cannot be written."""
        self._complain = complain

    def pass_on(self, data: bytes, may_wait: Callable[[], bool] = lambda: True) -> None:
        """Takes a worker's output; waits for room as long as ``may_wait`` says so (see ``look_again``)."""
        with self._changed:
            if not self._may_skip:
                self._changed.wait_for(lambda: self._has_room or not may_wait())
            # A worker that is gone is not waited for, but what was in its pipe is little.
            slack_bytes = 0 if self._may_skip else _SLACK_BYTES
            if self._waiting_bytes <= self._limit_bytes + slack_bytes:
                self._append(data)
            else:
                self._leave_out(len(data))

    def offer(self, line: bytes) -> bool:
        """Takes a line of our own, if there is room; never waits."""
        with self._changed:
            if self._at_end or self._waiting_bytes > self._limit_bytes + 2 * _SLACK_BYTES:
                return False
            self._append(OwnLine(line))
            return True

    def look_again(self) -> None:
        """Whoever waits for room asks again whether to."""
        with self._changed:
            self._changed.notify_all()

    def close(self) -> None:
        """Waits for what is still to be written, but only a moment for a stream that takes nothing."""
        end_s = time.monotonic() + _DRAIN_S
        with self._changed:
            self._at_end = True
            if self._waiting:
                self._begin()
            self._changed.notify_all()
            while self._thread is not None and not self._done and time.monotonic() < end_s:
                pieces = self._pieces
                if not self._changed.wait_for(self._moved_on(pieces), _STALL_S):
                    return
            alone = self._thread is None
        if alone:
            # No thread could ever be started, which is most likely what is to be told.
            for data in self._waiting:
                write_line(self._descriptor, data if isinstance(data, bytes) else b"")

    def _moved_on(self, pieces: int) -> Callable[[], bool]:
        return lambda: self._done or self._pieces != pieces

    @property
    def _has_room(self) -> bool:
        return self._waiting_bytes <= self._limit_bytes

    def _append(self, data: bytes) -> None:
        self._waiting.append(data)
        self._waiting_bytes += len(data)
        self._begin()
        self._changed.notify_all()

    def _leave_out(self, size_bytes: int) -> None:
        before = self._waiting.pop() if self._waiting and isinstance(self._waiting[-1], int) else 0
        assert isinstance(before, int)
        self._waiting.append(before + size_bytes)

    def _begin(self) -> None:
        """Has the thread started. Where there can be none now, what waits does so until there can be."""
        if self._thread is None:
            thread = threading.Thread(target=self._write, name="outlet", daemon=True)
            with contextlib.suppress(RuntimeError):
                thread.start()
                self._thread = thread

    # The thread

    def _write(self) -> None:
        while (data := self._next()) is not None:
            if isinstance(data, int):
                self._left_out_bytes += data
            else:
                self._put(data)
        self._note()
        with self._changed:
            self._done = True
            self._changed.notify_all()

    def _next(self) -> bytes | int | None:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._at_end)
            if not self._waiting:
                return None
            data = self._waiting.popleft()
            if isinstance(data, bytes):
                self._waiting_bytes -= len(data)
            self._changed.notify_all()
            return data

    def _put(self, data: bytes) -> None:
        with self._cursor.turn:
            if isinstance(data, OwnLine) and self._cursor.is_inside_line and not self._left_out_bytes:
                self._write_all(b"\n")
            if not self._note() or not self._write_all(data):
                self._left_out_bytes += len(data)

    def _note(self) -> bool:
        """Tells what was left out before, if anything was; False where even that cannot be written."""
        if not self._left_out_bytes:
            return True
        note = f"\n[{self._left_out_bytes} bytes of output are not shown here; the log has them]\n"
        if not self._write_all(note.encode()):
            return False
        self._left_out_bytes = 0
        return True

    def _write_all(self, data: bytes) -> bool:
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(self._descriptor, view[:_PIECE_BYTES]) :]
            except BlockingIOError:
                # Somebody who shares it with us has made it non-blocking.
                _wait_for_room(self._descriptor, None)
            except OSError as error:
                self._cannot(error)
                return False
            with self._changed:
                self._pieces += 1
                self._changed.notify_all()
        self._cursor.passed(data)
        return True

    def _cannot(self, error: OSError) -> None:
        """The training goes on, and so do we: the next piece is tried again, a disk may have room then."""
        if self._complain is not None and not self._complained:
            self._complained = True
            name = {1: "standard output", 2: "standard error"}.get(self._descriptor, "a stream")
            self._complain(f"{name} cannot be written: {error.strerror}; the logs have all output")


def write_line(descriptor: int, line: bytes) -> None:
    """Writes a line at once, before and after a run's life; nobody who reads it is no reason to fail.

    One who reads nothing is waited for a moment.
    """
    view, end_s = memoryview(line), time.monotonic() + _STALL_S
    with contextlib.suppress(OSError):
        while view and time.monotonic() < end_s and _wait_for_room(descriptor, _STALL_S):
            with contextlib.suppress(BlockingIOError):
                view = view[os.write(descriptor, view[: select.PIPE_BUF]) :]


def _wait_for_room(descriptor: int, timeout_s: float | None) -> bool:
    """Waits until a descriptor can be written to, or has failed; False when the time is over before."""
    room = select.poll()
    room.register(descriptor, select.POLLOUT)
    found = room.poll(None if timeout_s is None else timeout_s * 1000)
    if timeout_s is None:
        # There may be room, and not enough of it: never a busy loop.
        time.sleep(_MOMENT_S)
    return bool(found)
