"""What a worker tells its supervisor: nothing is lost in silence, and nobody waits for a frozen one."""

from __future__ import annotations

import socket
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilient.errors import TooLargeError
from resilient.wire import outbox
from resilient.wire.link import Link
from resilient.wire.messages import Remarked, SaveFailed, SlotCommitted
from resilient.wire.outbox import Outbox
from resilient.wire.packing import decode, encode
from resilient.wire.parts import MOST_BYTES
from resilient.wire.shorten import shortened


@pytest.fixture
def ends(monkeypatch):
    """An outbox without patience, and the supervisor's end of its link."""
    monkeypatch.setattr(outbox, "PATIENCE_S", 0.0)
    ours, theirs = map(Link, socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET))
    yield Outbox(ours), theirs
    ours.close()
    theirs.close()


def heard(link):
    found = []
    while (received := link.poll()) is not None:
        found.append(received[0])
    return found


def test_what_a_frozen_supervisor_does_not_read_comes_later_and_in_order(ends):
    """The worker goes on at once; once the supervisor reads again, it hears every message."""
    box, supervisor = ends
    for number in range(900):
        box.tell(SaveFailed(number, "x" * 1000))
    numbers = [message.step for message in heard(supervisor)]
    assert len(numbers) < 900
    while len(numbers) < 900:
        box.flush()
        numbers += [message.step for message in heard(supervisor)]
    assert numbers == list(range(900))


def test_a_stalled_supervisor_is_waited_for_once(ends, monkeypatch):
    """The patience is spent on the first message that does not go through, and on the last words."""
    box, _ = ends
    while not box._is_stalled:
        box.tell(Remarked("x" * 50_000))
    monkeypatch.setattr(outbox, "PATIENCE_S", 3600.0)
    began_s = time.monotonic()
    box.tell(Remarked(""))
    assert time.monotonic() - began_s < 600


def test_so_many_that_they_are_left_out_are_counted(ends):
    """Memory has an end: the oldest go, and the supervisor hears how many."""
    box, supervisor = ends
    for number in range(3000):
        box.tell(SaveFailed(number, "x" * 1000))
    messages = heard(supervisor)
    while box._waiting:
        box.flush()
        messages += heard(supervisor)
    *remarks, warning = messages
    assert warning.text.endswith(f"{3000 - len(remarks)} messages to it were left out")


def test_a_message_that_is_too_large_is_cut_with_a_mark(ends):
    """Its short fields are whole; of a long one the beginning and the end are there."""
    box, _ = ends
    box.tell(SaveFailed(3, "first" + "x" * (2 * MOST_BYTES) + "last"))
    assert box._is_stalled
    message = decode(encode(box._waiting[0]))
    assert message.step == 3
    assert message.error.startswith("first")
    assert message.error.endswith("last")
    assert "characters left out" in message.error


def test_a_supervisor_that_is_gone_hears_nothing(ends):
    """Nothing is kept for it either."""
    box, supervisor = ends
    supervisor.close()
    box.tell(Remarked(""))
    assert not box._waiting


@given(st.text(max_size=3000), st.lists(st.text(max_size=200), max_size=40), st.integers(2000, 10_000))
def test_a_message_is_cut_to_any_size_or_said_not_to_be(error, remarks, limit):
    """What fits is unchanged; numbers and names never change."""
    message = SlotCommitted(error, tuple(remarks), path="/run/CKP", epoch=3)
    try:
        data = encode(message, limit)
    except TooLargeError:
        return
    assert len(data) <= limit
    if len(encode(message)) <= limit:
        assert decode(data) == message
    assert (decode(data).path, decode(data).epoch) == ("/run/CKP", 3)


@given(st.text(max_size=300), st.integers(2, 100))
def test_a_text_is_cut_in_its_middle(text, most):
    """Its beginning and its end stay, and the mark says how much is missing."""
    cut = shortened(text, most)
    if len(text) <= most:
        assert cut == text
    else:
        assert f"[... {len(text) - most} characters left out ...]" in cut
        assert cut.startswith(text[: most - most // 2])
        assert cut.endswith(text[len(text) - most // 2 :])
