"""Descriptors whose numbers a script's files never get by chance, and memory that needs none."""

from __future__ import annotations

import os
import resource
import socket
import subprocess
import sys

import pytest

from resilient.errors import LinkError
from resilient.host.descriptors import identity, out_of_reach
from resilient.host.files import DiskFiles
from resilient.host.mapping import map_shared
from resilient.wire.link import Link
from resilient.wire.messages import Hello


@pytest.fixture
def pair():
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    yield ours, theirs
    ours.close()
    theirs.close()


def test_a_moved_descriptor_is_the_same_file_under_a_high_number():
    """A moved descriptor is above the numbers that helpers close, and the limits are unchanged."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    reading, writing = os.pipe()
    before = identity(writing)
    moved = out_of_reach(writing)
    assert moved > 4096 or moved >= limits[0] - 64
    assert identity(moved) == before
    assert identity(writing) is None, "the number is free again"
    assert not os.get_inheritable(moved)
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == limits
    os.close(moved)
    os.close(reading)


@pytest.mark.parametrize("limit", [8, 64, 100, 1024])
def test_small_limits_are_no_reason_to_fail(limit):
    """Without a high number the descriptor keeps its number, or moves as high as possible."""
    script = f"""
import os, resource
resource.setrlimit(resource.RLIMIT_NOFILE, ({limit}, {limit}))
from resilient.host.descriptors import out_of_reach
reading, writing = os.pipe()
os.write(out_of_reach(writing), b"still there")
print(os.read(reading, 100).decode())
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout == "still there\n", done.stderr


def test_a_link_whose_number_is_another_file_writes_nothing_into_it(pair, tmp_path):
    """Every use raises LinkError; the file that got the number is neither written to nor closed."""
    ours, _ = pair
    number = ours.fileno()
    link = Link.from_fd(ours.detach())
    with open(tmp_path / "file", "wb") as file:
        os.dup2(file.fileno(), number)
    for use in (lambda: link.send(Hello(1)), link.receive, link.poll):
        with pytest.raises(LinkError):
            use()
    link.close()
    assert (tmp_path / "file").stat().st_size == 0
    assert os.fstat(number).st_ino == (tmp_path / "file").stat().st_ino
    os.close(number)


def test_a_lock_whose_number_is_another_file_leaves_it_open(tmp_path):
    """Releasing it later does not close a file of the script's."""
    lock = DiskFiles().lock(tmp_path / "lock")
    number = lock.descriptor
    with open(tmp_path / "file", "wb") as file:
        os.dup2(file.fileno(), number)
    lock.release()
    assert os.fstat(number).st_ino == (tmp_path / "file").stat().st_ino
    os.close(number)


def test_shared_memory_needs_no_descriptor():
    """Memory is mapped without a duplicate under a low number, and lives until its last view is gone."""
    descriptor = os.memfd_create("test")
    os.ftruncate(descriptor, 4096)
    before = len(os.listdir("/proc/self/fd"))
    view = map_shared(descriptor, 4096)
    part = view[10:20]
    os.close(descriptor)
    assert len(os.listdir("/proc/self/fd")) == before - 1
    del view
    part[:] = b"0123456789"
    assert bytes(part) == b"0123456789"
