"""A disk that remembers what has been synced: the Files protocol over a value that can lose its power.

What the model promises to its user, and nothing more, because POSIX promises nothing more:

* ``sync`` makes a file's bytes durable, not its name. ``sync_directory`` makes the names in it durable. What
  a loss of power may leave of the rest is in ``disk_state``.
* After a ``sync`` that failed the file's unsynced bytes never become durable, although a second sync
  succeeds.
* ``make_directory`` is durable at once, as the real one is.
* A process that is killed loses nothing that the system calls have done.

An enumerator of all crashes runs to the n-th operation with ``at(n, Kill())``, takes ``state()``, and feeds
``after_power_loss`` every sequence of choices. ``log`` says which operations there were.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from chaos.disk_state import Change, Choose, DiskState, Folder, Node, after_power_loss, place
from chaos.faults import DiskOperation, Fail, Kill, Killed, Plan, nothing
from resilient.errors import BusyError, StorageError
from resilient.host.files import Buffer, Identity


class SimulatedDisk:
    """The Files protocol over a ``DiskState``.

    ``plan`` decides what goes wrong, ``capacity_bytes`` when the disk is full. ``log`` holds every
    operation that was tried.
    """

    def __init__(
        self, state: DiskState | None = None, plan: Plan = nothing, capacity_bytes: int = 2**40
    ) -> None:
        state = DiskState() if state is None else state
        self._nodes = dict(state.nodes)
        self._folders = dict(state.folders)
        self._time = state.time
        self._plan = plan
        self._capacity_bytes = capacity_bytes
        self._dead = False
        self._locked: set[Path] = set()
        self.log: list[DiskOperation] = []

    def state(self) -> DiskState:
        """The disk as it is now, as a value. Files that no crash could bring back are not part of it."""
        nodes = {number: self._nodes[number] for number in self._reachable()}
        return DiskState(tuple(sorted(nodes.items())), tuple(sorted(self._folders.items())), self._time)

    def crash(self, choose: Choose, plan: Plan = nothing) -> SimulatedDisk:
        """The disk after a loss of power, as the next process finds it."""
        return SimulatedDisk(after_power_loss(self.state(), choose), plan, self._capacity_bytes)

    def restart(self, plan: Plan = nothing) -> SimulatedDisk:
        """The disk after the death of the process alone: nothing is lost, nothing more is durable."""
        return SimulatedDisk(self.state(), plan, self._capacity_bytes)

    def obey(self, plan: Plan) -> None:
        """From now on this plan decides what goes wrong."""
        self._plan = plan

    def resize(self, capacity_bytes: int) -> None:
        """From now on the disk holds so much; what is there stays."""
        self._capacity_bytes = capacity_bytes

    def number_of(self, path: Path) -> int:
        """The number of the file that has this name. Raises FileNotFoundError."""
        return self._number(path)

    def is_poisoned(self, path: Path) -> bool:
        """Whether a sync of this file has failed: what it covered will never be durable."""
        return self._nodes[self._number(path)].poisoned

    # What a test does behind the program's back: not counted, never failing, durable at once.

    def put(self, path: Path, content: bytes) -> None:
        """Gives a file a new content, as somebody else's program would."""
        where, name = place(path)
        folder = self._folders[where]
        number = folder.names.get(name, self._new_number())
        self._nodes[number] = Node(content, stamp=self._tick())
        synced = tuple(sorted({**dict(folder.synced), name: number}.items()))
        self._folders[where] = Folder(synced, folder.pending)

    def wipe(self, directory: Path) -> None:
        """Removes a folder with everything in it."""
        for folder in [path for path in self._folders if Path(path).is_relative_to(directory)]:
            del self._folders[folder]

    def content(self, path: Path) -> bytes:
        where, name = place(path)
        return self._nodes[self._folders[where].names[name]].content

    def paths(self) -> list[Path]:
        """Every file there is."""
        return sorted(Path(folder, name) for folder, value in self._folders.items() for name in value.names)

    def every_byte(self) -> Iterator[bytes]:
        """The content of every file, including those that have lost their names."""
        return (node.content for node in self._nodes.values())

    # The Files protocol

    def create(self, path: Path) -> SimulatedWriter:
        self._begin("create", path)
        where, name = place(path)
        if where not in self._folders:
            raise _no_folder(where)
        if name in self._folders[where].names:
            raise FileExistsError(errno.EEXIST, "exists", str(path))
        number = self._new_number()
        self._nodes[number] = Node(stamp=self._tick())
        self._change(where, ((name, number),))
        return SimulatedWriter(self, number, path)

    def open(self, path: Path) -> SimulatedReader:
        self._begin("open", path)
        return SimulatedReader(self, self._number(path), path)

    def read(self, path: Path, limit_bytes: int) -> bytes:
        self._begin("read", path)
        content = self._nodes[self._number(path)].content
        if len(content) > limit_bytes:
            raise StorageError(f"{path} is larger than {limit_bytes} bytes", errno=errno.EFBIG)
        return content

    def rename(self, source: Path, target: Path) -> None:
        self._begin("rename", source, target)
        number = self._number(source)
        (folder, name), (new_folder, new_name) = place(source), place(target)
        self._folder(new_folder)
        self._nodes[number] = replace(self._nodes[number], stamp=self._tick())
        if folder == new_folder:
            self._change(folder, ((name, None), (new_name, number)))
        else:
            self._change(new_folder, ((new_name, number),))
            self._change(folder, ((name, None),))

    def remove(self, path: Path) -> None:
        self._begin("remove", path)
        self._number(path)
        where, name = place(path)
        self._change(where, ((name, None),))

    def names(self, directory: Path) -> list[str]:
        self._begin("names", directory)
        where = str(directory)
        folder = self._folders.get(where)
        inside = [name for above, name in map(place, self._folders) if name and above == where]
        return [] if folder is None else sorted([*folder.names, *inside])

    def identity(self, path: Path) -> Identity:
        self._begin("identity", path)
        number = self._number(path)
        node = self._nodes[number]
        return Identity(number, len(node.content), node.stamp, node.stamp)

    def make_directory(self, path: Path) -> None:
        self._begin("make_directory", path)
        for directory in (path, *path.parents):
            above, name = place(directory)
            if name in self._folders.get(above, Folder()).names:
                raise StorageError(f"{directory} is not a directory", errno=errno.ENOTDIR)
            self._folders.setdefault(str(directory), Folder())

    def sync_directory(self, path: Path) -> None:
        self._begin("sync_directory", path)
        folder = self._folders.get(str(path))
        if folder is None:
            raise _no_folder(str(path))
        self._folders[str(path)] = Folder(tuple(sorted(folder.names.items())))

    def lock(self, path: Path, owner: bytes = b"") -> SimulatedLock:
        self._begin("lock", path)
        if path in self._locked:
            raise BusyError(f"{path} is locked by another process", pid=0)
        self._locked.add(path)
        return SimulatedLock(self._locked, path)

    def free_bytes(self, directory: Path) -> int:
        self._begin("free_bytes", directory)
        return self._capacity_bytes - self._used_bytes()

    # What writers and readers do

    def append(self, number: int, path: Path, data: bytes) -> None:
        try:
            self._begin("write", path, size_bytes=len(data))
            fits = self._capacity_bytes - self._used_bytes()
            self._append(number, data[:fits])
            if fits < len(data):
                raise StorageError(f"cannot write {path}", errno=errno.ENOSPC)
        except _Interrupted as interrupted:
            self._append(number, data[: len(data) // 2])
            raise interrupted.reason from None

    def sync(self, number: int, path: Path) -> None:
        node = self._nodes[number]
        try:
            self._begin("sync", path)
            if not node.poisoned:
                self._nodes[number] = replace(node, synced=node.content, pending=())
        except StorageError:
            self._nodes[number] = replace(node, poisoned=True)
            raise

    def read_at(self, number: int, path: Path, target: memoryview, offset: int) -> int:
        self._begin("read_into", path)
        piece = self.peek(number)[offset : offset + len(target)]
        target[: len(piece)] = piece
        return len(piece)

    def peek(self, number: int) -> bytes:
        return self._nodes[number].content

    def _begin(self, kind: str, path: Path, target: Path | None = None, size_bytes: int = 0) -> None:
        """Counts an operation and lets the plan strike before it happens."""
        if self._dead:
            raise Killed
        operation = DiskOperation(kind, path, target, size_bytes)
        number = len(self.log)
        self.log.append(operation)
        fault = self._plan(number, operation)
        if fault is not None:
            self._strike(operation, fault)

    def _strike(self, operation: DiskOperation, fault: Fail | Kill) -> None:
        reason: BaseException
        if isinstance(fault, Kill):
            self._dead = True
            reason = Killed()
        else:
            text = f"cannot {operation.kind} {operation.path}: {os.strerror(fault.errno)}"
            reason = StorageError(text, errno=fault.errno)
        if fault.partial and operation.kind == "write":
            raise _Interrupted(reason)
        raise reason

    def _append(self, number: int, data: bytes) -> None:
        node = self._nodes[number]
        self._nodes[number] = replace(node, pending=(*node.pending, data), stamp=self._tick())

    def _folder(self, path: str) -> Folder:
        folder = self._folders.get(path)
        if folder is None:
            raise FileNotFoundError(errno.ENOENT, "no such directory", path)
        return folder

    def _number(self, path: Path) -> int:
        where, name = place(path)
        number = self._folder(where).names.get(name)
        if number is None and str(path) in self._folders:
            raise StorageError(f"{path} is not a regular file", errno=errno.EINVAL)
        if number is None:
            raise FileNotFoundError(errno.ENOENT, "no such file", str(path))
        return number

    def _change(self, directory: str, change: Change) -> None:
        folder = self._folders[directory]
        self._folders[directory] = replace(folder, pending=(*folder.pending, change))

    def _new_number(self) -> int:
        return max(self._nodes, default=0) + 1

    def _tick(self) -> int:
        self._time += 1
        return self._time

    def _reachable(self) -> set[int]:
        """The files that have a name, or may have one again after a loss of power."""
        reachable: set[int] = set()
        for folder in self._folders.values():
            reachable.update(number for _, number in folder.synced)
            for change in folder.pending:
                reachable.update(number for _, number in change if number is not None)
        return reachable

    def _used_bytes(self) -> int:
        named = {number for folder in self._folders.values() for number in folder.names.values()}
        return sum(len(self._nodes[number].content) for number in named)


def _no_folder(path: str) -> StorageError:
    return StorageError(f"{path} is not there", errno=errno.ENOENT)


class _Interrupted(BaseException):
    """A write that stops in the middle, for this reason."""

    def __init__(self, reason: BaseException) -> None:
        super().__init__()
        self.reason = reason


class SimulatedWriter:
    """A new file on a simulated disk."""

    def __init__(self, disk: SimulatedDisk, number: int, path: Path) -> None:
        self._disk = disk
        self._number = number
        self._path = path

    def write(self, data: Buffer) -> None:
        self._disk.append(self._number, self._path, bytes(data))

    def sync(self) -> None:
        self._disk.sync(self._number, self._path)

    def close(self) -> None:
        pass


class SimulatedReader:
    """An open file on a simulated disk."""

    def __init__(self, disk: SimulatedDisk, number: int, path: Path) -> None:
        self._disk = disk
        self._number = number
        self._path = path

    @property
    def size_bytes(self) -> int:
        return len(self._disk.peek(self._number))

    def read_into(self, target: memoryview, offset: int) -> int:
        return self._disk.read_at(self._number, self._path, target, offset)

    def close(self) -> None:
        pass


class SimulatedLock:
    """A lock that dies with the simulated process."""

    def __init__(self, locked: set[Path], path: Path) -> None:
        self._locked = locked
        self._path = path

    def release(self) -> None:
        self._locked.discard(self._path)
