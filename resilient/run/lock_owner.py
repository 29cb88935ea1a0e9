"""Reads and writes the owner's name in a lock file: for messages, never as proof (see ``lock_holder``).

A run's lock names a process and its boot of the machine, as JSON; a rank's lock names a process alone.
Anybody may have written either.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from resilient.errors import StorageError
from resilient.host.files import Files

LIMIT_BYTES = 4096

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_NONSENSE = (ValueError, KeyError, TypeError, OverflowError, RecursionError)


def boot_id() -> str:
    """The id of this boot of the machine; "" when it cannot be read."""
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return ""


def own_words() -> bytes:
    """The content that this process writes into a run's lock."""
    return json.dumps({"pid": os.getpid(), "boot_id": boot_id()}).encode()


def run_owner(content: bytes) -> tuple[int, bool]:
    """The pid that a run's lock names (0: none), and whether it is of this boot of this machine."""
    try:
        words = json.loads(content)
        pid, here = words["pid"], words["boot_id"] == boot_id()
    except _NONSENSE:
        return 0, True
    return (pid if type(pid) is int and 0 < pid < 2**31 else 0), here


def rank_owner(files: Files, path: Path) -> int:
    """The pid that a rank's lock names; 0 when it is unknown."""
    try:
        pid = int(files.read(path, LIMIT_BYTES))
    except (StorageError, FileNotFoundError, ValueError):
        return 0
    return pid if 0 < pid < 2**31 else 0
