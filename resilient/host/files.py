"""Files: the protocol for all disk access, and the real implementation.

Every path is a ``pathlib.Path``. Every ``OSError`` leaves as :class:`~resilient.errors.StorageError`, with
its errno, except the two that callers decide by: ``FileNotFoundError`` for a missing file (to open, read,
rename, remove or stat) and ``FileExistsError`` for an existing one (to create). A missing *folder* means that
somebody removed it, and is a StorageError.

Writers follow no symbolic link in the last part of a path, and nothing follows one below a run's directory
(``inside``): a planted link must not redirect a checkpoint. Modes are 0600 and 0700, whatever the umask.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from resilient.errors import BusyError, StorageError
from resilient.host import inside
from resilient.host.behind import WriteBehind
from resilient.host.descriptors import identity, out_of_reach

DIRECTORY_MODE = 0o700
FILE_MODE = 0o600

Buffer = bytes | bytearray | memoryview
ErrorTypes = type[OSError] | tuple[type[OSError], ...]

_NO_FILE = "not a regular file"
_NO_DIRECTORY = "exists and is not a directory"
_IN_THE_WAY = "something else has this name: move it away"
_OTHER_KINDS = (errno.EISDIR, errno.ENOTDIR, errno.ELOOP)

_DECIDED_BY: ErrorTypes = (FileNotFoundError, FileExistsError)


@dataclass(frozen=True)
class Identity:
    """Distinguishes one version of a file from another without reading it."""

    inode: int
    size_bytes: int
    modified_ns: int
    changed_ns: int


class FileWriter(Protocol):
    """A new file, written front to back."""

    def write(self, data: Buffer) -> None:
        """Appends all of ``data``; raises an error now or in the next call.

        ``data`` must not change before the next call on this writer returns.
        """
        ...

    def sync(self) -> None:
        """Fsyncs the bytes. After a failure the caller must abandon the file: the kernel may have dropped the
        dirty pages, so a second fsync would succeed without having written them."""
        ...

    def close(self) -> None: ...


class FileReader(Protocol):
    """A file that is open for reading."""

    @property
    def size_bytes(self) -> int: ...

    def read_into(self, target: memoryview, offset: int) -> int:
        """Fills ``target`` from ``offset``; returns the number of bytes read (fewer only at the end).

        Several threads may read at once.
        """
        ...

    def close(self) -> None: ...


class FileLock(Protocol):
    """An exclusive lock; its process holds it until it releases it or dies."""

    def release(self) -> None: ...


class Files(Protocol):
    """The file operations that the project may use."""

    def create(self, path: Path) -> FileWriter:
        """Opens a file that must not exist yet, with mode 0600."""
        ...

    def open(self, path: Path) -> FileReader:
        """Opens a regular file for reading."""
        ...

    def read(self, path: Path, limit_bytes: int) -> bytes:
        """The whole file. Raises StorageError (EFBIG) for a file larger than ``limit_bytes``."""
        ...

    def rename(self, source: Path, target: Path) -> None:
        """Atomically renames ``source`` to ``target``, replacing an existing file."""
        ...

    def remove(self, path: Path) -> None: ...

    def names(self, directory: Path) -> list[str]:
        """The names in a directory, sorted; an absent directory has none."""
        ...

    def identity(self, path: Path) -> Identity:
        """The version of a regular file, from its metadata alone."""
        ...

    def make_directory(self, path: Path) -> None:
        """Makes the directory and its missing parents, mode 0700, durably."""
        ...

    def sync_directory(self, path: Path) -> None:
        """Makes the directory's names durable: a file's own fsync does not persist its name."""
        ...

    def lock(self, path: Path, owner: bytes = b"") -> FileLock:
        """Takes the exclusive lock of ``path``. Raises BusyError when another process holds it.

        ``owner`` becomes the file's content, for the error messages of others; the lock is the kernel's.
        """
        ...

    def free_bytes(self, directory: Path) -> int:
        """The number of bytes that may still be written below ``directory``."""
        ...


class DiskWriter:
    """A new file on a real disk."""

    def __init__(self, descriptor: int, path: Path) -> None:
        self._descriptor = descriptor
        self._path = path
        self._behind = WriteBehind(descriptor)

    def write(self, data: Buffer) -> None:
        with storage_errors("write", self._path):
            self._behind.write(memoryview(data).cast("B"))

    def sync(self) -> None:
        with storage_errors("write", self._path):
            self._behind.settle()
        with storage_errors("sync", self._path):
            os.fsync(self._descriptor)

    def close(self) -> None:
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            self._behind.close()
            with storage_errors("close", self._path):
                os.close(descriptor)


class DiskReader:
    """An open file on a real disk."""

    def __init__(self, descriptor: int, path: Path, size_bytes: int) -> None:
        self._descriptor = descriptor
        self._path = path
        self._size_bytes = size_bytes

    @property
    def size_bytes(self) -> int:
        return self._size_bytes

    def read_into(self, target: memoryview, offset: int) -> int:
        done = 0
        with storage_errors("read", self._path):
            while done < len(target):
                count = os.preadv(self._descriptor, [target[done:]], offset + done)
                if count == 0:
                    break
                done += count
        return done

    def close(self) -> None:
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            with storage_errors("close", self._path):
                os.close(descriptor)


class DiskLock:
    """flock(2) on an open file: the kernel releases it at any end of the process."""

    def __init__(self, descriptor: int, path: Path) -> None:
        self._descriptor = descriptor
        self._path = path
        self._identity = identity(descriptor)

    @property
    def descriptor(self) -> int:
        """The descriptor of the open file; -1 after the release."""
        return self._descriptor

    def leave_to_child(self) -> None:
        """Releases it in this process alone: a forked child with the open file keeps the lock."""
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            os.close(descriptor)

    def release(self) -> None:
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            if identity(descriptor) != self._identity:
                # A script closed it, and may have its own file under the number.
                return
            with contextlib.suppress(OSError):
                # Closing is not enough: a forked child may have the same open file, and so the lock.
                fcntl.flock(descriptor, fcntl.LOCK_UN)
            with storage_errors("unlock", self._path):
                os.close(descriptor)


class DiskFiles:
    """The real file system."""

    def create(self, path: Path) -> DiskWriter:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with storage_errors("create", path, FileExistsError):
            with inside.way_to(path) as (name, folder):
                descriptor = os.open(name, flags, FILE_MODE, dir_fd=folder)
            inside.give_owner(descriptor, FILE_MODE)
            return DiskWriter(descriptor, path)

    def open(self, path: Path) -> DiskReader:
        with storage_errors("open", path):
            # O_NONBLOCK: opening a FIFO under a checkpoint's name must not block.
            flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
            with inside.way_to(path) as (name, folder):
                link = 0 if folder is None else os.O_NOFOLLOW
                descriptor = os.open(name, flags | link, dir_fd=folder)
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                os.close(descriptor)
                raise OSError(errno.EINVAL, _NO_FILE, str(path))
            # Makes the kernel read further ahead.
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_SEQUENTIAL)
            return DiskReader(descriptor, path, status.st_size)

    def read(self, path: Path, limit_bytes: int) -> bytes:
        reader = self.open(path)
        try:
            if reader.size_bytes > limit_bytes:
                message = f"{path} has {reader.size_bytes} bytes, more than {limit_bytes}"
                raise StorageError(message, errno=errno.EFBIG)
            content = bytearray(reader.size_bytes)
            size_bytes = reader.read_into(memoryview(content), 0)
            return bytes(memoryview(content)[:size_bytes])
        finally:
            reader.close()

    def rename(self, source: Path, target: Path) -> None:
        ways = inside.way_to(source), inside.way_to(target)
        with storage_errors("rename", source), ways[0] as (old, above), ways[1] as (new, below):
            os.rename(old, new, src_dir_fd=above, dst_dir_fd=below)

    def remove(self, path: Path) -> None:
        with storage_errors("remove", path), inside.way_to(path) as (name, folder):
            os.unlink(name, dir_fd=folder)

    def names(self, directory: Path) -> list[str]:
        with storage_errors("list", directory):
            try:
                with inside.way_to(directory) as (name, folder):
                    if folder is None:
                        return sorted(os.listdir(directory))
                    return _names_in(name, folder)
            except FileNotFoundError:
                return []

    def identity(self, path: Path) -> Identity:
        with storage_errors("stat", path):
            with inside.way_to(path) as (name, folder):
                status = os.stat(name, dir_fd=folder, follow_symlinks=folder is None)
            if not stat.S_ISREG(status.st_mode):
                raise OSError(errno.EINVAL, _NO_FILE, str(path))
            return Identity(status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)

    def make_directory(self, path: Path) -> None:
        missing = []
        with storage_errors("make directory", path, ()):
            while not inside.keep_to_us(path):
                missing.append(path)
                path = path.parent
            for directory in reversed(missing):
                with contextlib.suppress(FileExistsError, FileNotFoundError):
                    inside.make_directory(directory, DIRECTORY_MODE)
                if not os.path.lexists(directory):
                    # A file system like /proc, which has no mkdir; or the parent has just vanished.
                    raise OSError(errno.EPERM, "no directory can be made there", str(directory))
                if not inside.keep_to_us(directory):
                    raise OSError(errno.ENOTDIR, _NO_DIRECTORY, str(directory))
                self.sync_directory(directory.parent)

    def sync_directory(self, path: Path) -> None:
        with storage_errors("sync directory", path, ()):
            with inside.way_to(path) as (name, folder):
                descriptor = inside.open_folder(name, folder, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def lock(self, path: Path, owner: bytes = b"") -> DiskLock:
        # O_NONBLOCK: the open must not block, whatever has this name.
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        with storage_errors("lock", path, ()):
            with inside.way_to(path) as (name, folder):
                descriptor = os.open(name, flags, FILE_MODE, dir_fd=folder)
            try:
                _demand_regular(descriptor, path)
                inside.give_owner(descriptor, FILE_MODE)
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, owner, 0)
            except BlockingIOError:
                os.close(descriptor)
                raise BusyError(f"{path} is locked by another process", pid=0) from None
            except OSError:
                os.close(descriptor)
                raise
            return DiskLock(out_of_reach(descriptor), path)

    def free_bytes(self, directory: Path) -> int:
        with storage_errors("stat file system", directory):
            status = os.statvfs(directory)
            return status.f_bavail * status.f_frsize


def append_to(path: Path) -> int:
    """A descriptor that appends to a file of a run; creates the file if it is missing. Raises OSError."""
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    with inside.way_to(path) as (name, folder):
        descriptor = os.open(name, flags, FILE_MODE, dir_fd=folder)
    try:
        _demand_regular(descriptor, path)
        inside.give_owner(descriptor, FILE_MODE)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _names_in(name: Path, folder: int) -> list[str]:
    # The flags of opendir(3).
    descriptor = inside.open_folder(name, folder, os.O_RDONLY | os.O_NONBLOCK)
    try:
        return sorted(os.listdir(descriptor))
    finally:
        os.close(descriptor)


def _demand_regular(descriptor: int, path: Path) -> None:
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        raise OSError(errno.EINVAL, _NO_FILE, str(path))


@contextlib.contextmanager
def storage_errors(action: str, path: Path, passing: ErrorTypes = _DECIDED_BY) -> Iterator[None]:
    """Turns an OSError, unless it is ``passing``, into a StorageError that names the failed action."""
    try:
        yield
    except OSError as error:
        if isinstance(error, passing):
            raise
        reason = error.strerror or type(error).__name__
        message = f"cannot {action} {path}: {reason}"
        in_the_way = reason in (_NO_FILE, _NO_DIRECTORY) or error.errno in _OTHER_KINDS
        hint = _hint(error.errno) or (_IN_THE_WAY if in_the_way else "")
        raise StorageError(message, errno=error.errno, hint=hint, in_the_way=in_the_way) from error


def _hint(code: int | None) -> str:
    hints = {
        errno.ENOSPC: "free some disk space",
        errno.EDQUOT: "the disk quota is used up",
        errno.EACCES: "check the permissions",
        errno.EPERM: "check the permissions",
        errno.ELOOP: "no symbolic link inside a run is followed; replace the link by its target, or "
        "move the whole run to where there is room: --run-dir, which may be a link itself",
        errno.EROFS: "the file system is mounted read-only",
        errno.EMFILE: "too many open files: raise the limit (ulimit -n)",
    }
    return hints.get(code or 0, "")
