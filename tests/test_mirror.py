"""The mirror: whatever dies at whichever byte, the newest complete slot is there and whole."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import struct
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from chaos.faults import Killed
from chaos.memory import SimulatedMemory
from resilient.mirror import (
    ALIGNMENT_BYTES,
    PAGE_BYTES,
    Mirror,
    MirrorError,
    MirrorLayout,
    NoSlotError,
    SharedMemory,
    Slot,
    needed_bytes,
    place,
)
from resilient.mirrored import Header, snapshot

META_BYTES = 64
LAYOUT = MirrorLayout(
    "run-1",
    3,
    "CKP",
    place([("w", "Float32", (3, 2), 0, 24), ("none", "Int8", (0, 4), 0, 0), ("b", "BFloat16", (5,), 1, 10)]),
    {"network": (0,), "trainable": ()},
)


def new_memory(layout=LAYOUT, slots=2, meta_bytes=META_BYTES):
    """The memory of a new mirror."""
    made = Mirror.make(layout, slots, lambda size: SimulatedMemory(bytearray(size)), meta_bytes)
    return made.memory


def meta_of(step):
    """As long as no other step's: a length that belongs to another boundary shows."""
    return b"meta of step %d " % step + b"." * (step % 7)


def values_of(step, area):
    return bytes([step % 251 + 1]) * area.size_bytes


def write(mirror, step):
    """Writes the boundary of a step, tensors and all, byte by byte through the memory."""

    def fill(number):
        for area in mirror.layout.areas:
            mirror.memory.write(mirror.start_of(number, area), values_of(step, area))

    return mirror.write(step, meta_of(step), fill)


def read(mirror, slot):
    """The step that a slot holds, after checking that every byte of it is of that step; 0 for no slot."""
    if slot is None:
        return 0
    assert mirror.meta(slot) == meta_of(slot.step)
    for area in mirror.layout.areas:
        assert bytes(mirror.view(slot.number, area)) == values_of(slot.step, area)
    return slot.step


def newest_step(memory):
    """What whoever opens the memory now finds."""
    mirror = Mirror(memory.restart())
    return read(mirror, mirror.newest())


def bytes_of_a_write(memory, step):
    """How many bytes writing a step takes, tried on a copy."""
    copy = SimulatedMemory(bytearray(memory.content))
    write(Mirror(copy), step)
    return copy.written


def dying_writes(memory, step):
    """The memory after a writer of ``step`` has died, once for each byte at which it may."""
    for count in range(bytes_of_a_write(memory, step)):
        after = SimulatedMemory(bytearray(memory.content), dies_after=count)
        with pytest.raises(Killed):
            write(Mirror(after), step)
        yield after


# Dying


@pytest.mark.parametrize("slots", [1, 2, 3])
def test_a_mirror_that_was_never_finished_is_none(slots):
    """Whichever byte of making it is the last, the memory is refused as no mirror; whole, it is empty."""
    encoded = len(LAYOUT.encode())
    whole = new_memory(slots=slots)
    for count in range(whole.written):
        content = bytearray()

        def create(size, content=content, count=count):
            content.extend(bytes(size))
            return SimulatedMemory(content, dies_after=count)

        with pytest.raises(Killed):
            Mirror.make(LAYOUT, slots, create, META_BYTES)
        with pytest.raises(MirrorError):
            Mirror(SimulatedMemory(content))
    assert whole.written > encoded
    assert newest_step(whole) == 0


@pytest.mark.parametrize("slots", [2, 3])
def test_a_death_at_any_byte_leaves_the_newest_boundary_whole(slots):
    """Over several boundaries, whichever byte is the last: the one before is found, byte for byte."""
    memory = new_memory(slots=slots)
    for step in range(1, 8):
        for after in dying_writes(memory, step):
            assert newest_step(after) == step - 1
        write(Mirror(memory), step)
        assert newest_step(memory) == step


@pytest.mark.parametrize("slots", [2, 3])
def test_deaths_in_a_row_lose_nothing(slots):
    """A writer that takes over from a dead one may die as well, at any byte, and still nothing is lost."""
    memory = new_memory(slots=slots)
    for step in (1, 2, 3):
        write(Mirror(memory), step)
    for first in dying_writes(memory, 4):
        for second in list(dying_writes(first, 5))[:: 3 if slots == 2 else 7]:
            assert newest_step(second) == 3
            write(Mirror(second.restart()), 6)
            assert newest_step(second) == 6


@pytest.mark.parametrize("pinned", [0, 1, 2])
def test_a_death_beside_a_pinned_slot_touches_it_no_more_than_the_newest(pinned):
    """With three slots one may be committed meanwhile: it stays what it was through every death."""
    memory = new_memory(slots=3)
    slots = [write(Mirror(memory), step) for step in (1, 2, 3)]
    held = next(slot for slot in slots if slot.number == pinned)
    Mirror(memory).pin(pinned)
    for after in dying_writes(memory, 4):
        mirror = Mirror(after.restart())
        assert newest_step(after) == 3
        assert mirror.is_still(held)
        assert read(mirror, held) == held.step


@given(st.data())
def test_a_fill_that_fails_costs_only_its_own_slot(data):
    """An error while tensors are copied is no boundary: the one before stays, and the next one is written."""
    memory = new_memory(slots=data.draw(st.sampled_from([2, 3])))
    mirror = Mirror(memory)
    steps = data.draw(st.integers(0, 5))
    for step in range(1, steps + 1):
        write(mirror, step)

    def fail(number):
        mirror.memory.write(mirror.start_of(number, LAYOUT.areas[0]), b"half")
        raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        mirror.write(99, b"", fail)
    assert newest_step(memory) == steps
    write(mirror, steps + 1)
    assert newest_step(memory) == steps + 1


# Pins


def test_a_pinned_slot_is_never_written():
    """While a slot is committed, the boundaries after it go to the others."""
    memory = new_memory(slots=3)
    mirror = Mirror(memory)
    held = write(mirror, 1)
    mirror.pin(held.number)
    for step in range(2, 10):
        assert write(mirror, step).number != held.number
        assert mirror.is_still(held)
        assert read(mirror, held) == 1
    mirror.unpin(held.number)
    assert write(mirror, 10).number == held.number
    assert not mirror.is_still(held)


@pytest.mark.parametrize("slots", [2, 3])
def test_where_every_slot_is_in_use_nothing_is_changed(slots):
    """With every other slot pinned there is NoSlotError, and not one byte has been written."""
    memory = new_memory(slots=slots)
    mirror = Mirror(memory)
    newest = [write(mirror, step) for step in range(1, slots + 1)][-1]
    for number in set(range(slots)) - {newest.number}:
        mirror.pin(number)
    before = bytes(memory.content)
    with pytest.raises(NoSlotError):
        mirror.write(9, b"", lambda number: pytest.fail("nothing may be copied"))
    assert bytes(memory.content) == before
    mirror.unpin_all()
    write(mirror, 9)
    assert newest_step(memory) == 9


def test_a_pinned_newest_slot_and_a_free_one_are_enough():
    """The newest boundary is not written over anyway: pinning it keeps nobody waiting."""
    mirror = Mirror(new_memory(slots=2))
    newest = write(mirror, 1)
    mirror.pin(newest.number)
    assert write(mirror, 2).number != newest.number
    with pytest.raises(NoSlotError):
        write(mirror, 3)


def test_a_pin_is_seen_by_every_process_and_outlives_its_own():
    """What one process pins the others leave alone, until it is unpinned for it."""
    memory = new_memory(slots=2)
    held = write(Mirror(memory), 1)
    Mirror(memory.restart()).pin(held.number)
    write(Mirror(memory.restart()), 2)
    with pytest.raises(NoSlotError):
        write(Mirror(memory.restart()), 3)
    Mirror(memory.restart()).unpin_all()
    write(Mirror(memory.restart()), 3)
    assert newest_step(memory) == 3


def test_a_slot_that_is_written_again_is_told_from_what_it_was():
    """From the first byte of a new boundary on, and after it, a slot is no longer what was seen in it."""
    memory = new_memory(slots=2)
    seen = write(Mirror(memory), 1)
    write(Mirror(memory), 2)
    assert Mirror(memory).is_still(seen)
    deaths = list(dying_writes(memory, 3))
    assert Mirror(deaths[0]).is_still(seen)
    assert not any(Mirror(after).is_still(seen) for after in deaths[1:])
    write(Mirror(memory), 3)
    assert not Mirror(memory).is_still(seen)


# Layout


def test_a_layout_survives_its_encoding():
    """What the maker knew of the tensors, whoever maps the memory knows."""
    assert MirrorLayout.decode(LAYOUT.encode()) == LAYOUT
    assert Mirror(new_memory()).layout == LAYOUT
    assert Mirror(new_memory()).digest == Mirror(new_memory(slots=3)).digest


sizes = st.lists(st.integers(0, 300), max_size=8)


@given(sizes, st.integers(1, 3), st.integers(0, 200))
def test_tensors_lie_apart_and_aligned(tensor_sizes, slots, meta_bytes):
    """No two tensors of any slots share a byte with each other or with a meta, and each is aligned."""
    areas = place([(f"t{n}", "Int8", (size,), 0, size) for n, size in enumerate(tensor_sizes)])
    memory = new_memory(MirrorLayout("r", 0, "p", areas), slots, meta_bytes)
    mirror = Mirror(memory)
    taken = [(0, PAGE_BYTES + len(mirror.layout.encode()))]
    for number in range(slots):
        starts = [mirror.start_of(number, area) for area in areas]
        assert all(start % ALIGNMENT_BYTES == 0 for start in starts)
        taken += [(start, start + size) for start, size in zip(starts, tensor_sizes, strict=True)]
        taken.append((mirror._at(number), mirror._at(number) + PAGE_BYTES + mirror.meta_bytes))
    taken = sorted((start, end) for start, end in taken if start < end)
    assert all(end <= start for (_, end), (start, _) in pairwise(taken))
    assert taken[-1][1] <= memory.size_bytes
    assert mirror.fits(bytes(meta_bytes))


def test_the_memory_that_is_asked_for_is_what_the_tensors_take():
    """Twice the slots is twice the memory; the room for a meta that is never used costs nothing."""
    areas = place([("w", "Int8", (10**6,), 0, 10**6)])
    two, three = (needed_bytes(MirrorLayout("r", 0, "p", areas), slots) for slots in (2, 3))
    assert 2 * 10**6 <= two < 2.1 * 10**6
    assert 3 * 10**6 <= three < 3.1 * 10**6


def test_a_slot_travels_as_a_message():
    """What is asked for over the link is the slot that was meant."""
    slot = Slot(1, 7, 30)
    assert Slot.from_message({"type": "save", **slot.to_message()}) == slot


# Whatever bytes there are


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


@pytest.mark.parametrize(
    "message",
    [{}, {"slot": 1}, {"slot": -1, "sequence": 1, "step": 1}, {"slot": "0", "sequence": 1, "step": 1}],
)
def test_a_message_without_a_slot_is_refused(message):
    """What comes over a link is a slot or MirrorError."""
    with pytest.raises(MirrorError):
        Slot.from_message(message)


# Any life


class Life(RuleBasedStateMachine):
    """One mirror through many processes, beside what it must hold.

    ``expected`` is the newest step that was written to its end, ``pinned`` the slots that are pinned and what
    they held then.
    """

    def content_of(self, number):
        """Every byte of a slot, without the one that says whether it is pinned."""
        start = self.mirror._at(number)
        slot = bytes(self.memory.content[start : start + self.mirror._slot_bytes])
        return slot[:1] + slot[2:]

    @initialize(slots=st.sampled_from([2, 3]))
    def begin(self, slots):
        self.slots = slots
        self.memory = new_memory(slots=slots)
        self.mirror = Mirror(self.memory)
        self.expected = self.step = 0
        self.pinned = {}

    @rule()
    def write(self):
        self.step += 1
        try:
            write(self.mirror, self.step)
            self.expected = self.step
        except NoSlotError:
            free = set(range(self.slots)) - set(self.pinned)
            newest = self.mirror.newest()
            assert not free - {newest.number if newest else None}

    @rule(share=st.floats(0, 1, exclude_max=True))
    def die_in_a_write(self, share):
        try:
            size = bytes_of_a_write(self.memory, self.step + 1)
        except NoSlotError:
            return
        self.step += 1
        self.memory.dies_after(int(share * size))
        with pytest.raises(Killed):
            write(self.mirror, self.step)
        self.reopen()

    @rule(number=st.integers(0, 2))
    def pin(self, number):
        number %= self.slots
        self.mirror.pin(number)
        self.pinned.setdefault(number, self.content_of(number))

    @rule(number=st.integers(0, 2))
    def unpin(self, number):
        self.mirror.unpin(number % self.slots)
        self.pinned.pop(number % self.slots, None)

    @rule()
    def unpin_all(self):
        self.mirror.unpin_all()
        self.pinned.clear()

    @rule()
    def reopen(self):
        self.memory = self.memory.restart()
        self.mirror = Mirror(self.memory)

    @invariant()
    def the_newest_boundary_is_there(self):
        assert newest_step(self.memory) == self.expected

    @invariant()
    def pinned_slots_are_what_they_were(self):
        for number, content in self.pinned.items():
            assert self.content_of(number) == content


Life.TestCase.settings = settings(stateful_step_count=40)
TestLife = Life.TestCase


# Real memory


def descriptors():
    return set(os.listdir("/proc/self/fd"))


def test_what_one_mapping_writes_the_other_sees():
    """Two processes that map one memfd share every byte of it, whoever wrote it."""
    ours = Mirror.make(LAYOUT, 2, SharedMemory.create, META_BYTES)
    theirs = Mirror.of(os.dup(ours.memory.descriptor))
    assert theirs.layout == LAYOUT
    assert theirs.newest() is None
    slot = write(ours, 1)
    assert theirs.newest() == slot
    assert read(theirs, slot) == 1
    theirs.pin(0)
    theirs.pin(1)
    with pytest.raises(NoSlotError):
        write(ours, 2)
    for mirror in (ours, theirs):
        mirror.memory.close()


def test_memory_outlives_whoever_made_it():
    """The boundary of a process that was killed is read by another one that holds a descriptor."""
    mirror = Mirror.make(LAYOUT, 2, SharedMemory.create, META_BYTES)
    child = os.fork()
    if child == 0:
        write(mirror, 5)
        os.kill(os.getpid(), signal.SIGKILL)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    assert read(mirror, mirror.newest()) == 5
    mirror.memory.close()


def test_nothing_stays_of_a_memory_that_was_closed_and_dropped():
    """Neither its descriptor nor the one that the mapping has; closing twice is closing once."""
    before = descriptors()
    mirror = Mirror.make(LAYOUT, 2, SharedMemory.create, META_BYTES)
    other = Mirror.of(os.dup(mirror.memory.descriptor))
    for each in (mirror, other):
        each.close()
        each.close()
    del mirror, other, each
    assert descriptors() == before


def test_what_was_closed_can_still_be_read():
    """Who has a mirror that was replaced may commit what it holds; a view alone keeps the bytes as well."""
    before = descriptors()
    mirror = Mirror.make(LAYOUT, 2, SharedMemory.create, META_BYTES)
    slot = write(mirror, 4)
    mirror.close()
    assert mirror.is_still(slot)
    assert read(mirror, mirror.newest()) == 4
    view = mirror.view(slot.number, LAYOUT.areas[0])
    del mirror
    assert bytes(view) == values_of(4, LAYOUT.areas[0])
    view.release()
    del view
    assert descriptors() == before


@pytest.mark.parametrize("size", [0, 1, PAGE_BYTES - 1, PAGE_BYTES, 5 * PAGE_BYTES])
def test_a_memory_that_is_no_mirror_is_closed_and_refused(size):
    """Too small, or zeros: MirrorError, and its descriptor does not stay."""
    before = descriptors()
    descriptor = os.memfd_create("something", os.MFD_CLOEXEC)
    os.ftruncate(descriptor, size)
    with pytest.raises(MirrorError):
        Mirror.of(descriptor)
    assert descriptors() == before


def test_a_descriptor_that_is_no_memory_is_closed_and_refused(tmp_path):
    """A pipe, a socket, a file that cannot be written, one that is closed: MirrorError, nothing stays."""
    (tmp_path / "file").write_bytes(bytes(2 * PAGE_BYTES))
    before = descriptors()
    reading, writing = os.pipe()
    file = os.open(tmp_path / "file", os.O_RDONLY)
    ours, theirs = socket.socketpair()
    for descriptor in (reading, writing, file, ours.detach(), theirs.detach(), 10**6):
        with pytest.raises(MirrorError):
            Mirror.of(descriptor)
    assert descriptors() == before


def test_memory_that_cannot_be_made_leaves_no_descriptor():
    """A size that no kernel grants is an OSError, with nothing left open."""
    before = descriptors()
    with pytest.raises(OSError):  # noqa: PT011 - which one it is, is the kernel's affair
        SharedMemory.create(2**62)
    with pytest.raises(MirrorError):
        SharedMemory.create(PAGE_BYTES - 1)
    assert descriptors() == before
