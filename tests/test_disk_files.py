"""The real file system: every error leaves as one of ours."""

from __future__ import annotations

import errno
import os

import pytest

from resilient.errors import StorageError
from resilient.host.files import DiskFiles


def next_descriptor():
    """The number that the next file to be opened gets."""
    descriptor = os.dup(0)
    os.close(descriptor)
    return descriptor


@pytest.mark.parametrize("opens", ["create", "open", "lock"])
def test_a_close_that_fails_is_a_storage_error(tmp_path, opens):
    """Closing can fail like anything else, whatever the file was open for."""
    path = tmp_path / "file"
    if opens == "open":
        path.write_bytes(b"content")
    descriptor = next_descriptor()
    opened = getattr(DiskFiles(), opens)(path)
    os.close(descriptor)
    with pytest.raises(StorageError) as caught:
        opened.release() if opens == "lock" else opened.close()
    assert caught.value.errno == errno.EBADF
