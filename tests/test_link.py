"""The link: whole messages, descriptors beside them, and a clear end."""

from __future__ import annotations

import fcntl
import os
import resource
import socket
import threading

import pytest

from resilient.errors import LinkError
from resilient.link import LIMIT_BYTES, Link


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
    ours.send({"type": "saved", "step": 3, "name": "ü"})
    ours.send({"type": "finished"})
    assert theirs.receive() == ({"type": "saved", "step": 3, "name": "ü"}, [])
    assert theirs.poll() == ({"type": "finished"}, [])


def test_descriptors_travel_and_are_not_inherited(ends):
    """A file arrives open, under a descriptor that children do not get."""
    ours, theirs = ends
    memory = os.memfd_create("something")
    os.write(memory, b"words")
    ours.send({"type": "mirror"}, [memory])
    os.close(memory)
    _, (received,) = theirs.receive()
    assert os.pread(received, 10, 0) == b"words"
    assert not os.get_inheritable(received)
    os.close(received)


def test_the_other_side_being_gone_is_an_error_and_no_signal(ends):
    """Sending and receiving both raise; what was sent before is still received."""
    ours, theirs = ends
    ours.send({"type": "last"})
    ours.close()
    assert theirs.receive()[0] == {"type": "last"}
    with pytest.raises(LinkError, match="gone"):
        theirs.receive()
    with pytest.raises(LinkError, match="gone"):
        theirs.send({"type": "anybody"})


def test_what_the_other_side_said_is_heard_although_it_read_nothing(ends):
    """A process that ends without having read its messages: its own come first, and then its end."""
    ours, theirs = ends
    ours.send({"type": "never read"})
    theirs.send({"type": "incident"})
    theirs.send({"type": "finished"})
    theirs.close()
    assert ours.poll() == ({"type": "incident"}, [])
    assert ours.poll() == ({"type": "finished"}, [])
    with pytest.raises(LinkError, match="gone"):
        ours.poll()


def test_too_large_a_message_is_refused_before_it_is_sent(ends):
    """The sender is told; the receiver sees nothing of it."""
    ours, theirs = ends
    with pytest.raises(LinkError, match="too large"):
        ours.send({"type": "incident", "text": "x" * LIMIT_BYTES})
    assert theirs.poll() is None


@pytest.mark.parametrize(
    "packet", [b"no json", b"[1]", b"{}", b'{"type": 3}', b"\xff\xfe", b"x" * (LIMIT_BYTES + 2)]
)
def test_nonsense_is_an_error_and_leaks_nothing(raw, packet):
    """A packet that no link sends: LinkError, and descriptors that came with it are closed."""
    link, other = raw
    before = set(os.listdir("/proc/self/fd"))
    memory = os.memfd_create("something")
    socket.send_fds(other, [packet], [memory])
    os.close(memory)
    with pytest.raises(LinkError):
        link.receive()
    assert set(os.listdir("/proc/self/fd")) == before


def test_two_threads_never_mix_their_messages(ends):
    """Packets are whole, whoever sends at the same time."""
    ours, theirs = ends
    received = []

    def send(name):
        for number in range(200):
            ours.send({"type": name, "number": number, "padding": name * 500})

    threads = [threading.Thread(target=send, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    received = [theirs.receive()[0] for _ in range(400)]
    for thread in threads:
        thread.join()
    for name in "ab":
        assert [m["number"] for m in received if m["type"] == name] == list(range(200))
        assert all(m["padding"] == name * 500 for m in received if m["type"] == name)


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
        assert not link.wait("word", 0.0)
        other.send({"type": "noise"})
        other.send({"type": "word"})
        assert link.wait("word", 10.0)
        link.close()
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
