"""The run's standard input: each attempt reads it from where the first one began.

A regular file is rewound. Of a pipe, or of a connection, each worker gets a pipe of its own. What a worker
reads from it is kept here, and the next attempt reads that first. Nothing is taken from the source ahead of
the worker: its bytes are copied into the worker's pipe, and taken once the worker has read them. So a loop of
a shell that reads the same pipe (``while read line; do resilient-run ...; done``) finds its lines, and an
endless source costs nothing. Everything else is inherited: a terminal, ``/dev/null``.

The worker's pipe has room for one page, and we write when it is empty: the kernel tells us then that the
worker has read what was there.
"""

from __future__ import annotations

import array
import contextlib
import ctypes
import errno
import fcntl
import os
import select
import socket
import stat
import termios
import threading
from collections.abc import Callable
from typing import Protocol

_PAGE_BYTES = 4096
_SPLICE_F_NONBLOCK = 2
_JOIN_S = 5.0
"""For a thread that never waits without listening for its end."""

LIMIT_BYTES = 64 * 1024 * 1024
"""So much of a pipe is kept for later attempts."""


class Share(Protocol):
    """What one worker gets: the ``descriptor`` to be its standard input."""

    @property
    def descriptor(self) -> int: ...

    def begin(self) -> None:
        """The worker's attempt begins. To be called once more does nothing."""
        ...

    def started(self) -> None:
        """The worker has the descriptor."""
        ...

    def end(self) -> None:
        """The worker reads no more."""
        ...


class StandardInput:
    """The standard input of a run, by default our own. ``complain`` hears what an attempt cannot read."""

    def __init__(
        self, complain: Callable[[str], None], descriptor: int = 0, limit_bytes: int = LIMIT_BYTES
    ) -> None:
        self._descriptor = descriptor
        self._complain = complain
        self._limit_bytes = limit_bytes
        self._start = _position(descriptor)
        source = _source(descriptor) if self._start is None else None
        self._kept = KeptInput(source, limit_bytes) if source is not None else None

    def share(self, *, waits: bool = False) -> Share:
        """A share of it for one worker, begun unless the worker ``waits`` for its attempt. Raises OSError."""
        share = self._share()
        if not waits:
            # A command reads as soon as it is there.
            share.begin()
        return share

    def _share(self) -> Share:
        if self._kept is None:
            return _Inherited(self._descriptor, self._start)
        return _Fed(self._kept, self._complain)


class _Inherited:
    """The descriptor itself; of a file, where the first attempt began to read it."""

    def __init__(self, descriptor: int, start: int | None) -> None:
        self.descriptor = descriptor
        self._start = start

    def begin(self) -> None:
        start, self._start = self._start, None
        if start is not None:
            # Processes that share the open file share its position: the last attempt has moved it.
            with contextlib.suppress(OSError):
                os.lseek(self.descriptor, start, os.SEEK_SET)

    def started(self) -> None:
        pass

    def end(self) -> None:
        pass


class _Fed:
    """A pipe that a thread fills as the worker empties it."""

    def __init__(self, kept: KeptInput, complain: Callable[[str], None]) -> None:
        self._kept = kept
        self._complain = complain
        self._thread: threading.Thread | None = None
        with contextlib.ExitStack() as undo:
            self.descriptor, self._pipe = os.pipe()
            undo.callback(os.close, self.descriptor)
            undo.callback(os.close, self._pipe)
            self._over = os.eventfd(0, os.EFD_CLOEXEC)
            undo.callback(os.close, self._over)
            # Refused to a user whose pipes hold too much already.
            fcntl.fcntl(self._pipe, fcntl.F_SETPIPE_SZ, _PAGE_BYTES)
            os.set_blocking(self._pipe, False)
            undo.pop_all()

    def begin(self) -> None:
        if self._thread is not None:
            return
        if cut := self._kept.missing():
            self._complain(cut)
        self._thread = threading.Thread(target=self._run, name="resilient-stdin", daemon=True)
        try:
            self._thread.start()
        except RuntimeError as error:
            self._complain(f"the script gets no standard input: {error}")
            self._close_pipe()

    def started(self) -> None:
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def end(self) -> None:
        self.started()
        os.eventfd_write(self._over, 1)
        if self._thread is not None and self._thread.ident is not None:
            self._thread.join(_JOIN_S)
            if self._thread.is_alive():
                # It still uses the descriptors. This is the loop's thread, and a stop has its time.
                self._complain("standard input is held by the kernel: its thread is left behind")
                return
        self._close_pipe()
        os.close(self._over)

    def _run(self) -> None:
        try:
            self._feed()
        except OSError as error:
            self._complain(f"standard input cannot be passed on any further: {error}")
        # The worker finds the end of its input now; it may have an hour of work left.
        self._close_pipe()

    def _close_pipe(self) -> None:
        pipe, self._pipe = self._pipe, -1
        if pipe >= 0:
            os.close(pipe)

    def _feed(self) -> None:
        position = 0
        while True:
            data = self._kept.look(position)
            if data is None:
                # Also when the worker closes its end: poll reports an error on ours unasked.
                if self._waits((self._kept.source.descriptor, select.POLLIN), (self._pipe, 0)):
                    return
                continue
            if not data:
                return
            try:
                os.write(self._pipe, data)
            except BrokenPipeError:
                return
            over = self._waits((self._pipe, select.POLLOUT))
            taken = len(data) - _unread_bytes(self._pipe)
            if said := self._kept.take(position, data[:taken]):
                self._complain(said)
            position += taken
            if over:
                return

    def _waits(self, *wanted: tuple[int, int]) -> bool:
        """Waits for one of these; whether the worker, or its attempt, is over."""
        poll = select.poll()
        poll.register(self._over, select.POLLIN)
        for descriptor, events in wanted:
            poll.register(descriptor, events)
        happened = dict(poll.poll())
        return self._over in happened or bool(happened.get(self._pipe, 0) & select.POLLERR)


class KeptInput:
    """What workers have read from a source so far, and what comes after it."""

    def __init__(self, source: InputSource, limit_bytes: int) -> None:
        self.source = source
        self._limit_bytes = limit_bytes
        self._bytes = bytearray()
        self._taken_bytes = 0

    def look(self, position: int) -> bytes | None:
        """At most a page from a position on; empty at the end, None where there is nothing yet."""
        if position < len(self._bytes):
            return bytes(self._bytes[position : position + _PAGE_BYTES])
        return self.source.peek() if position == self._taken_bytes else b""

    def take(self, position: int, data: bytes) -> str:
        """A worker has read this from a position on. The words to tell where it is not kept."""
        if position < self._taken_bytes or not data:
            return ""
        fitted = self._is_whole
        # However much of it somebody else has taken meanwhile, the worker has read it.
        self.source.take(len(data))
        self._taken_bytes += len(data)
        if self._taken_bytes <= self._limit_bytes:
            self._bytes += data
        if self._is_whole or not fitted:
            return ""
        return (
            f"standard input is longer than what is kept of it ({_size(self._limit_bytes)}): "
            "another attempt would read only its beginning; give it as a file (< FILE)"
        )

    def missing(self) -> str:
        """The words to tell where a worker cannot read all that an earlier one has read; or none."""
        if self._is_whole:
            return ""
        return (
            f"this attempt reads only the first {_size(len(self._bytes))} of standard input, then its end: "
            "earlier attempts have read more than is kept; a script that fails or ends there does so "
            "because of that; give the input as a file (< FILE)"
        )

    @property
    def _is_whole(self) -> bool:
        return self._taken_bytes == len(self._bytes)


class InputSource(Protocol):
    """Where standard input comes from."""

    @property
    def descriptor(self) -> int: ...

    def peek(self) -> bytes | None:
        """At most a page of what is there, without taking it; empty at the end, None for nothing yet."""
        ...

    def take(self, count: int) -> bytes:
        """Takes that many bytes; less where somebody else who reads the source was first. Never waits."""
        ...


class _Pipe:
    """A pipe: ``tee`` copies its bytes and leaves them where they are."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._kernel = ctypes.CDLL(None, use_errno=True)
        self._copy, self._to_copy = os.pipe()

    def peek(self) -> bytes | None:
        count = self._kernel.tee(
            self.descriptor, self._to_copy, ctypes.c_size_t(_PAGE_BYTES), _SPLICE_F_NONBLOCK
        )
        if count < 0:
            number = ctypes.get_errno()
            if number in (errno.EAGAIN, errno.EINTR):
                return None
            raise OSError(number, os.strerror(number))
        return os.read(self._copy, _PAGE_BYTES) if count else b""

    def take(self, count: int) -> bytes:
        return _taken(self._move, count)

    def _move(self, size: int) -> bytes:
        # Not os.read, which waits where another reader was first; and O_NONBLOCK would be that reader's too.
        moved = self._kernel.splice(
            self.descriptor, None, self._to_copy, None, ctypes.c_size_t(size), _SPLICE_F_NONBLOCK
        )
        if moved < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        return os.read(self._copy, moved) if moved else b""


class _Connection:
    """A connected socket, as some daemons give it."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._socket = socket.socket(fileno=os.dup(descriptor))
        if self._socket.type != socket.SOCK_STREAM:
            raise OSError(errno.EPROTOTYPE, "not a stream")

    def peek(self) -> bytes | None:
        try:
            return self._socket.recv(_PAGE_BYTES, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return None

    def take(self, count: int) -> bytes:
        return _taken(lambda size: self._socket.recv(size, socket.MSG_DONTWAIT), count)


def _taken(read: Callable[[int], bytes], count: int) -> bytes:
    data = bytearray()
    # Another reader of the source was first: the rest is not there any more.
    with contextlib.suppress(BlockingIOError):
        while len(data) < count and (piece := read(count - len(data))):
            data += piece
    return bytes(data)


def _position(descriptor: int) -> int | None:
    """Where in a file we are; None for what is no file that can be rewound."""
    try:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISREG(mode) or stat.S_ISBLK(mode):
            return os.lseek(descriptor, 0, os.SEEK_CUR)
    except OSError:
        pass
    return None


def _source(descriptor: int) -> InputSource | None:
    """A pipe, or a connection, that can be looked into; None for everything else."""
    try:
        mode = os.fstat(descriptor).st_mode
        source: InputSource
        if stat.S_ISFIFO(mode):
            source = _Pipe(descriptor)
        elif stat.S_ISSOCK(mode):
            source = _Connection(descriptor)
        else:
            return None
        # One that is open for writing only, or that listens, says so here.
        source.peek()
    except (OSError, AttributeError):
        return None
    return source


def _unread_bytes(pipe: int) -> int:
    count = array.array("i", [0])
    fcntl.ioctl(pipe, termios.FIONREAD, count, True)
    return count[0]


def _size(count: int) -> str:
    return f"{count / 2**20:g} MiB" if count >= 2**20 else f"{count} bytes"
