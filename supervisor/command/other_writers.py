"""Who else can write in a run's directory: such a person decides what is found there.

A directory that everybody can write is refused. A group, or an owner who is somebody else, is named: labs and
containers live with it. Below the directory nothing is opened through a link (``host.inside``), and
checkpoints are authenticated; but they can still be removed, or older ones put back.
"""

from __future__ import annotations

import grp
import os
import pwd
import shlex
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path

from resilient.errors import UsageError


def demand_ours(root: Path, warn: Callable[[str], None]) -> None:
    """Raises UsageError where everybody can write; ``warn`` hears who else can."""
    status = os.stat(root)
    name = shlex.quote(str(root))
    if status.st_mode & stat.S_IWOTH and _knows_modes(root):
        raise UsageError(
            f"everybody can write in {root}, and so exchange what the run relies on", hint=f"chmod o-w {name}"
        )
    if status.st_uid not in (os.geteuid(), 0):
        warn(f"{root} belongs to {_user(status.st_uid)}, who can remove or exchange what the run relies on")
    elif status.st_mode & stat.S_IWGRP and not _is_private(status) and _knows_modes(root):
        group = _group(status.st_gid)
        warn(f"everybody in the group {group} can write in {root}; to prevent it: chmod g-w {name}")


def _is_private(status: os.stat_result) -> bool:
    """Whether this is a group of the owner alone, as most Linux systems give each user one."""
    try:
        group = grp.getgrgid(status.st_gid)
        return group.gr_name == pwd.getpwuid(status.st_uid).pw_name and not group.gr_mem
    except KeyError:
        return False


def _knows_modes(root: Path) -> bool:
    """Whether the file system keeps modes: some show the same for everything, and chmod changes nothing."""
    try:
        with tempfile.TemporaryDirectory(prefix=".resilient-", dir=root) as probe:
            return not os.stat(probe).st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    except OSError:
        return True


def _user(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return f"user {number}"


def _group(number: int) -> str:
    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return str(number)
