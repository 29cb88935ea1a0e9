"""Orders to the writer process and to the guardian: each comes as it was given, and nothing else is one."""

from __future__ import annotations

import io
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from resilient.errors import NonsenseError
from resilient.wire.encoding import from_bytes, to_bytes
from supervisor.edges.guardian import Charge
from supervisor.edges.writer_process import (
    OrderHead,
    WriteOrder,
    WriteOrderKind,
    WriteReply,
    orders,
    read_reply,
)

PATHS = st.lists(st.sampled_from(["logs", "ü", "\udcff"]), max_size=3).map(lambda names: Path("/", *names))
ORDERS = st.builds(
    WriteOrder, st.sampled_from(WriteOrderKind), PATHS, st.binary(max_size=50), st.integers(0, 2**40)
)
PROCESSES = st.lists(st.tuples(st.integers(1, 2**22), st.integers(0, 2**50)), max_size=3).map(tuple)
CHARGES = st.builds(Charge, PROCESSES, PROCESSES, st.text(max_size=10), st.floats(0, 1e6), st.floats(0, 1e6))


@given(st.lists(ORDERS, max_size=5))
def test_orders_come_as_they_were_given(given_orders):
    """In their order, each with its data."""
    stream = io.BytesIO(b"".join(order.frame() for order in given_orders))
    assert list(orders(stream)) == given_orders


@given(st.binary(max_size=100))
def test_a_head_of_any_bytes_is_one_or_nonsense(data):
    """Half of an order is none, however it was cut."""
    for kind in (OrderHead, WriteReply, Charge):
        try:
            found = from_bytes(kind, data)
        except NonsenseError:
            continue
        assert from_bytes(kind, to_bytes(found)) == found


@given(CHARGES)
def test_the_guardian_gets_the_very_processes(charge):
    """With the time at which each began: another one of its number is not meant."""
    assert from_bytes(Charge, to_bytes(charge)) == charge


def test_half_of_a_reply_is_none():
    """Somebody has killed the writer process in the middle: the supervisor writes by itself from then on."""
    words = to_bytes(WriteReply(28, "No space left on device"))
    frame = len(words).to_bytes(4, "little") + words
    assert read_reply(io.BytesIO(frame)) == WriteReply(28, "No space left on device")
    for length in range(len(frame)):
        assert read_reply(io.BytesIO(frame[:length])) is None
