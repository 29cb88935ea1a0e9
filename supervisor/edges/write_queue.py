"""The write queue: hands the writer process what the run's directory is to hold, and never waits for it.

Journal, run.json, trials.json and the attempts' logs go this way, in the order in which they were given. A
thread sends one order at a time and waits for its reply. If something must not happen before a write is on
disk, the loop says so (``after``) and goes on; a worker waits meanwhile, not the loop.

What waits is bounded: of a file that is replaced only the newest content waits, lines of the journal and a
log's output are left out when too much waits, and counted. Where no process or no thread can be had, the
supervisor writes by itself.
"""

from __future__ import annotations

import contextlib
import errno
import os
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, Protocol

from resilient.host.world import World
from supervisor.edges import writer_process
from supervisor.edges.writer_process import WriteExecutor, WriteOrder, WriteOrderKind, WriteReply

_LIMIT_BYTES = 16 * 1024 * 1024
_LINES_LIMIT_BYTES = _LIMIT_BYTES + 4 * 1024 * 1024
"""The journal has room of its own behind a log that has taken all of the other."""

_STALL_S = 2.0
_END_STALL_S = 5.0
_LEAVE_S = 5.0

Heard = Callable[[WriteReply], None]


def _nobody(reply: WriteReply) -> None:
    pass


class RunWriter(Protocol):
    """How the supervisor writes. ``heard`` may be called on another thread."""

    def append(self, kind: WriteOrderKind, path: Path, data: bytes, heard: Heard = _nobody) -> None:
        """Appends to a file: lines, or output. Never waits."""
        ...

    def await_room(self) -> None:
        """Waits until there is room for output, as long as the disk takes something."""
        ...

    def leave(self, path: Path) -> None:
        """Nothing more is appended to this file."""
        ...

    def after(self, callback: Callable[[], None]) -> None:
        """Calls back, from the loop, once everything given so far was written, or refused."""
        ...

    def wait(self, timeout_s: float) -> bool:
        """Waits for everything given so far, while the disk takes something; whether it was written."""
        ...

    def probe(self, place: Path) -> int:
        """The errno of making a file in a directory, 0 for none; waits for the disk."""
        ...

    def watch(self, selector: selectors.BaseSelector) -> None:
        """Has a loop hear what is to be called back."""
        ...


class DirectWriter:
    """Writes at once, in this process and on the caller's thread."""

    def __init__(self, world: World | None = None) -> None:
        self._executor = WriteExecutor(world or World())
        self._lock = threading.Lock()

    def append(self, kind: WriteOrderKind, path: Path, data: bytes, heard: Heard = _nobody) -> None:
        """Appends to a file."""
        with self._lock:
            reply = self._executor.do(WriteOrder(kind, path, data))
        heard(reply)

    def await_room(self) -> None:
        """There is always room."""

    def leave(self, path: Path) -> None:
        """Closes a file."""
        with self._lock:
            self._executor.do(WriteOrder(WriteOrderKind.LEAVE, path))

    def after(self, callback: Callable[[], None]) -> None:
        """Calls back at once."""
        callback()

    def wait(self, timeout_s: float) -> bool:
        """Everything was written when it was given."""
        return True

    def probe(self, place: Path) -> int:
        """The errno of making a file in a directory."""
        return writer_process.try_to_make(place)

    def watch(self, selector: selectors.BaseSelector) -> None:
        """There is nothing to hear."""


@dataclass(frozen=True)
class _Job:
    """An order, or (None) only a call in the loop; and who hears the reply."""

    order: WriteOrder | None
    heard: Heard = _nobody
    callback: Callable[[], None] | None = None


class WriteQueue:
    """Never waits for a disk. ``complain`` hears, once for each file, that it cannot be written.

    ``kept`` are descriptors that the writer process is to have, too: the run's lock. Made before the
    supervisor has threads: the process is forked.
    """

    def __init__(
        self, kept: Collection[int] = (), complain: Callable[[str], None] = lambda text: None
    ) -> None:
        self._complain = complain
        self._own = WriteExecutor(World())
        self._changed = threading.Condition()
        self._waiting: deque[_Job] = deque()
        self._waiting_bytes = 0
        self._flying: _Job | None = None
        self._given = self._done = 0
        self._moved_s = time.monotonic()
        self._left_out: dict[Path, int] = {}
        self._refused: set[Path] = set()
        self._callbacks: deque[Callable[[], None]] = deque()
        self._at_end = False
        self._handed_over = False
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._rest = os.memfd_create("resilient-rest", os.MFD_CLOEXEC)
        self.pid = 0
        self._link: socket.socket | None = None
        self._replies: BinaryIO | None = None
        with contextlib.suppress(OSError):
            self.pid, self._link = writer_process.fork(self._rest, kept)
            self._replies = self._link.makefile("rb")
        self._thread: threading.Thread | None = None

    # What is given

    def report_to(self, complain: Callable[[str], None]) -> None:
        """From now on this one hears of files that cannot be written."""
        self._complain = complain

    def append(self, kind: WriteOrderKind, path: Path, data: bytes, heard: Heard = _nobody) -> None:
        """Appends to a file: lines, or output. What there is no room for is left out."""
        limit = _LINES_LIMIT_BYTES if kind is WriteOrderKind.LINES else _LIMIT_BYTES
        with self._changed:
            if self._waiting_bytes > limit:
                self._left_out[path] = self._left_out.get(path, 0) + len(data)
                return
            self._give(_Job(WriteOrder(kind, path, data, self._left_out.pop(path, 0)), heard))

    def replace(self, path: Path, data: bytes) -> None:
        """Gives a file a new content. Of several that wait the newest is written."""
        order = WriteOrder(WriteOrderKind.REPLACE, path, data)
        with self._changed:
            for position, job in enumerate(self._waiting):
                if job.order is not None and (job.order.kind, job.order.path) == (order.kind, order.path):
                    self._waiting_bytes += len(order.data) - len(job.order.data)
                    self._waiting[position] = replace(job, order=order)
                    return
            self._give(_Job(order, lambda reply: self._hear_replaced(path, reply)))

    def probe(self, place: Path) -> int:
        """The errno of making a file in a directory; waits for the answer."""
        answered, found = threading.Event(), [0]

        def hear(reply: WriteReply) -> None:
            found[0] = reply.number
            answered.set()

        with self._changed:
            self._give(_Job(WriteOrder(WriteOrderKind.PROBE, place), hear))
        answered.wait()
        return found[0]

    def leave(self, path: Path) -> None:
        """Nothing more is appended to this file."""
        with self._changed:
            data = self._left_out.pop(path, 0)
            if data:
                self._give(_Job(WriteOrder(WriteOrderKind.OUTPUT, path, b"", data)))
            self._give(_Job(WriteOrder(WriteOrderKind.LEAVE, path)))

    def after(self, callback: Callable[[], None]) -> None:
        """Calls back, from the loop (``watch``), once everything given so far was written, or refused."""
        with self._changed:
            self._give(_Job(None, callback=callback))

    def await_room(self) -> None:
        """Waits until there is room for output, as long as the disk takes something."""
        with self._changed:
            while self._waiting_bytes > _LIMIT_BYTES and not self._at_end and self._moves(_STALL_S):
                self._changed.wait(_STALL_S)

    def wait(self, timeout_s: float, stall_s: float = _STALL_S) -> bool:
        """Waits for everything given so far, while the disk takes something; whether it was written.

        A disk that takes nothing for ``stall_s`` is not waited for.
        """
        end_s = time.monotonic() + timeout_s
        with self._changed:
            wanted = self._given
            while self._done < wanted and (left_s := end_s - time.monotonic()) > 0 and self._moves(stall_s):
                self._changed.wait(min(left_s, stall_s))
            return self._done >= wanted

    # The loop

    def watch(self, selector: selectors.BaseSelector) -> None:
        """Has a loop make the calls that were to follow a write."""
        selector.register(self._wake, selectors.EVENT_READ, self._deal)

    def _deal(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._wake)
        while self._callbacks:
            self._callbacks.popleft()()

    # The end

    def close(self, timeout_s: float) -> str:
        """Waits for the writes that are left. Names those that failed, and who still tries; "" for none."""
        written = self.wait(timeout_s, _END_STALL_S)
        with self._changed:
            self._at_end = True
            self._changed.notify_all()
            if not written:
                return self._hand_over()
        if self._thread is not None:
            self._thread.join(_LEAVE_S)
        self._own.close()
        if self._link is not None:
            with contextlib.suppress(OSError):
                self._link.sendall(WriteOrder(WriteOrderKind.REST, Path()).frame())
            # The writer process leaves then; or when both of these are closed.
            self._link.close()
            if self._replies is not None:
                self._replies.close()
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self.pid, 0)
        return ""

    def _hand_over(self) -> str:
        """The writer process does the rest by itself, whenever it can; it holds the run's lock until then."""
        jobs = [job for job in (self._flying, *self._waiting) if job is not None and job.order is not None]
        names = dict.fromkeys(job.order.path.name for job in jobs if job.order is not None)
        text = f"the disk of the run directory does not answer, {', '.join(names)} could not be written"
        self._handed_over = True
        if self._link is None:
            return f"{text} to the end"
        try:
            with os.fdopen(os.dup(self._rest), "wb") as rest:
                for job in self._waiting:
                    if job.order is not None:
                        rest.write(job.order.frame())
            self._link.sendall(WriteOrder(WriteOrderKind.REST, Path()).frame())
        except OSError:
            return f"{text} to the end"
        return f"{text} yet; process {self.pid} holds the run, and writes them once it does"

    # Inside

    def _give(self, job: _Job) -> None:
        if not self._waiting and self._flying is None:
            self._moved_s = time.monotonic()
        self._waiting.append(job)
        self._waiting_bytes += len(job.order.data) if job.order is not None else 0
        self._given += 1
        if self._thread is None:
            thread = threading.Thread(target=self._work, name="write-queue", daemon=True)
            try:
                thread.start()
                self._thread = thread
            except RuntimeError:
                # No thread can be had: the caller writes, and waits for the disk.
                self._work_off()
        self._changed.notify_all()

    def _moves(self, stall_s: float) -> bool:
        return time.monotonic() - self._moved_s < stall_s

    def _work_off(self) -> None:
        while self._waiting:
            job = self._waiting.popleft()
            self._waiting_bytes -= len(job.order.data) if job.order is not None else 0
            self._finish(job, self._ask(job.order))
            self._done += 1

    # The thread

    def _work(self) -> None:
        while (job := self._next()) is not None:
            reply = self._ask(job.order)
            if self._handed_over:
                return
            self._finish(job, reply)
            with self._changed:
                self._flying = None
                self._done += 1
                self._moved_s = time.monotonic()
                self._changed.notify_all()

    def _next(self) -> _Job | None:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._at_end)
            if not self._waiting or self._handed_over:
                return None
            self._flying = job = self._waiting.popleft()
            self._waiting_bytes -= len(job.order.data) if job.order is not None else 0
            return job

    def _ask(self, order: WriteOrder | None) -> WriteReply:
        if order is None:
            return WriteReply()
        if self._link is not None and self._replies is not None:
            with contextlib.suppress(OSError):
                self._link.sendall(order.frame())
                if (reply := writer_process.read_reply(self._replies)) is not None:
                    return reply
            if self._handed_over:
                return WriteReply(errno.EIO)
            # Somebody has killed it.
            self._link = None
        return self._own.do(order)

    def _finish(self, job: _Job, reply: WriteReply) -> None:
        job.heard(reply)
        if job.callback is not None:
            self._callbacks.append(job.callback)
            with contextlib.suppress(BlockingIOError):
                os.eventfd_write(self._wake, 1)

    def _hear_replaced(self, path: Path, reply: WriteReply) -> None:
        if not reply.number:
            self._refused.discard(path)
        elif path not in self._refused:
            self._refused.add(path)
            self._complain(f"{path.name} cannot be written: {reply.error}")
