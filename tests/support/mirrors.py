"""A small mirror on simulated memory, every byte of whose boundaries tells its step."""

from __future__ import annotations

import pytest

from chaos.faults import Killed
from chaos.simulated_memory import SimulatedMemory
from resilient.wire.mirror import Mirror, MirrorLayout, place

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
