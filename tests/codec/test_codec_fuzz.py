"""The decoders, given any bytes, raise CorruptError or return exactly what the bytes encode."""

from __future__ import annotations

import pytest
from hostile import LENGTHS, changed, length_bytes, varint
from hypothesis import given
from hypothesis import strategies as st
from test_codec_cipher import MODES, seal, unseal
from test_codec_container import RECORDS, as_found, join, read

from resilient.codec import cipher
from resilient.codec.tensors import Record
from resilient.errors import CorruptError

STREAMS = [
    join(RECORDS, b"some extra"),
    join(RECORDS[:3]),
    join([Record("w", "Int8", (60,), bytes(60)), Record("str", "str", (0,), bytes(8), section=3)], b"{}"),
]
PLAINS = [bytes(range(200)), b"\x07" * 64, b"ab" * 70]


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(cipher, "BLOCK_BYTES", 64)


def demand_sense(data):
    """An accepted stream means one state: encoded and decoded again, it is the same one."""
    asked = []

    try:
        extra, found, _ = read([data], len(data), asked)
    except CorruptError:
        assert sum(asked) <= len(data)
        return
    records = [
        Record(name, dtype, dims, content, section)
        for (section, name), (dtype, dims, content) in found.items()
    ]
    again = join(records, extra)
    assert read([again], len(again))[:2] == (extra, as_found(records))
    assert sum(asked) <= len(data), "memory was taken for more than there is"


@given(changed(STREAMS))
def test_a_changed_stream_is_refused_or_means_something(data):
    """A stream with any change is corrupt, or is another valid stream, read in full."""
    demand_sense(data)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_stream_or_none(data):
    """Random bytes are a valid stream or raise CorruptError."""
    demand_sense(data)


@pytest.mark.parametrize("number", LENGTHS)
def test_a_hostile_number_at_any_place_is_survived(number):
    """A negative or huge length in place of any byte of a stream does no harm."""
    for data in STREAMS[1:]:
        for at in range(len(data)):
            for form in length_bytes(number):
                demand_sense(data[:at] + form + data[at + 1 :])
                demand_sense(data[:at] + form + data[at + len(form) :])


def test_fields_that_come_twice_are_refused():
    """A repeated field of a record, or extra, is rejected: in another reader the last one would win."""
    content = b"\x1a\x01x"
    tensor = b"\x08\x01\x12\x04Int8"
    for inner in (
        b"\x0a\x01w\x0a\x01v\x12" + varint(len(tensor + content)) + tensor + content,
        b"\x0a\x01w" + (b"\x12" + varint(len(tensor + content)) + tensor + content) * 2,
        b"\x0a\x01w\x12" + varint(len(tensor + content * 2)) + tensor + content * 2,
        b"\x0a\x01w\x12" + varint(len(tensor) + 6 + 3) + tensor + b"\x12\x04Int8" + content,
    ):
        data = b"\x0a" + varint(len(inner)) + inner
        with pytest.raises(CorruptError):
            read([data], len(data))
    with pytest.raises(CorruptError):
        read([join([], b"one") + join([], b"two")])


@pytest.mark.parametrize("mode", MODES)
@given(data=st.data())
def test_a_changed_sealed_file_is_refused(mode, data):
    """In every mode, a changed file under its bound tags opens to the sealed bytes or is corrupt."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cipher, "BLOCK_BYTES", 64)
        sealed = {b"".join(seal(mode, plain)[0]): plain for plain in PLAINS}
        good = data.draw(st.sampled_from(sorted(sealed)))
        tags = seal(mode, sealed[good])[1]
        hostile = data.draw(changed(sorted(sealed)) | st.binary(max_size=200))
        try:
            opened = unseal(mode, hostile, tags)
        except CorruptError:
            assert hostile != good
        else:
            assert (hostile, opened) == (good, sealed[good])


@pytest.mark.parametrize("mode", MODES)
@given(data=st.data())
def test_other_tags_open_nothing(mode, data):
    """Tags of other blocks, too many or too few, or of a wrong length are corrupt."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cipher, "BLOCK_BYTES", 64)
        blocks, tags = seal(mode, PLAINS[0])
        pool = st.sampled_from([*tags, *seal(mode, PLAINS[1])[1]]) | st.binary(max_size=40)
        drawn = data.draw(st.lists(pool, max_size=6))
        try:
            opened = unseal(mode, b"".join(blocks), drawn)
        except CorruptError:
            assert drawn != tags
        else:
            assert (drawn, opened) == (tags, PLAINS[0])
