"""Real shared memory: all processes that map it see it, it outlives its maker, and it is freed in the end."""

from __future__ import annotations

import os
import signal
import socket

import pytest
from mirrors import LAYOUT, META_BYTES, read, values_of, write
from slots import descriptors

from resilient.errors import MirrorError, NoSlotError
from resilient.host.shared_memory import PAGE_BYTES, SharedMemory
from resilient.wire.mirror import Mirror


def test_what_one_mapping_writes_the_other_sees():
    """Two processes that map one memfd share every byte of it."""
    ours = Mirror.make(LAYOUT, 2, SharedMemory.create, META_BYTES)
    theirs = Mirror.of(os.dup(ours.memory.descriptor))
    assert theirs.layout == LAYOUT
    assert theirs.newest() is None
    slot = write(ours, 1)
    assert theirs.newest() == slot
    assert read(theirs, slot) == 1
    theirs.pin(0)
    theirs.pin(1)
    with pytest.raises(NoSlotError):
        write(ours, 2)
    for mirror in (ours, theirs):
        mirror.memory.close()


def test_memory_outlives_whoever_made_it():
    """A process with a descriptor reads the snapshot of another one that was killed."""
    mirror = Mirror.make(LAYOUT, 2, SharedMemory.create, META_BYTES)
    child = os.fork()
    if child == 0:
        write(mirror, 5)
        os.kill(os.getpid(), signal.SIGKILL)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    assert read(mirror, mirror.newest()) == 5
    mirror.memory.close()


def test_nothing_stays_of_a_memory_that_was_closed_and_dropped():
    """A closed and dropped memory leaves no descriptor and no mapping; a second close does nothing."""
    before = descriptors()
    mirror = Mirror.make(LAYOUT, 2, SharedMemory.create, META_BYTES)
    other = Mirror.of(os.dup(mirror.memory.descriptor))
    for each in (mirror, other):
        each.close()
        each.close()
    del mirror, other, each
    assert descriptors() == before


def test_what_was_closed_can_still_be_read():
    """The content of a replaced mirror can still be committed; a view alone keeps the bytes too."""
    before = descriptors()
    mirror = Mirror.make(LAYOUT, 2, SharedMemory.create, META_BYTES)
    slot = write(mirror, 4)
    mirror.close()
    assert mirror.is_still(slot)
    assert read(mirror, mirror.newest()) == 4
    view = mirror.view(slot.number, LAYOUT.areas[0])
    del mirror
    assert bytes(view) == values_of(4, LAYOUT.areas[0])
    view.release()
    del view
    assert descriptors() == before


@pytest.mark.parametrize("size", [0, 1, PAGE_BYTES - 1, PAGE_BYTES, 5 * PAGE_BYTES])
def test_a_memory_that_is_no_mirror_is_closed_and_refused(size):
    """A memory that is too small, or all zeros, raises MirrorError, and its descriptor is closed."""
    before = descriptors()
    descriptor = os.memfd_create("something", os.MFD_CLOEXEC)
    os.ftruncate(descriptor, size)
    with pytest.raises(MirrorError):
        Mirror.of(descriptor)
    assert descriptors() == before


def test_a_descriptor_that_is_no_memory_is_closed_and_refused(tmp_path):
    """A pipe, a socket, a read-only file or a closed one raises MirrorError, and no descriptor stays open."""
    (tmp_path / "file").write_bytes(bytes(2 * PAGE_BYTES))
    before = descriptors()
    reading, writing = os.pipe()
    file = os.open(tmp_path / "file", os.O_RDONLY)
    ours, theirs = socket.socketpair()
    for descriptor in (reading, writing, file, ours.detach(), theirs.detach(), 10**6):
        with pytest.raises(MirrorError):
            Mirror.of(descriptor)
    assert descriptors() == before


def test_memory_that_cannot_be_made_leaves_no_descriptor():
    """A size that no kernel grants raises an OSError, and no descriptor stays open."""
    before = descriptors()
    with pytest.raises(OSError):  # noqa: PT011 - which one it is, is the kernel's affair
        SharedMemory.create(2**62)
    with pytest.raises(MirrorError):
        SharedMemory.create(PAGE_BYTES - 1)
    assert descriptors() == before


def test_memory_is_never_cut_off():
    """The kernel refuses to shrink a mirror, because its readers would die of SIGBUS."""
    memory = SharedMemory.create(4 * PAGE_BYTES)
    with pytest.raises(PermissionError):
        os.ftruncate(memory.descriptor, PAGE_BYTES)
    memory.close()
