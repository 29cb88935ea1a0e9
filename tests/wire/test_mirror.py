"""The mirror: whatever dies at whichever byte, the newest complete slot is there and whole."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mirrors import LAYOUT, META_BYTES, dying_writes, new_memory, newest_step, read, write

from chaos.faults import Killed
from chaos.simulated_memory import SimulatedMemory
from resilient.errors import MirrorError, NoSlotError
from resilient.host.shared_memory import PAGE_BYTES
from resilient.wire.mirror import ALIGNMENT_BYTES, Mirror, MirrorLayout, needed_bytes, place


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
