"""The real file system: every error becomes one of ours."""

from __future__ import annotations

import errno
import os

import pytest

from resilient.errors import StorageError
from resilient.host.files import DiskFiles


def next_descriptor():
    """The number that the next opened file gets."""
    descriptor = os.dup(0)
    os.close(descriptor)
    return descriptor


@pytest.mark.parametrize("opens", ["create", "open"])
def test_a_close_that_fails_is_a_storage_error(tmp_path, opens):
    """A failing close raises a StorageError, after reading and after writing."""
    path = tmp_path / "file"
    if opens == "open":
        path.write_bytes(b"content")
    descriptor = next_descriptor()
    opened = getattr(DiskFiles(), opens)(path)
    os.close(descriptor)
    with pytest.raises(StorageError) as caught:
        opened.close()
    assert caught.value.errno == errno.EBADF


def test_a_lock_that_a_script_has_closed_is_let_go_of_in_silence(tmp_path):
    """Releasing a lock that the script has closed does nothing: another file may have its number."""
    lock = DiskFiles().lock(tmp_path / "file")
    os.close(lock.descriptor)
    lock.release()
    DiskFiles().lock(tmp_path / "file").release()
