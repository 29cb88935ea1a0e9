"""The link: whole messages, descriptors beside them, and a clear end."""

from __future__ import annotations

import fcntl
import os
import resource
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from messages_said import raised, saved

from resilient.config import Origin, WorkerConfig
from resilient.errors import LinkError, NonsenseError, StalledError, TooLargeError
from resilient.wire.link import LIMIT_BYTES, Link
from resilient.wire.messages import (
    BeganAnew,
    CheckpointsUnusable,
    Configure,
    Remarked,
    ResumeRecorded,
    SaveDone,
    SaveFailed,
    TakeMirror,
)
from resilient.wire.packing import encode
from resilient.wire.parts import MOST_BYTES, UnfinishedMessages, split


@pytest.fixture
def ends():
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    links = Link(ours), Link(theirs)
    yield links
    for link in links:
        link.close()


@pytest.fixture
def raw():
    """A link, and the socket at its other end, for what no link of ours would send."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    link = Link(ours)
    yield link, theirs
    link.close()
    theirs.close()


def test_messages_come_whole_and_in_order(ends):
    """What was sent, in its order; nothing is there before."""
    ours, theirs = ends
    assert theirs.poll() is None
    ours.send(saved(3, file="ü"))
    ours.send(BeganAnew())
    assert theirs.receive() == (saved(3, file="ü"), [])
    assert theirs.poll() == (BeganAnew(), [])


def test_descriptors_travel_and_are_not_inherited(ends):
    """A file arrives open, under a descriptor that children do not get."""
    ours, theirs = ends
    memory = os.memfd_create("something")
    os.write(memory, b"words")
    ours.send(TakeMirror(), [memory])
    os.close(memory)
    _, (received,) = theirs.receive()
    assert os.pread(received, 10, 0) == b"words"
    assert not os.get_inheritable(received)
    os.close(received)


def test_the_other_side_being_gone_is_an_error_and_no_signal(ends):
    """Sending and receiving both raise; what was sent before is still received."""
    ours, theirs = ends
    ours.send(BeganAnew())
    ours.close()
    assert theirs.receive()[0] == BeganAnew()
    with pytest.raises(LinkError, match="gone"):
        theirs.receive()
    with pytest.raises(LinkError, match="gone"):
        theirs.send(BeganAnew())


def test_what_the_other_side_said_is_heard_although_it_read_nothing(ends):
    """A process that ends without having read its messages: its own come first, and then its end."""
    ours, theirs = ends
    ours.send(SaveDone("never read"))
    theirs.send(raised())
    theirs.send(BeganAnew())
    theirs.close()
    assert ours.poll() == (raised(), [])
    assert ours.poll() == (BeganAnew(), [])
    with pytest.raises(LinkError, match="gone"):
        ours.poll()


def test_too_large_a_message_is_refused_before_it_is_sent(ends):
    """The sender gets another error than that of an end; the receiver sees nothing of it."""
    ours, theirs = ends
    with pytest.raises(TooLargeError, match="too large"):
        ours.send(Configure(WorkerConfig("r", Path("/run"), 0, origin=Origin(skipped=tuple(range(2**21))))))
    assert theirs.poll() is None


@pytest.mark.parametrize("size", [LIMIT_BYTES - 40, LIMIT_BYTES - 10, LIMIT_BYTES + 1, 2**20])
def test_a_message_above_a_packet_comes_whole_with_its_descriptor(ends, size):
    """In parts, which the receiver never sees; what comes after it is another message."""
    ours, theirs = ends
    sent = CheckpointsUnusable("x" * size, hint="y" * size)
    memory = os.memfd_create("something")

    def send():
        ours.send(sent, [memory])
        ours.send(BeganAnew())

    sender = threading.Thread(target=send)
    sender.start()
    message, (received,) = theirs.receive()
    sender.join()
    assert message == sent
    assert os.path.sameopenfile(received, memory)
    assert theirs.poll() == (BeganAnew(), [])
    os.close(received)
    os.close(memory)


def test_a_message_that_was_never_finished_is_dropped(raw):
    """A process killed in the middle of a send, and one that gave up: the next messages are as they were."""
    link, other = raw
    before = set(os.listdir("/proc/self/fd"))
    first, second, third = (split(encode(Remarked(name + "x" * LIMIT_BYTES)), LIMIT_BYTES) for name in "abc")
    other.send(first[0])
    other.send(second[0])
    memory = os.memfd_create("something")
    socket.send_fds(other, [third[1]], [memory])
    os.close(memory)
    assert link.poll() is None
    other.send(second[1])
    assert link.poll()[0].text.startswith("bx")
    other.send(encode(BeganAnew()))
    assert link.poll() == (BeganAnew(), [])
    other.close()
    with pytest.raises(LinkError, match="gone"):
        link.poll()
    assert set(os.listdir("/proc/self/fd")) < before


def test_unfinished_messages_do_not_add_up(raw):
    """A sender that begins one after the other, and ends none, takes no more memory than a few of them."""
    unfinished = UnfinishedMessages()
    data = bytes(MOST_BYTES)
    for _ in range(8):
        for part in split(data, LIMIT_BYTES)[:-1]:
            assert unfinished.add(part) is None
    assert unfinished._size_bytes <= 4 * MOST_BYTES
    assert unfinished.add(split(bytes(LIMIT_BYTES + 1), LIMIT_BYTES)[0]) is None


@pytest.mark.parametrize("part", [b"\0", b"\0" * 17, b"\0" + b"t" * 8 + bytes([0, 0, 0, 9] * 2) + b"x"])
def test_a_part_that_makes_no_sense_is_nonsense(raw, part):
    """It is left out, and the link goes on."""
    link, other = raw
    other.send(part)
    other.send(encode(BeganAnew()))
    with pytest.raises(NonsenseError):
        link.poll()
    assert link.poll() == (BeganAnew(), [])


def test_one_that_does_not_read_is_not_waited_for_longer_than_said(ends):
    """An error of its own: it lives. When it reads again, all that was sent whole is there, in order."""
    ours, theirs = ends
    sent = []

    def send_for_ever():
        while len(sent) < 100_000:
            ours.send(SaveFailed(len(sent), "x" * 70_000), patience_s=0.0)
            sent.append(len(sent))

    with pytest.raises(StalledError):
        send_for_ever()
    received = []
    while (one := theirs.poll()) is not None:
        received.append(one[0].step)
    assert received == sent
    ours.send(BeganAnew(), patience_s=0.0)
    assert theirs.poll() == (BeganAnew(), [])


def test_the_other_side_s_end_is_no_signal_to_a_process_that_would_die_of_it():
    """SIGPIPE at its default, as some shells and libraries leave it: the process lives on to save."""
    source = """if True:
        import signal, socket
        from resilient.errors import LinkError
        from resilient.wire.link import Link
        from resilient.wire.messages import BeganAnew
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        theirs.close()
        try:
            Link(ours).send(BeganAnew())
        except LinkError:
            print("it lives")
    """
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "it lives\n"), done.stderr


@pytest.mark.parametrize(
    "packet", [b"no json", b"[1]", b"{}", b'{"type": 3}', b"\xff\xfe", b"x" * (LIMIT_BYTES + 2)]
)
def test_nonsense_is_an_error_and_leaks_nothing(raw, packet):
    """A packet that no link sends: descriptors that came with it are closed, and the link goes on."""
    link, other = raw
    before = set(os.listdir("/proc/self/fd"))
    memory = os.memfd_create("something")
    socket.send_fds(other, [packet], [memory])
    os.close(memory)
    with pytest.raises(NonsenseError):
        link.receive()
    assert set(os.listdir("/proc/self/fd")) == before
    other.send(encode(BeganAnew()))
    assert link.receive() == (BeganAnew(), [])


def test_two_threads_never_mix_their_messages(ends):
    """Packets are whole, whoever sends at the same time."""
    ours, theirs = ends
    received = []

    def send(name):
        for number in range(200):
            ours.send(SaveFailed(number, name * (500 if number % 20 else 150_000), name))

    threads = [threading.Thread(target=send, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    received = [theirs.receive()[0] for _ in range(400)]
    for thread in threads:
        thread.join()
    for name in "ab":
        assert [m.step for m in received if m.reason == name] == list(range(200))
        assert all(set(m.error) == {name} for m in received if m.reason == name)


def test_a_descriptor_that_is_no_socket_is_no_link(tmp_path):
    """An environment variable that points nowhere is a clear error."""
    with open(tmp_path / "file", "w") as file, pytest.raises(LinkError, match="no link"):
        Link.from_fd(file.fileno())


def test_a_link_may_have_a_high_number():
    """Whoever started us has left more than a thousand descriptors open: the link works all the same."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 4096)), hard))
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs, ours:
        link, other = Link.from_fd(fcntl.fcntl(ours.fileno(), fcntl.F_DUPFD, 2000)), Link(theirs)
        assert link.fileno() >= 2000
        assert link.poll() is None
        assert not link.wait(ResumeRecorded, 0.0)
        other.send(SaveDone(""))
        other.send(ResumeRecorded())
        assert link.wait(ResumeRecorded, 10.0)
        link.close()
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
