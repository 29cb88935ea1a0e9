"""The worker's output: kept byte for byte, and passed on.

Each stream has a thread that reads what the worker writes, has it put into the attempt's log, and hands it to
our own stream's ``Outlet``. A terminal that has been stopped (Ctrl-S) does not hold up the worker: what it
cannot take in the end is in the log. A pipe or a file gets every byte while the worker lives, whatever that
takes: the worker waits once much is waiting, as it would without us. When it is gone, nobody waits for the
console any more: what the worker has left in its pipe goes into the log.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

from supervisor.edges.outlet import Outlet
from supervisor.edges.write_queue import DirectWriter, RunWriter
from supervisor.edges.writer_process import WriteOrderKind, WriteReply

_CHUNK_BYTES = 64 * 1024


class OutputLog:
    """The file that keeps the output of one attempt. The output passes, whatever its disk does.

    A disk that is full is said once, and tried again with each write. The log itself says how much is missing
    in it. The last writer that leaves closes it. All have entered before the first of them leaves. ``writer``
    writes; by default at once, in this process.
    """

    def __init__(self, path: Path, complain: Callable[[str], None], writer: RunWriter | None = None) -> None:
        self._path = path
        self._complain = complain
        self._complained = False
        self._writer = writer or DirectWriter()
        self._writers = 0
        self._lock = threading.Lock()
        # The file is there from the beginning, whether anything is said or not.
        self.write(b"")

    def enter(self) -> None:
        """Somebody is going to write."""
        with self._lock:
            self._writers += 1

    def write(self, data: bytes) -> None:
        """Has this appended. It waits for a disk that is slower than the worker, not for one that is dead."""
        self._writer.await_room()
        self._writer.append(WriteOrderKind.OUTPUT, self._path, data, self._hear)

    def leave(self) -> None:
        """One of those that write has come to its end."""
        with self._lock:
            self._writers -= 1
            if self._writers:
                return
        self._writer.leave(self._path)

    def fail(self, text: str) -> None:
        """Says once what is wrong with keeping the output."""
        if not self._complained:
            self._complained = True
            self._complain(text)

    def settle(self, timeout_s: float) -> None:
        """Waits until the file has what was written, unless its disk does not answer."""
        self._writer.wait(timeout_s)

    def _hear(self, reply: WriteReply) -> None:
        if reply.number:
            self.fail(
                f"not all output can be kept, {self._path} cannot be written: {reply.error}; "
                "the log says what is missing"
            )


class OutputPump:
    """Puts one stream of the worker's into a log, and passes it on to a stream of ours.

    ``source`` is an unbuffered pipe, which is the pump's from now on. With no ``target`` it is for the log
    alone.
    """

    def __init__(self, source: IO[bytes], target: Outlet | None, log: OutputLog) -> None:
        self._source = source
        self._target = target
        self._log = log
        self._over = False
        self._waits = False
        self._reader = threading.Thread(target=self._read, name="output-reader", daemon=True)
        log.enter()

    def start(self) -> None:
        """Begins to read. Raises OSError where no thread can be had."""
        try:
            self._reader.start()
        except RuntimeError as error:
            raise OSError(errno.EAGAIN, str(error)) from error

    def finish(self, timeout_s: float) -> None:
        """The worker is gone: waits until what it has left is in the log, not until it is on a console."""
        if self._reader.ident is None:
            self._close()
            return
        self._over = True
        if self._target is not None:
            self._target.look_again()
        end_s = time.monotonic() + timeout_s
        self._reader.join(timeout_s)
        self._log.settle(max(0.0, end_s - time.monotonic()))

    @property
    def reading(self) -> bool:
        """Whether it still has something to read: a process that would not die may hold the other end."""
        return self._reader.is_alive()

    @property
    def waits(self) -> bool:
        """Whether it waits for whoever reads our output, and the worker with it."""
        return self._waits

    def _read(self) -> None:
        with contextlib.suppress(OSError):
            while data := os.read(self._source.fileno(), _CHUNK_BYTES):
                self._hand_on(data)
        self._close()

    def _hand_on(self, data: bytes) -> None:
        try:
            self._log.write(data)
            if self._target is not None:
                self._target.pass_on(data, self._may_wait)
        except Exception as error:  # noqa: BLE001 - who reads no more keeps the worker from saying anything
            self._log.fail(f"some of the output is lost: {type(error).__name__}: {error}")
        self._waits = False

    def _may_wait(self) -> bool:
        """Asked where there is no room."""
        self._waits = not self._over
        return self._waits

    def _close(self) -> None:
        self._source.close()
        self._log.leave()
