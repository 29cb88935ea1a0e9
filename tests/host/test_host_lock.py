"""The lock of a directory: one process holds it, and it is free after a release or that process's death."""

from __future__ import annotations

import os
import signal

import pytest

from resilient.errors import BusyError
from resilient.host.files import DiskFiles
from resilient.saving import saver_process


def forked_child():
    """A child that has all our descriptors, and waits until it is killed."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, b"!")
        signal.pause()
    os.read(reading, 1)
    os.close(reading)
    os.close(writing)
    return child


def end(child):
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def test_a_lock_is_held_by_one(tmp_path):
    """A second process that asks for a held lock gets an error; after the release it gets the lock."""
    files = DiskFiles()
    lock = files.lock(tmp_path / "lock")
    with pytest.raises(BusyError):
        files.lock(tmp_path / "lock")
    lock.release()
    lock.release()
    files.lock(tmp_path / "lock").release()


def test_a_lock_that_was_released_is_free_although_a_child_still_has_its_file(tmp_path):
    """A dataset worker that was forked meanwhile does not keep the lock."""
    files = DiskFiles()
    lock = files.lock(tmp_path / "lock")
    child = forked_child()
    try:
        lock.release()
        files.lock(tmp_path / "lock").release()
    finally:
        end(child)


def test_a_lock_is_free_when_its_process_was_killed(tmp_path):
    """The lock of a killed process is free without any cleanup."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        held = DiskFiles().lock(tmp_path / "lock")
        os.write(writing, b"!")
        signal.pause()
        held.release()
    os.read(reading, 1)
    with pytest.raises(BusyError):
        DiskFiles().lock(tmp_path / "lock")
    end(child)
    DiskFiles().lock(tmp_path / "lock").release()
    os.close(reading)
    os.close(writing)


def test_a_rank_s_lock_is_waited_for(tmp_path, monkeypatch):
    """Taking a rank's lock waits a moment for a process that is ending; one that stays is an error."""
    held = DiskFiles().lock(tmp_path / "lock")

    class Ending(DiskFiles):
        tries = 0

        def lock(self, path, owner=b""):
            self.tries += 1
            if self.tries == 3:
                held.release()
            return super().lock(path, owner)

    files = Ending()
    lock = saver_process.take_lock(files, tmp_path / "lock")
    assert files.tries == 3
    assert (tmp_path / "lock").read_bytes() == str(os.getpid()).encode()
    monkeypatch.setattr(saver_process, "_LOCK_S", 0.1)
    with pytest.raises(BusyError, match=f"process {os.getpid()} .* holds its lock") as raised:
        saver_process.take_lock(DiskFiles(), tmp_path / "lock")
    assert raised.value.pid == os.getpid()
    lock.release()
