"""What one process of ours tells another, and what travels with a state: any bytes, and an error of ours."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hostile import changed, nested
from hypothesis import example, given
from hypothesis import strategies as st
from messages_said import raised, saved

from resilient.config import Sealing, WorkerConfig
from resilient.errors import CorruptError, NonsenseError
from resilient.state.snapshot import Progress, decode_extra, encode_extra
from resilient.wire.messages import Configure, SaveSlot, UnknownMessage
from resilient.wire.mirror import Slot
from resilient.wire.packing import decode, encode
from resilient.wire.parts import UnfinishedMessages, split

PARTS = split(b"x" * 300, 100)
MESSAGES = [
    encode(message)
    for message in (
        saved(3, file="CKP_rank_0-1_1.ckpt"),
        raised(3, traceback="x\n" * 20),
        Configure(WorkerConfig("run-1", Path("/run"), 7, sealing=Sealing("AES-GCM", bytes(32)))),
        SaveSlot(Slot(1, 2, 3), 1, "end", failure=False),
    )
]


@given(changed(MESSAGES) | st.binary(max_size=50))
@example(nested(60_000))
@example(b'{"type": "\\ud800"}')
@example(b'{"type": "saved", "step": ' + b"9" * 5000 + b"}")
def test_any_packet_is_a_message_or_nonsense(data):
    """A packet of any bytes: a message that can be sent as it was read, or NonsenseError."""
    try:
        message = decode(data)
    except NonsenseError:
        return
    assert isinstance(message, UnknownMessage) or decode(encode(message)) == message


@given(st.lists(changed(PARTS) | st.binary(max_size=50), max_size=6))
def test_any_parts_are_a_message_or_none_or_nonsense(packets):
    """Parts of any bytes, in any order: the message that was split, or nothing; and memory stays bounded."""
    unfinished = UnfinishedMessages()
    for packet in packets:
        try:
            unfinished.add(packet)
        except NonsenseError:
            continue
    assert unfinished._size_bytes == sum(len(p) for ps in unfinished._pieces.values() for p in ps)


EXTRA = encode_extra({"network": 0, "streams": {}}, Progress(0, 3, 10))


@given(changed([EXTRA]) | st.binary(max_size=50))
@example(nested(100_000))
@example(EXTRA.replace(b'"steps_per_epoch":10', b'"steps_per_epoch":0.5'))
@example(EXTRA.replace(b'"call_step":3', b'"call_step":true'))
@example(EXTRA.replace(b'"call_step":3', b'"call_step":1e999'))
def test_a_states_description_is_one_or_corrupt(data):
    """Whatever travels as a state's description: CorruptError, or counters that can be reckoned with."""
    try:
        _, progress = decode_extra(data)
    except CorruptError:
        return
    assert all(type(n) is int for n in (progress.step, progress.epoch, progress.step_in_epoch))


@pytest.mark.parametrize("progress", [[], None, 3, {}, {"call": 0}])
def test_a_state_without_progress_is_corrupt(progress):
    """Where in the run a state lies has to be said."""
    with pytest.raises(CorruptError):
        decode_extra(json.dumps({"format": 1, "progress": progress}).encode())
