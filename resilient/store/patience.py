"""Retries reads whose error may be transient: a signal, a stale NFS handle, a flaky disk.

Writes and syncs are never retried: after a failed sync the kernel may have dropped the pages, and a second
one would succeed without having written them.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import tenacity

from resilient.errors import BusyError, StorageError
from resilient.host.files import FileLock, FileReader, Files

T = TypeVar("T")

_MAY_PASS = {errno.EINTR, errno.EAGAIN, errno.ESTALE, errno.EIO}

_SOON = tenacity.Retrying(
    retry=tenacity.retry_if_exception_type(BusyError),
    wait=tenacity.wait_fixed(0.02),
    stop=tenacity.stop_after_attempt(5),
    reraise=True,
)


def _may_pass(error: BaseException) -> bool:
    return isinstance(error, StorageError) and error.errno in _MAY_PASS


_again = tenacity.Retrying(
    retry=tenacity.retry_if_exception(_may_pass),
    stop=tenacity.stop_after_attempt(2),
    wait=tenacity.wait_fixed(0.1),
    reraise=True,
)


def patiently(read: Callable[..., T], *arguments: Any) -> T:
    """Calls a reading operation, up to three times when its error may be transient."""
    try:
        return read(*arguments)
    except StorageError as error:
        if not _may_pass(error):
            raise
    return _again(read, *arguments)


def locked_soon(files: Files, path: Path, owner: bytes | None = None) -> FileLock:
    """Takes a lock, by default in the name of this process. Raises BusyError.

    It retries for a moment: a tool that checks a lock holds it for an instant itself, and a process that is
    ending releases it soon.
    """
    return _SOON(files.lock, path, str(os.getpid()).encode() if owner is None else owner)


class PatientReader:
    """A reader that retries transient errors."""

    def __init__(self, reader: FileReader) -> None:
        self._reader = reader
        self.size_bytes = reader.size_bytes

    def read_into(self, target: memoryview, offset: int) -> int:
        return patiently(self._reader.read_into, target, offset)

    def close(self) -> None:
        self._reader.close()
