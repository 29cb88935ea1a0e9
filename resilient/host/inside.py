"""Opens files inside a run's directory without following any symbolic link.

Somebody else who can write there could replace a folder by a link: then a log, or a file on its way to the
quarantine, would go to the link's target, with our rights. The path to the directory itself may contain links
(``runs -> /data/runs``). Below it, each folder is opened step by step by openat(2) with O_NOFOLLOW. So nobody
can swap a folder between check and use either.
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
"""The directories of runs, and those with a script's checkpoints, by the paths that this process uses."""


def confine(root: Path) -> None:
    """From here on, no path below this directory follows a link."""
    _roots.add(root)


def is_inside(path: Path) -> bool:
    """Whether a path lies in such a directory."""
    return any(parent in _roots for parent in path.parents)


@contextlib.contextmanager
def way_to(path: Path) -> Iterator[tuple[Path, int | None]]:
    """A name and the open folder that holds it, for the ``dir_fd`` of a system call.

    Outside all runs the name is the path, and the folder None. Raises OSError: FileNotFoundError for a
    missing folder, ELOOP for one that is a link.
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
    """A descriptor of a folder; inside a run it follows no link. Raises OSError."""
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
                # By name: if the umask removed our own right to read, we cannot open a descriptor.
                os.chmod(name, stat.S_IMODE(status.st_mode) | mode, dir_fd=folder)


def give_owner(descriptor: int, mode: int) -> None:
    """Gives a file that we created or opened the owner's rights that the umask removed."""
    found = stat.S_IMODE(os.fstat(descriptor).st_mode)
    if found & mode != mode:
        with contextlib.suppress(OSError):
            # Some file systems have one mode for all files.
            os.fchmod(descriptor, found | mode)


def keep_to_us(path: Path) -> bool:
    """Whether this is a directory; takes others' write permission away from one of ours inside a run."""
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
                # fchmod(2) rejects an O_PATH descriptor; this name refers to the descriptor itself.
                os.chmod(f"/proc/self/fd/{step}", stat.S_IMODE(status.st_mode) & ~_OTHERS_WRITE)
    finally:
        os.close(step)
    return True
