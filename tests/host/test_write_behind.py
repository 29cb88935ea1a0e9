"""Writing in the background: every byte, in order, and no error lost."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
import threading

import pytest

from resilient.errors import StorageError
from resilient.host.behind import LEAST_BYTES
from resilient.host.files import DiskFiles


def test_every_byte_arrives_in_order(tmp_path):
    """Large and small pieces, mixed, arrive in order."""
    pieces = [os.urandom(size) for size in (10, LEAST_BYTES, 3, LEAST_BYTES * 3 + 1, LEAST_BYTES, 0, 7)]
    writer = DiskFiles().create(tmp_path / "file")
    for piece in pieces:
        writer.write(piece)
    writer.sync()
    writer.close()
    assert (tmp_path / "file").read_bytes() == b"".join(pieces)


@pytest.mark.parametrize("size", [10, LEAST_BYTES * 2])
@pytest.mark.parametrize("how", ["write", "sync"])
def test_an_error_in_flight_comes_with_the_next_call(tmp_path, size, how):
    """The write itself or the next call raises the error of a full disk; it is never lost."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    writer = DiskFiles().create(tmp_path / "file")
    resource.setrlimit(resource.RLIMIT_FSIZE, (5, before[1]))
    try:
        with pytest.raises(StorageError) as caught:  # noqa: PT012 - which of the two it is, is the point
            writer.write(bytes(size))
            writer.write(bytes(size)) if how == "write" else writer.sync()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert caught.value.errno == errno.EFBIG
    writer.close()


def test_closing_waits_for_what_is_in_flight(tmp_path):
    """A descriptor is never closed, and perhaps reused for another file, during a write."""
    for number in range(20):
        writer = DiskFiles().create(tmp_path / str(number))
        writer.write(bytes([number]) * LEAST_BYTES * 4)
        writer.close()
        assert (tmp_path / str(number)).stat().st_size == LEAST_BYTES * 4


LAST_SAVE = """
import sys, threading, time
from pathlib import Path
from resilient.host.behind import LEAST_BYTES
from resilient.host.files import DiskFiles
def save():
    threading.main_thread().join()
    writer = DiskFiles().create(Path(sys.argv[1]))
    writer.write(bytes(LEAST_BYTES * 2))
    writer.sync()
    writer.close()
threading.Thread(target=save).start()
"""


def test_a_save_while_the_interpreter_ends_is_whole(tmp_path):
    """A thread that saves after the script's last line can start no more threads, but still writes."""
    command = [sys.executable, "-c", LAST_SAVE, str(tmp_path / "file")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "file").stat().st_size == LEAST_BYTES * 2


def test_no_thread_to_be_had_writes_once(tmp_path, monkeypatch):
    """At a limit of threads the caller writes by itself, exactly once, even if threads become available."""
    start = threading.Thread.start
    pieces = [bytes([n]) * (LEAST_BYTES * 2) for n in range(3)]
    writer = DiskFiles().create(tmp_path / "file")

    def refused(thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refused)
    writer.write(pieces[0])
    monkeypatch.setattr(threading.Thread, "start", start)
    writer.write(pieces[1])
    writer.write(pieces[2])
    writer.sync()
    writer.close()
    assert (tmp_path / "file").read_bytes() == b"".join(pieces)
