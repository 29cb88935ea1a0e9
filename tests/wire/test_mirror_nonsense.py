"""Whatever bytes a mirror has: refused, or read within its slots; never anything else."""

from __future__ import annotations

import hashlib
import json
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mirrors import LAYOUT, META_BYTES, new_memory, write

from chaos.simulated_memory import SimulatedMemory
from resilient.errors import MirrorError
from resilient.host.shared_memory import PAGE_BYTES
from resilient.saving.slots import Header, snapshot
from resilient.wire.mirror import Mirror, MirrorLayout, Slot


def hostile(memory):
    """Does to a memory what every reader does; it may only refuse."""
    try:
        mirror = Mirror(memory)
        slot = mirror.newest()
        if slot is not None:
            snapshot(mirror, slot, "killed", failure=True)
            mirror.is_still(slot)
        mirror.unpin_all()
        mirror.pin(0)
        mirror.write(7, b"", lambda number: None)
    except MirrorError:
        return False
    return True


def header(slots=2, slot_bytes=2 * PAGE_BYTES, meta_bytes=META_BYTES, layout=b"{}", magic=b"RSLMIRR1"):
    return struct.pack(
        "=8sQQQQ32s", magic, slots, slot_bytes, meta_bytes, len(layout), hashlib.sha256(layout).digest()
    )


def memory_with(layout, slots=2, slot_bytes=2 * PAGE_BYTES, meta_bytes=META_BYTES):
    """A memory of the right size whose header is in order, whatever its layout says."""
    first = PAGE_BYTES - (-len(layout) // PAGE_BYTES) * PAGE_BYTES
    content = bytearray(first + slots * slot_bytes)
    content[: PAGE_BYTES // 8] = header(slots, slot_bytes, meta_bytes, layout).ljust(PAGE_BYTES // 8, b"\0")
    content[PAGE_BYTES : PAGE_BYTES + len(layout)] = layout
    return SimulatedMemory(content)


@given(st.binary(max_size=3 * PAGE_BYTES))
def test_arbitrary_bytes_are_no_mirror(content):
    """Memory of any length with anything in it: MirrorError, and nothing else."""
    with pytest.raises(MirrorError):
        Mirror(SimulatedMemory(bytearray(content)))


u64 = st.one_of(st.integers(0, 5), st.sampled_from([64, 2**12, 2**13, 2**32, 2**63, 2**64 - 1]))


@given(u64, u64, u64, st.integers(0, 4), st.binary(max_size=40))
def test_a_header_with_any_numbers_is_refused_or_true(slots, slot_bytes, meta_bytes, pages, layout):
    """Numbers from a header never lead beyond the memory, and never count for ever."""
    content = header(slots, slot_bytes, meta_bytes, layout).ljust(PAGE_BYTES, b"\0") + layout
    hostile(SimulatedMemory(bytearray(content.ljust((2 + pages) * PAGE_BYTES, b"\0"))))


def test_slots_without_a_size_are_not_counted_for_ever():
    """A header may claim 2**64 slots of no bytes and still add up: it is refused."""
    whole = new_memory()
    content = whole.content[: 2 * PAGE_BYTES]
    struct.pack_into("=QQ", content, 8, 2**64 - 1, 0)
    with pytest.raises(MirrorError, match="too small"):
        Mirror(SimulatedMemory(content))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
)


@st.composite
def garbled_layouts(draw):
    """The JSON of a good layout with one value replaced by anything."""
    content = json.loads(LAYOUT.encode())
    where = draw(st.sampled_from([content, content["weights"], *content["areas"]]))
    where[draw(st.sampled_from(sorted(where)))] = draw(json_values)
    return json.dumps(content).encode()


@given(st.one_of(garbled_layouts(), json_values.map(lambda value: json.dumps(value).encode()), st.binary()))
def test_a_garbled_layout_is_refused_or_true(layout):
    """Whatever a layout's bytes say: MirrorError, or a layout whose tensors lie within the slots."""
    memory = memory_with(layout, slot_bytes=3 * PAGE_BYTES)
    if hostile(memory):
        mirror = Mirror(memory.restart())
        for area in mirror.layout.areas:
            assert len(mirror.view(1, area)) == area.size_bytes
        assert MirrorLayout.decode(mirror.layout.encode()) == mirror.layout


@pytest.mark.parametrize(
    "change",
    [
        {"offset": -64},
        {"offset": 3 * PAGE_BYTES},
        {"size_bytes": 2**62},
        {"size_bytes": True},
        {"dims": [1.5]},
        {"name": None},
        {"section": "0"},
    ],
    ids=str,
)
def test_a_tensor_outside_of_its_slot_is_refused(change):
    """A tensor that would be another slot's memory, or no tensor at all, makes the mirror none."""
    content = json.loads(LAYOUT.encode())
    content["areas"][0].update(change)
    with pytest.raises(MirrorError):
        Mirror(memory_with(json.dumps(content).encode(), slot_bytes=3 * PAGE_BYTES))


@pytest.mark.parametrize("weights", [{"network": [3]}, {"network": [-1]}, {"network": "01"}, []], ids=str)
def test_weights_that_name_no_tensor_are_refused(weights):
    """A weights file is made of tensors that are there."""
    content = {**json.loads(LAYOUT.encode()), "weights": weights}
    with pytest.raises(MirrorError):
        Mirror(memory_with(json.dumps(content).encode(), slot_bytes=3 * PAGE_BYTES))


def test_nesting_without_an_end_is_refused():
    """A layout or a meta of 100,000 brackets ends in MirrorError, not in an exhausted stack."""
    brackets = b"[" * 100_000
    with pytest.raises(MirrorError):
        MirrorLayout.decode(brackets)
    with pytest.raises(MirrorError):
        Header.decode(brackets)


@pytest.mark.parametrize("slots", [2, 3])
def test_a_slot_with_any_bytes_is_refused_or_read(slots):
    """A bit flipped anywhere in the header, the layout or a slot's description never leads astray."""
    memory = new_memory(slots=slots)
    mirror = Mirror(memory)
    write(mirror, 1)
    described = [mirror._at(number) for number in range(slots)]
    places = [*range(80), *range(PAGE_BYTES, PAGE_BYTES + len(LAYOUT.encode()))]
    places += [start + at for start in described for at in range(40)]
    for at in places:
        for flip in (0x01, 0x80, 0xFF):
            content = bytearray(memory.content)
            content[at] ^= flip
            hostile(SimulatedMemory(content))


def test_a_meta_that_claims_more_than_its_room_is_refused():
    """A length that was read from the memory is never believed beyond the slot."""
    memory = new_memory()
    mirror = Mirror(memory)
    slot = write(mirror, 1)
    struct.pack_into("=Q", memory.content, mirror._at(slot.number) + 24, 2**40)
    with pytest.raises(MirrorError, match="claims"):
        mirror.meta(slot)


def test_a_count_at_its_end_refuses_to_write():
    """Where no number is left for another boundary nothing is written, and nothing is struck dumb."""
    memory = new_memory()
    mirror = Mirror(memory)
    slot = write(mirror, 1)
    struct.pack_into("=Q", memory.content, mirror._at(slot.number) + 8, 2**64 - 1)
    before = bytes(memory.content)
    with pytest.raises(MirrorError, match="no further"):
        write(mirror, 2)
    assert bytes(memory.content) == before


@pytest.mark.parametrize("number", [-1, 2, 2**40])
def test_a_slot_that_does_not_exist_is_refused(number):
    """A number from a message pins and reads slots, and nothing else of the memory."""
    memory = new_memory()
    mirror = Mirror(memory)
    before = bytes(memory.content)
    acts = [mirror.pin, mirror.unpin, lambda n: mirror.is_still(Slot(n, 1, 1))]
    for act in [*acts, lambda n: mirror.meta(Slot(n, 1, 1)), lambda n: mirror.view(n, LAYOUT.areas[0])]:
        with pytest.raises(MirrorError):
            act(number)
    assert bytes(memory.content) == before


def test_a_layout_without_measure_is_not_read():
    """A header may claim a layout of gigabytes in memory that takes none: nothing of that size is read."""

    class Sparse(SimulatedMemory):
        size_bytes = PAGE_BYTES * 2**20 + 3 * PAGE_BYTES

        def read(self, offset, size_bytes):
            assert size_bytes <= PAGE_BYTES, "a large piece is read"
            return super().read(offset, size_bytes)

    content = bytearray(PAGE_BYTES)
    fields = b"RSLMIRR1", 1, 2 * PAGE_BYTES, META_BYTES, PAGE_BYTES * 2**20
    struct.pack_into("=8sQQQQ", content, 0, *fields)
    with pytest.raises(MirrorError):
        Mirror(Sparse(content))
