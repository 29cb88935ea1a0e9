"""The inside of a run's directory: nothing in it is opened through a symbolic link.

Somebody else who can write there could swap a folder for a link: a log, or a stranger's file on its way to
quarantine, would go where the link leads, with our rights. The directory itself may be reached over links
(``runs -> /data/runs``): only what lies below it is opened step by step, each step by openat(2) with
O_NOFOLLOW. So nobody can swap a folder between the look and the use either.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH

_roots: set[Path] = set()
"""The directories of runs, and those that scripts keep checkpoints in, as this process calls them."""


def confine(root: Path) -> None:
    """From here on, no path below this directory follows a link."""
    _roots.add(root)


def is_inside(path: Path) -> bool:
    """Whether a path lies in such a directory."""
    return any(parent in _roots for parent in path.parents)


@contextlib.contextmanager
def way_to(path: Path) -> Iterator[tuple[Path, int | None]]:
    """A name, and the open folder that it is in: for the ``dir_fd`` of a system call.

    Outside of all runs the name is the path, and there is no folder. Raises OSError: FileNotFoundError for a
    folder that is not there, ELOOP for one that is a link.
    """
    root = next((parent for parent in path.parents if parent in _roots), None)
    if root is None:
        yield path, None
        return
    *folders, name = path.relative_to(root).parts
    folder = open_folder(root, None)
    try:
        for step in folders:
            above, folder = folder, open_folder(step, folder)
            os.close(above)
        yield Path(name), folder
    finally:
        os.close(folder)


def open_folder(name: str | Path, above: int | None, flags: int = os.O_PATH) -> int:
    """A descriptor of a folder: inside of a run not through a link. Raises OSError."""
    follow = 0 if above is None else os.O_NOFOLLOW
    try:
        return os.open(name, flags | os.O_DIRECTORY | os.O_CLOEXEC | follow, dir_fd=above)
    except NotADirectoryError:
        if above is not None and stat.S_ISLNK(os.stat(name, dir_fd=above, follow_symlinks=False).st_mode):
            raise OSError(errno.ELOOP, f"{name} is a symbolic link") from None
        raise


def make_directory(path: Path, mode: int) -> None:
    """Makes one directory with this mode, whatever the umask. Raises OSError."""
    with way_to(path) as (name, folder):
        os.mkdir(name, mode, dir_fd=folder)
        with contextlib.suppress(OSError):
            status = os.stat(name, dir_fd=folder, follow_symlinks=False)
            if stat.S_ISDIR(status.st_mode) and status.st_mode & mode != mode:
                # Not through a descriptor: where the umask has taken our own right to read there is none.
                os.chmod(name, stat.S_IMODE(status.st_mode) | mode, dir_fd=folder)


def give_owner(descriptor: int, mode: int) -> None:
    """Gives a file that we have made, or opened, the rights of its owner that the umask took."""
    found = stat.S_IMODE(os.fstat(descriptor).st_mode)
    if found & mode != mode:
        with contextlib.suppress(OSError):
            # Some file systems have one mode for everything.
            os.fchmod(descriptor, found | mode)


def keep_to_us(path: Path) -> bool:
    """Whether this is a directory; one inside of a run that is ours loses the right of others to write."""
    if not is_inside(path):
        return os.path.isdir(path)
    try:
        with way_to(path) as (name, folder):
            step = open_folder(name, folder)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise
        return False
    try:
        status = os.fstat(step)
        if status.st_uid == os.geteuid() and status.st_mode & _OTHERS_WRITE:
            with contextlib.suppress(OSError):
                # Of an open path fchmod(2) knows nothing; this name is the descriptor itself.
                os.chmod(f"/proc/self/fd/{step}", stat.S_IMODE(status.st_mode) & ~_OTHERS_WRITE)
    finally:
        os.close(step)
    return True
