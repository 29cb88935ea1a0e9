"""Hostile bytes for the readers: nothing at all, and what becomes of good files in bad hands.

A change takes a file and what to draw from, and gives the file as somebody may have left it. Lengths are
the favourite: whatever a reader takes for one becomes negative, or larger than any memory.
"""

from __future__ import annotations

import struct

from hypothesis import strategies as st

LENGTHS = [0, 1, -1, 2**31 - 1, -(2**31), 2**32 - 1, 2**53, 2**62, 2**63 - 1]


def varint(number):
    """A number as protobuf has it."""
    return bytes([number]) if number < 128 else bytes([number % 128 + 128]) + varint(number // 128)


def length_bytes(number):
    """A number as any of our formats may have it."""
    forms = [str(number).encode()]
    if number >= 0:
        forms.append(varint(number))
    if -(2**31) <= number < 2**31:
        forms.append(struct.pack("<i", number))
    return forms


_HOSTILE = [form for number in LENGTHS for form in length_bytes(number)]


@st.composite
def changed(draw, files):
    """One of the files, changed up to four times."""
    data = draw(st.sampled_from(files))
    for _ in range(draw(st.integers(1, 4))):
        data = draw(st.sampled_from(_CHANGES))(draw, data, files)
    return data


def _position(draw, data):
    return draw(st.integers(0, len(data)))


def _flip(draw, data, files):
    at = _position(draw, data)
    bits = draw(st.integers(1, 255))
    return data[:at] + bytes(byte ^ bits for byte in data[at : at + 1]) + data[at + 1 :]


def _cut(draw, data, files):
    return data[: _position(draw, data)]


def _insert(draw, data, files):
    at = _position(draw, data)
    return data[:at] + draw(st.binary(max_size=8)) + data[at:]


def _leave_out(draw, data, files):
    start, end = sorted((_position(draw, data), _position(draw, data)))
    return data[:start] + data[end:]


def _repeat(draw, data, files):
    start, end = sorted((_position(draw, data), _position(draw, data)))
    return data[:end] + data[start:end] + data[end:]


def _splice(draw, data, files):
    other = draw(st.sampled_from(files))
    return data[: _position(draw, data)] + other[_position(draw, other) :]


def _claim(draw, data, files):
    """A hostile length, over what is there or in between."""
    at = _position(draw, data)
    length = draw(st.sampled_from(_HOSTILE))
    return data[:at] + length + data[at + (len(length) if draw(st.booleans()) else draw(st.integers(0, 1))) :]


_CHANGES = [_flip, _cut, _insert, _leave_out, _repeat, _splice, _claim]

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.sampled_from([*LENGTHS, 10**400, 2**64])
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["\ud800", "\0", "/", "AES-GCM", "00" * 16]),
    lambda children: (
        st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=3), children, max_size=3)
    ),
    max_leaves=6,
)
"""Anything that JSON can say, and Python's readers let through."""


def nested(depth):
    """Brackets in brackets: what a reader that calls itself does not survive."""
    return b"[" * depth


def nothing_but(errors):
    """What a reader gives for these bytes; None when it refuses them as it should."""

    def read(reader, *arguments, **options):
        try:
            return reader(*arguments, **options)
        except errors:
            return None

    return read
