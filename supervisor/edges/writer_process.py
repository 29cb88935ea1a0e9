"""The writer process: it does the supervisor's own writes to the run's directory.

A file system that is frozen (``fsfreeze``, a snapshot) or whose server is dead holds everybody who writes to
it, in a sleep that not even SIGKILL ends; a process cannot even be reaped while one of its threads sleeps so.
So the supervisor forks a writer process and sends it orders (``write_queue``). That process has the run's
lock as long as it lives: whatever it still has to write, nobody else works on the run until it is written.

    order  <II length of the head, length of the data | head (OrderHead) | data
    reply  <I  length                                 | WriteReply

Head and reply are encoded as the link's messages are (``resilient.wire.encoding``).
The order of the orders is kept.
"""

from __future__ import annotations

import contextlib
import enum
import errno
import os
import socket
import struct
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from resilient.errors import NonsenseError, StorageError
from resilient.host import inside
from resilient.host.files import Files, append_to
from resilient.host.world import World
from resilient.store import commit
from resilient.wire.bounds import Count, Text
from resilient.wire.encoding import from_bytes, to_bytes
from supervisor.edges.forked import fork_alone

_ORDER = struct.Struct("<II")
_REPLY = struct.Struct("<I")


class WriteOrderKind(enum.Enum):
    """What can be ordered."""

    LINES = "lines"
    """Append whole lines; what a crash has torn gets a line of its own."""
    OUTPUT = "output"
    """Append to a log. The log itself says what of it could not be written."""
    REPLACE = "replace"
    """Give a file a new content, durably."""
    PROBE = "probe"
    """Tell whether a file can be made in a directory."""
    LEAVE = "leave"
    """Close a file that was appended to."""
    REST = "rest"
    """The supervisor ends in order. Everything else is in the shared file: do it, and leave."""


@dataclass(frozen=True)
class OrderHead:
    """An order without its data."""

    kind: WriteOrderKind
    path: Path
    left_out_bytes: Count = 0


@dataclass(frozen=True)
class WriteOrder:
    """``left_out_bytes`` of output come before ``data``, and could not be kept until the disk answered."""

    kind: WriteOrderKind
    path: Path
    data: bytes = b""
    left_out_bytes: int = 0

    def frame(self) -> bytes:
        """The order as bytes."""
        head = to_bytes(OrderHead(self.kind, self.path, self.left_out_bytes))
        return _ORDER.pack(len(head), len(self.data)) + head + self.data


@dataclass(frozen=True)
class WriteReply:
    """``number`` is an errno, 0 for success; ``error`` says the same in words."""

    number: Count = 0
    error: Text = ""


class ByteSource(Protocol):
    """Something that bytes come from."""

    def read(self, size: int, /) -> bytes:
        """So many bytes; fewer only at the end."""
        ...


def orders(source: ByteSource) -> Iterator[WriteOrder]:
    """The orders that come from a stream, until it ends. Raises NonsenseError for what is none."""
    while len(sizes := source.read(_ORDER.size)) == _ORDER.size:
        head_bytes, data_bytes = _ORDER.unpack(sizes)
        head = from_bytes(OrderHead, source.read(head_bytes))
        yield WriteOrder(head.kind, head.path, source.read(data_bytes), head.left_out_bytes)


def read_reply(source: BinaryIO) -> WriteReply | None:
    """The next reply; None when there comes none any more, or only a half of one."""
    size = source.read(_REPLY.size)
    if len(size) < _REPLY.size:
        return None
    with contextlib.suppress(NonsenseError):
        return from_bytes(WriteReply, source.read(_REPLY.unpack(size)[0]))
    return None


class WriteExecutor:
    """Does orders, and keeps the files open that it appends to."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._appended: dict[Path, _AppendedFile] = {}

    def do(self, order: WriteOrder) -> WriteReply:
        """Does one thing. Never raises for what a disk may do."""
        try:
            if order.kind is WriteOrderKind.REPLACE:
                replace(self._world, order.path, order.data)
            elif order.kind is WriteOrderKind.PROBE:
                return WriteReply(try_to_make(order.path))
            elif order.kind is WriteOrderKind.LEAVE:
                self._leave(order.path)
            else:
                self._append(order)
        except (OSError, StorageError) as error:
            # A StorageError's text names the file as well.
            return WriteReply(error.errno or errno.EIO, _words(error))
        except Exception as error:  # noqa: BLE001 - told to the other side; the next order may make sense
            return WriteReply(errno.EINVAL, f"{type(error).__name__}: {error}")
        return WriteReply()

    def close(self) -> None:
        """Closes every file."""
        for path in list(self._appended):
            self._leave(path)

    def _append(self, order: WriteOrder) -> None:
        if order.path not in self._appended:
            self._appended[order.path] = _AppendedFile(
                self._world.files, order.path, whole_lines=order.kind is WriteOrderKind.LINES
            )
        self._appended[order.path].append(order.data, order.left_out_bytes)

    def _leave(self, path: Path) -> None:
        if (file := self._appended.pop(path, None)) is not None:
            file.close()


class _AppendedFile:
    """A file that is appended to. The first write that can opens it; it says what is missing in it."""

    def __init__(self, files: Files, path: Path, *, whole_lines: bool) -> None:
        self._files = files
        self._path = path
        self._whole_lines = whole_lines
        self._torn = False
        self._missing_bytes = 0
        self._why = ""
        self._descriptor = -1

    def append(self, data: bytes, left_out_bytes: int) -> None:
        if left_out_bytes:
            self._missing_bytes += left_out_bytes
            self._why = self._why or "the disk did not answer"
        try:
            if self._descriptor < 0:
                self._descriptor = self._open()
            if self._whole_lines:
                self._write_lines(data)
            else:
                self._write_output(data)
        except (OSError, StorageError) as error:
            self._why = _words(error)
            raise

    def close(self) -> None:
        if self._missing_bytes:
            # The last chance to say it.
            with contextlib.suppress(OSError, StorageError):
                self.append(b"", 0)
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _open(self) -> int:
        self._files.make_directory(self._path.parent)
        descriptor = append_to(self._path)
        if self._whole_lines:
            size = os.fstat(descriptor).st_size
            self._torn = bool(size) and os.pread(descriptor, 1, size - 1) != b"\n"
        return descriptor

    def _write_lines(self, lines: bytes) -> None:
        # One write: two writers, or a crash, never mix two lines. Only a full disk takes a part of it.
        view = memoryview(b"\n" + lines if self._torn else lines)
        while view:
            view = view[os.write(self._descriptor, view) :]
            self._torn = bool(view)

    def _write_output(self, data: bytes) -> None:
        if self._missing_bytes:
            try:
                self._write(self._mark())
            except OSError:
                self._missing_bytes += len(data)
                raise
            self._missing_bytes = 0
        written = 0
        try:
            while written < len(data):
                written += os.write(self._descriptor, memoryview(data)[written:])
        except OSError:
            self._missing_bytes += len(data) - written
            raise

    def _mark(self) -> bytes:
        return (
            f"\n[resilient: {self._missing_bytes} bytes of output are missing here: {self._why}]\n".encode()
        )

    def _write(self, data: bytes) -> None:
        """Writes all of it, or raises and takes back what was written."""
        before = os.fstat(self._descriptor).st_size
        try:
            if os.write(self._descriptor, data) < len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, before)
            raise


def replace(world: World, path: Path, data: bytes) -> None:
    """Gives a file a new content, durably. Raises StorageError."""
    world.files.make_directory(path.parent)
    commit.rewrite(world, path, data)


def try_to_make(place: Path) -> int:
    """The errno of making a file there, 0 for none. The file has no name, and is gone whatever happens."""
    try:
        with inside.way_to(place) as (name, folder):
            link = 0 if folder is None else os.O_NOFOLLOW
            flags = os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC | link
            os.close(os.open(name, flags, 0o600, dir_fd=folder))
    except OSError as error:
        # Not every file system knows files without a name.
        if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT):
            return error.errno or errno.EIO
        return 0 if os.access(place, os.W_OK | os.X_OK) else errno.EACCES
    return 0


def _words(error: OSError | StorageError) -> str:
    if isinstance(error, StorageError):
        return str(error)
    return error.strerror or type(error).__name__


# The process


def fork(rest: int, kept: Collection[int] = ()) -> tuple[int, socket.socket]:
    """A writer process: its pid, and the link to it. Of our descriptors it has those ``kept``, and ``rest``.

    Raises OSError where there can be none.
    """
    ours, theirs = socket.socketpair()
    try:
        pid = fork_alone(lambda: _serve(theirs, rest), {*kept, theirs.fileno(), rest})
    except OSError:
        ours.close()
        theirs.close()
        raise
    theirs.close()
    return pid, ours


def _serve(link: socket.socket, rest: int) -> None:
    """What the forked process does. With it the run's lock goes."""
    executor = WriteExecutor(World())
    _work(executor, link, rest)
    executor.close()


def _work(executor: WriteExecutor, link: socket.socket, rest: int) -> None:
    """Does what is ordered, until the supervisor says that it ends, or is gone."""
    # A supervisor that leaves does not hear the reply; what it has said before it left still comes.
    # Killed, it may have said half of an order.
    with contextlib.suppress(OSError, NonsenseError), link.makefile("rb") as incoming:
        for order in orders(incoming):
            if order.kind is WriteOrderKind.REST:
                break
            _reply(link, executor.do(order))
    with os.fdopen(rest, "rb") as left:
        left.seek(0)
        for order in orders(left):
            executor.do(order)


def _reply(link: socket.socket, reply: WriteReply) -> None:
    words = to_bytes(reply)
    with contextlib.suppress(OSError):
        link.sendall(_REPLY.pack(len(words)) + words)
