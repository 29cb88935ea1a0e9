"""The plaintext of a checkpoint: everything encoded decodes to the same, and anything else is rejected."""

from __future__ import annotations

import contextlib
import math
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilient.codec.container import decode, encode
from resilient.codec.tensors import ITEM_BYTES, Record, info_record
from resilient.errors import CorruptError, UsageError

SMALL_SLICE = 24


def join(records, extra=b"", slice_bytes=SMALL_SLICE):
    return b"".join(bytes(piece) for piece in encode(records, extra, slice_bytes))


def read(chunks, size_bytes=None, asked=None):
    """Decodes into fresh buffers: (extra, {(section, name): (dtype, dims, bytes)}, the sink's calls).

    It appends the sizes in bytes that the sink is asked for to ``asked``."""
    found, buffers, calls = {}, {}, []

    def sink(name, dtype, dims, total, section):
        calls.append(name)
        if asked is not None:
            asked.append(total)
        buffers[section, name] = bytearray(total)
        found[section, name] = (dtype, dims, buffers[section, name])
        return memoryview(buffers[section, name])

    extra = decode(chunks, sink, size_bytes)
    return extra, {key: (dtype, dims, bytes(data)) for key, (dtype, dims, data) in found.items()}, calls


def as_found(records):
    return {(r.section, r.name): (r.dtype, r.dims, bytes(r.data)) for r in records}


RECORDS = [
    Record("conv.weight", "Float32", (2, 3), bytes(range(24))),
    info_record("epoch_num", 3),
    Record("none", "Float32", (0, 4), b""),
    Record("empty", "Float16", (0,), b""),
    Record("wave", "Complex64", (2,), bytes(16)),
    Record("conv.weight", "BFloat16", (3,), b"abcdef", section=2),
    info_record("note", "héy 𝄞"),
]


@st.composite
def some_records(draw):
    keys = draw(st.lists(st.tuples(st.integers(0, 3), st.text(max_size=8)), unique=True, max_size=6))
    records = []
    for section, name in keys:
        dtype = draw(st.sampled_from([*ITEM_BYTES, "str"]))
        dims = (0,) if dtype == "str" else tuple(draw(st.lists(st.integers(0, 4), max_size=3)))
        size = draw(st.integers(0, 5)) * 4 if dtype == "str" else math.prod(dims) * ITEM_BYTES[dtype]
        records.append(Record(name, dtype, dims, draw(st.binary(min_size=size, max_size=size)), section))
    return records


@given(some_records(), st.binary(max_size=30), st.integers(1, 40))
def test_round_trip(records, extra, chunk_bytes):
    """Every tensor and the extra come back exactly, however the stream is cut into chunks."""
    data = join(records, extra, slice_bytes=SMALL_SLICE if chunk_bytes % 2 else 2**20)
    chunks = [data[i : i + chunk_bytes] for i in range(0, len(data), chunk_bytes)]
    found_extra, found, calls = read(chunks, len(data))
    assert found_extra == extra
    assert found == as_found(records)
    assert len(calls) == len(records), "the sink is asked once per tensor"


def test_tensors_leave_as_views():
    """The encoder yields a tensor's bytes as a view of its own memory, without a copy."""
    data = bytearray(1000)
    pieces = list(encode([Record("w", "Int8", (1000,), data)], b""))
    views = [piece for piece in pieces if isinstance(piece, memoryview)]
    assert len(views) == 1
    data[5] = 77
    assert views[0][5] == 77


def test_split_tensors_repeat_the_dims_of_the_whole():
    """A split tensor becomes adjacent records with one tag, each with the full dims, as in stock."""
    data = join([Record("w", "Int8", (40,), bytes(range(40)))])
    header = b"\x0a\x01w\x12"
    assert data.count(header) == 2
    assert data.count(b"\x08\x28\x12\x04Int8") == 2


def test_skipped_tensors_are_not_stored():
    """A sink that returns None skips a tensor and still gets the others."""
    kept = bytearray(24)

    def sink(name, dtype, dims, total, section):
        return memoryview(kept) if name == "conv.weight" and section == 0 else None

    assert decode([join(RECORDS, b"x")], sink) == b"x"
    assert kept == bytes(range(24))


@pytest.mark.parametrize("cut", range(len(join(RECORDS, b"some extra"))))
def test_truncation_never_passes_silently(cut):
    """A stream that ends early is rejected by its size, on record boundaries too."""
    data = join(RECORDS, b"some extra")
    with pytest.raises(CorruptError):
        read([data[:cut]], len(data))


@pytest.mark.parametrize("position", range(len(join(RECORDS[:3], b"ex"))))
def test_flipped_bytes_never_escape_as_another_error(position):
    """With any byte damaged, the decoder returns a result or raises CorruptError."""
    data = bytearray(join(RECORDS[:3], b"ex"))
    for flip in (0x01, 0x80, 0xFF):
        damaged = bytes(data[:position]) + bytes([data[position] ^ flip]) + bytes(data[position + 1 :])
        with contextlib.suppress(CorruptError):
            read([damaged], len(damaged))


@given(st.binary(max_size=60))
def test_arbitrary_bytes_are_corrupt_or_harmless(data):
    """Any bytes decode as a stream or raise CorruptError."""
    with contextlib.suppress(CorruptError):
        read([data], len(data))


def value(tag, dims, dtype, content, field=b"\x0a", announced=None):
    """A record made by hand; ``announced`` is its claimed content length."""
    length = len(content) if announced is None else announced
    tensor = b"".join(b"\x08" + bytes([d]) for d in dims)
    tensor += b"\x12" + varint(len(dtype)) + dtype + b"\x1a" + varint(length) + content
    inner = b"\x0a" + varint(len(tag)) + tag + b"\x12" + varint(len(tensor)) + tensor
    return field + varint(len(inner)) + inner


def varint(number):
    return bytes([number]) if number < 128 else bytes([number % 128 + 128]) + varint(number // 128)


GOOD = value(b"w", [2], b"Int8", b"ab")


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (value(b"w", [3], b"Int8", b"ab"), "the end of w is missing"),
        (value(b"w", [1], b"Int8", b"ab"), "more bytes than its shape"),
        (GOOD + GOOD, "twice"),
        (value(b"w", [3], b"Int8", b"ab") + value(b"v", [1], b"Int8", b"c"), "a part of w is missing"),
        (value(b"w", [3], b"Int8", b"ab") + value(b"w", [3], b"Int8", b"cd"), "more bytes than its shape"),
        (value(b"w", [2], b"Int8", b"ab", announced=1), "lengths contradict"),
        (value(b"w", [2], b"Int8", b"ab", announced=3), "lengths contradict"),
        (value(b"\xff", [2], b"Int8", b"ab"), "not UTF-8"),
        (GOOD + b"\x12\x01x", "unexpected field 2"),
        (b"\x0a\x03\x12\x01x", "instead of"),
        (b"\xff" * 12, "too large"),
        (value(b"w", [0] * 65, b"Int8", b""), "dimensions"),
    ],
)
def test_malformed_streams_are_named(data, says):
    """Each kind of malformed stream raises a CorruptError that says what is wrong."""
    with pytest.raises(CorruptError, match=says):
        read([data])


def test_huge_claims_allocate_nothing():
    """A length field that claims terabytes allocates nothing: the bytes must arrive first."""
    huge = b"\xff\xff\xff\xff\xff\xff\x01"
    with pytest.raises(CorruptError):
        read([b"\xc2\x3e" + huge + b"abc"])
    dims = b"".join(b"\x08" + b"\xff\xff\xff\x7f" for _ in range(3))
    tensor = dims + b"\x12\x04Int8\x1a\x01x"
    inner = b"\x0a\x01w\x12" + bytes([len(tensor)]) + tensor
    data = b"\x0a" + bytes([len(inner)]) + inner
    with pytest.raises(CorruptError, match="more than there are"):
        read([data], len(data))


def test_dims_zero_with_one_element_is_a_scalar():
    """A tensor with dims [0] and one element decodes as a scalar, as in stock."""
    _, found, _ = read([value(b"w", [0], b"Float32", b"abcd")])
    assert found == {(0, "w"): ("Float32", (), b"abcd")}


def test_info_records_have_a_type_for_each_value():
    """int, float, bool and str become Int64, Float32, Bool and str; a float too large becomes infinite."""
    assert info_record("i", -3).data == struct.pack("<q", -3)
    assert info_record("b", True) == Record("b", "Bool", (), b"\x01")
    assert info_record("f", 1e300).data == struct.pack("<f", math.inf)
    assert info_record("f", -1e300).data == struct.pack("<f", -math.inf)
    assert info_record("s", "") == Record("s", "str", (0,), bytes(4))


@pytest.mark.parametrize("bad", [2**63, None, [1], b"x"])
def test_info_records_refuse_what_cannot_be_saved(bad):
    """A value that stock cannot store raises a UsageError."""
    with pytest.raises(UsageError):
        info_record("x", bad)


def test_a_tensor_of_the_wrong_size_is_not_written():
    """A record whose bytes do not fit its shape is never encoded."""
    with pytest.raises(AssertionError):
        join([Record("w", "Float32", (2,), b"abc")])
    with pytest.raises(AssertionError):
        join([info_record("w", 1), info_record("w", 1)])
