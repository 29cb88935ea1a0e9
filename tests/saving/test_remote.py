"""What a worker asks its supervisor for, and what it hears; the supervisor's part is played."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
from dataclasses import dataclass
from pathlib import Path

import pytest
from slots import GCM, descriptors, rank_mirror, write

from resilient.config import KeepPolicy
from resilient.errors import LinkError, StorageError
from resilient.saving import remote
from resilient.saving.remote import RemoteSaver
from resilient.wire.link import Link
from resilient.wire.messages import DropMirror, OpenStore, SaveDone, SaveSlot, StoreOpened, TakeMirror
from resilient.wire.mirror import Slot

KEEP = KeepPolicy(max_count=3)


@dataclass(frozen=True)
class Wanted:
    slot: Slot
    reason: str = "schedule"
    failure: bool = False


@pytest.fixture
def ends():
    """The worker's saver, and the supervisor's end of the link."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    links = Link(ours), Link(theirs)
    yield RemoteSaver(links[0]), links[1]
    for link in links:
        link.close()


def heard(supervisor):
    """What the supervisor has been sent since the last look: messages, and the inodes beside them."""
    found = []
    while (received := supervisor.poll()) is not None:
        message, sent = received
        found.append((message, [os.fstat(descriptor).st_ino for descriptor in sent]))
        for descriptor in sent:
            os.close(descriptor)
    return found


def inode(mirror):
    return os.fstat(mirror.memory.descriptor).st_ino


def test_a_store_is_opened_and_waited_for(ends):
    """The supervisor gets all that a saver needs; the answer to an earlier save is heard on the way."""
    saver, supervisor = ends
    slot = Slot(0, 1, 1)
    saver.ask(Wanted(slot), 1, None)
    supervisor.send(SaveDone(""))
    supervisor.send(StoreOpened(""))
    saver.open(Path("/run"), KEEP, GCM)
    assert not saver.busy
    _, (message, _) = heard(supervisor)
    assert message == OpenStore(Path("/run"), KEEP, GCM)


def test_a_store_that_cannot_be_opened_is_an_error_of_the_disk(ends):
    """The supervisor's words are the reason."""
    saver, supervisor = ends
    supervisor.send(StoreOpened("locked by another process"))
    with pytest.raises(StorageError, match="locked by another"):
        saver.open(Path("/run"), KEEP, GCM)


def test_a_mirror_is_handed_over_once(ends):
    """The supervisor gets the memory itself; the same one is not sent again, a new one replaces it."""
    saver, supervisor = ends
    first, second = rank_mirror(), rank_mirror()
    inodes = inode(first), inode(second)
    saver.hand_over(first)
    saver.hand_over(first)
    assert heard(supervisor) == [(TakeMirror(), [inodes[0]])]
    saver.hand_over(second)
    assert heard(supervisor) == [(TakeMirror(), [inodes[1]])]
    assert first.memory.descriptor == second.memory.descriptor == -1, "what is mapped needs none"


def test_a_mirror_that_was_replaced_can_still_be_committed_from(ends):
    """Its last save may not have been answered yet when the supervisor dies."""
    saver, _ = ends
    first = rank_mirror()
    slot = write(first, 7)
    saver.hand_over(first)
    saver.hand_over(rank_mirror())
    first.unpin_all()
    assert first.is_still(slot)
    assert first.newest() == slot


def test_the_mirror_that_the_supervisor_gave_is_not_handed_back():
    """A worker that goes on from the last attempt's memory has nothing new to tell."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    mirror = rank_mirror()
    RemoteSaver(Link(ours), mirror).hand_over(mirror)
    assert heard(Link(theirs)) == []


def test_a_save_is_asked_for_and_its_answer_heard(ends):
    """Busy until the answer is heard; what became of it is known afterwards."""
    saver, supervisor = ends
    assert saver.wait()
    for error, succeeded in (("", True), ("disk full", False)):
        saver.ask(Wanted(Slot(1, 5, 9), "end"), 2, None)
        assert heard(supervisor) == [(SaveSlot(Slot(1, 5, 9), 2, "end", failure=False), [])]
        saver.listen()
        assert saver.busy
        supervisor.send(SaveDone(error))
        assert saver.busy
        assert saver.wait() == succeeded
        assert not saver.busy
        assert saver.wait() == succeeded


def test_an_answer_is_heard_without_waiting(ends):
    """The training listens at its boundaries, and goes on where nothing has come."""
    saver, supervisor = ends
    saver.ask(Wanted(Slot(0, 1, 1)), 1, None)
    saver.listen()
    assert saver.busy
    supervisor._socket.send(b'{"type": "something of a later version"}')
    supervisor.send(SaveDone(""))
    saver.listen()
    assert not saver.busy


def test_memory_of_its_own_goes_with_the_request(ends):
    """What automatic parallel has put together is sent along; nothing stays open here for it."""
    saver, supervisor = ends
    before = descriptors()
    apart = rank_mirror()
    saver.ask(Wanted(write(apart, 3)), 1, apart)
    ((_, sent),) = heard(supervisor)
    assert sent == [inode(apart)]
    apart.close()
    del apart
    assert descriptors() == before


def test_leaving_waits_for_what_is_being_saved(ends):
    """The lock is asked back only when the saver has done what it was asked for."""
    saver, supervisor = ends
    saver.ask(Wanted(Slot(0, 1, 1)), 1, None)
    supervisor.send(SaveDone(""))
    saver.leave()
    assert not saver.busy
    assert [type(message) for message, _ in heard(supervisor)] == [SaveSlot, DropMirror]


def test_without_a_supervisor_every_question_is_an_error(ends):
    """LinkError at once, wherever the worker is; it never waits for somebody who is gone."""
    saver, supervisor = ends
    saver.ask(Wanted(Slot(0, 1, 1)), 1, None)
    supervisor.close()
    mirror = rank_mirror()
    for act in (
        saver.wait,
        saver.listen,
        saver.leave,
        lambda: saver.open(Path("/run"), KEEP, GCM),
        lambda: saver.hand_over(mirror),
    ):
        with pytest.raises(LinkError):
            act()


def test_a_worker_that_fails_does_not_wait_for_a_supervisor_that_was_stopped(ends, monkeypatch):
    """It holds the memory, and saves it when it is woken; the worker waits for one that is only slow."""
    saver, supervisor = ends
    child = subprocess.Popen(["sleep", "1000"])
    monkeypatch.setattr(remote, "_LOOK_S", 0.01)
    monkeypatch.setattr(os, "getppid", lambda: child.pid)
    try:
        saver.ask(Wanted(Slot(0, 1, 1)), 1, None)
        slow = threading.Timer(0.5, supervisor.send, [SaveDone("")])
        slow.start()
        assert saver.wait_while_awake()
        saver.ask(Wanted(Slot(0, 1, 1)), 1, None)
        child.send_signal(signal.SIGSTOP)
        assert not saver.wait_while_awake()
        assert saver.busy
    finally:
        child.kill()
        child.wait()
    assert not remote._is_stopped(child.pid)
