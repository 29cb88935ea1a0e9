"""The mirror: memory that outlives its worker, holding the newest snapshots of one rank.

It is one anonymous memfd. The worker makes it and writes; the supervisor holds a descriptor of it, so that it
stays when the worker dies; the saver and the next attempt read. Numbers are native, offsets are bytes:

    0       header      magic 8 | slots u64 | slot bytes u64 | meta bytes u64 | layout bytes u64 | digest 32
    4096    layout      JSON: whose it is, and where each tensor lies within a slot; padded to whole pages
    ...     slots       each begins on a page:
              0           state u8 (0 empty, 1 writing, 2 complete) | pinned u8 | ... sequence u64 at 8 |
                          step u64 at 16 | meta length u64 at 24
              4096        the meta: what belongs to this one boundary beside the tensors
              ...         the tensors, each on a multiple of 64

Who may write what, and what a death at any byte leaves:

* A slot is written in this order: state = writing, tensors and meta, sequence and step, state = complete. The
  state is one byte, so it is never torn. Whoever finds a slot that is not complete looks at another one.
* The slot that holds the newest boundary is never the one that is written, nor is one that is pinned. So
  there is a complete slot from the first snapshot on, whatever dies when.
* A slot is pinned while it is being committed: by the worker when it asks for that, by the supervisor when no
  worker lives. Whoever commits a slot looks at its sequence again before it believes what it has read.
* The processor that dies has carried out its writes in the order above; one that reads while the writer
  lives was told of the slot over a socket, and the kernel has ordered the two.

Nothing here is authenticated: the memory belongs to processes of one user, and never reaches a disk.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field

from resilient.errors import MirrorError, NoSlotError
from resilient.host.shared_memory import PAGE_BYTES, Memory, SharedMemory
from resilient.wire.bounds import Count

ALIGNMENT_BYTES = 64
META_BYTES = 4 * 1024 * 1024
"""Room for a meta. A page that is never written takes no memory."""

_MAGIC = b"RSLMIRR1"
_HEADER = struct.Struct("=8sQQQQ32s")
_SLOT = struct.Struct("=QQQ")  # sequence, step, meta length
_SLOT_AT = 8
_STATE_AT, _PINNED_AT = 0, 1
_EMPTY, _WRITING, _COMPLETE = 0, 1, 2
_MOST_LAYOUT_BYTES = 256 * 1024 * 1024

NONSENSE = (ValueError, KeyError, TypeError, AttributeError, RecursionError)
"""What reading JSON of another shape than expected may raise."""


@dataclass(frozen=True)
class Area:
    """Where one tensor lies in a slot. ``offset`` counts from the slot's first tensor."""

    name: str
    dtype: str
    dims: tuple[int, ...]
    section: int
    offset: int
    size_bytes: int


@dataclass(frozen=True)
class MirrorLayout:
    """Whose mirror it is, and what lies where in its slots.

    ``weights`` are further files by kind: which of the areas they hold.
    """

    run_id: str
    rank: int
    prefix: str
    areas: tuple[Area, ...]
    weights: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    @property
    def data_bytes(self) -> int:
        return max((_aligned(a.offset + a.size_bytes, ALIGNMENT_BYTES) for a in self.areas), default=0)

    def encode(self) -> bytes:
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":")).encode()

    @classmethod
    def decode(cls, data: bytes) -> MirrorLayout:
        """The inverse of :meth:`encode`. Raises MirrorError."""
        try:
            content = json.loads(data)
            areas = tuple(Area(**{**area, "dims": tuple(area["dims"])}) for area in content.pop("areas"))
            weights = {kind: tuple(numbers) for kind, numbers in content.pop("weights").items()}
            layout = cls(areas=areas, weights=weights, **content)
        except NONSENSE as error:
            raise MirrorError(f"the mirror's layout makes no sense: {error}") from error
        if not _is_sensible(layout):
            raise MirrorError("the mirror's layout makes no sense")
        return layout


def place(tensors: Sequence[tuple[str, str, tuple[int, ...], int, int]]) -> tuple[Area, ...]:
    """Areas for tensors given as (name, dtype, dims, section, size_bytes), one after the other."""
    areas, offset = [], 0
    for name, dtype, dims, section, size_bytes in tensors:
        areas.append(Area(name, dtype, dims, section, offset, size_bytes))
        offset = _aligned(offset + size_bytes, ALIGNMENT_BYTES)
    return tuple(areas)


def needed_bytes(layout: MirrorLayout, slots: int) -> int:
    """The memory that a mirror takes once every slot is written."""
    return slots * (layout.data_bytes + 2 * PAGE_BYTES) + len(layout.encode())


def is_count(value: object) -> bool:
    """Whether something that was read is a whole number that a tensor or a step may have."""
    return type(value) is int and 0 <= value < 2**63


def _is_sensible(layout: MirrorLayout) -> bool:
    """Whether every field is of its type, and what is numbered exists."""
    texts = [layout.run_id, layout.prefix, *(text for a in layout.areas for text in (a.name, a.dtype))]
    counts = [n for a in layout.areas for n in (*a.dims, a.section, a.offset, a.size_bytes)]
    numbers = [n for chosen in layout.weights.values() for n in chosen]
    return (
        all(isinstance(text, str) for text in texts)
        and all(is_count(n) for n in (layout.rank, *counts, *numbers))
        and all(n < len(layout.areas) for n in numbers)
    )


@dataclass(frozen=True)
class Slot:
    """One complete slot as it was seen: which one, its place in the order, and the step it holds."""

    number: Count
    sequence: Count
    step: Count


class Mirror:
    """A mirror over some memory."""

    def __init__(self, memory: Memory) -> None:
        self.memory = memory
        if memory.size_bytes < PAGE_BYTES:
            raise MirrorError(f"a memory of {memory.size_bytes} bytes is no mirror")
        magic, slots, slot_bytes, meta_bytes, layout_bytes, digest = _HEADER.unpack(
            memory.read(0, _HEADER.size)
        )
        first = _aligned(PAGE_BYTES + layout_bytes, PAGE_BYTES)
        fitting = slots > 0 and first + slots * slot_bytes == memory.size_bytes
        if magic != _MAGIC or not fitting or layout_bytes > _MOST_LAYOUT_BYTES:
            raise MirrorError("the memory is no mirror of this version")
        encoded = memory.read(PAGE_BYTES, layout_bytes)
        if hashlib.sha256(encoded).digest() != digest:
            raise MirrorError("the mirror's layout was never finished")
        self.layout = MirrorLayout.decode(encoded)
        if slot_bytes < PAGE_BYTES + meta_bytes + self.layout.data_bytes:
            # Whoever believed it would read beyond the slot, or count slots without an end.
            raise MirrorError("the mirror's slots are too small for its layout")
        self.digest = digest
        self._first = first
        self._slots = slots
        self._slot_bytes = slot_bytes
        self.meta_bytes: int = meta_bytes

    @classmethod
    def make(
        cls,
        layout: MirrorLayout,
        slots: int,
        create: Callable[[int], Memory],
        meta_bytes: int = META_BYTES,
    ) -> Mirror:
        """A new mirror, every slot empty, in memory of the right size from ``create``.

        ``meta_bytes`` is the least room for a meta.
        """
        assert slots >= 1
        encoded = layout.encode()
        # The tensors follow: they are read as numbers, and a number across two lines of the cache is slow.
        meta_bytes = _aligned(meta_bytes, ALIGNMENT_BYTES)
        slot_bytes = _aligned(PAGE_BYTES + meta_bytes + layout.data_bytes, PAGE_BYTES)
        first = _aligned(PAGE_BYTES + len(encoded), PAGE_BYTES)
        memory = create(first + slots * slot_bytes)
        memory.write(PAGE_BYTES, encoded)
        digest = hashlib.sha256(encoded).digest()
        memory.write(0, _HEADER.pack(_MAGIC, slots, slot_bytes, meta_bytes, len(encoded), digest))
        return cls(memory)

    @classmethod
    def of(cls, descriptor: int) -> Mirror:
        """The mirror behind a descriptor, which belongs to it from now on.

        Raises MirrorError for anything else than a mirror; then the descriptor is closed.
        """
        try:
            memory = SharedMemory(descriptor)
        except (MirrorError, OSError, ValueError) as error:
            with contextlib.suppress(OSError):
                os.close(descriptor)
            raise MirrorError(f"what was shared is no memory: {error}") from error
        try:
            return cls(memory)
        except MirrorError:
            memory.close()
            raise

    def close(self) -> None:
        """Lets go of the memory, which can be read as long as somebody has this object or a view."""
        self.memory.close()

    # Reading

    def newest(self) -> Slot | None:
        """The complete slot with the newest boundary; None before the first."""
        complete = [self._look(n) for n in range(self._slots) if self._state(n) == _COMPLETE]
        return max(complete, key=lambda slot: slot.sequence, default=None)

    def is_still(self, slot: Slot) -> bool:
        """Whether a slot holds what it held when it was seen: nobody has begun to write it again."""
        return self._state(slot.number) == _COMPLETE and self._look(slot.number) == slot

    def meta(self, slot: Slot) -> bytes:
        """The meta of a slot."""
        _, _, size_bytes = _SLOT.unpack(self.memory.read(self._at(slot.number) + _SLOT_AT, _SLOT.size))
        if size_bytes > self.meta_bytes:
            raise MirrorError(f"a slot claims a meta of {size_bytes} bytes")
        return self.memory.read(self._at(slot.number) + PAGE_BYTES, size_bytes)

    def view(self, slot: int, area: Area) -> memoryview:
        """The memory of a tensor in a slot."""
        return self.memory.view(self.start_of(slot, area), area.size_bytes)

    def start_of(self, slot: int, area: Area) -> int:
        """Where in the memory a tensor of a slot begins."""
        return self._at(slot) + PAGE_BYTES + self.meta_bytes + area.offset

    def fetch_pages(self) -> None:
        """Has the kernel provide the memory of the tensors; it may take seconds, and others may write."""
        for number in range(self._slots):
            if isinstance(self.memory, SharedMemory):
                start = self._at(number) + PAGE_BYTES + self.meta_bytes
                self.memory.fetch_pages(start, self.layout.data_bytes)

    # Writing

    def fits(self, meta: bytes) -> bool:
        """Whether a slot has room for this meta."""
        return len(meta) <= self.meta_bytes

    def write(self, step: int, meta: bytes, fill: Callable[[int], None]) -> Slot:
        """Writes a boundary into a free slot; ``fill(slot number)`` copies the tensors.

        Raises NoSlotError when a pinned slot is in the way; then nothing has changed.
        """
        assert self.fits(meta)
        assert is_count(step)
        newest = self.newest()
        number = self._target(newest)
        sequence = newest.sequence + 1 if newest else 1
        if not is_count(sequence):
            raise MirrorError("the mirror's slots count no further")
        start = self._at(number)
        self.memory.write(start + _STATE_AT, bytes([_WRITING]))
        fill(number)
        self.memory.write(start + PAGE_BYTES, meta)
        self.memory.write(start + _SLOT_AT, _SLOT.pack(sequence, step, len(meta)))
        self.memory.write(start + _STATE_AT, bytes([_COMPLETE]))
        return Slot(number, sequence, step)

    def pin(self, number: int) -> None:
        """From now on this slot is not written."""
        self.memory.write(self._at(number) + _PINNED_AT, b"\x01")

    def unpin(self, number: int) -> None:
        """The slot may be written again."""
        self.memory.write(self._at(number) + _PINNED_AT, b"\x00")

    def unpin_all(self) -> None:
        """Nothing is being committed: what a dead process has pinned is free again."""
        for number in range(self._slots):
            self.unpin(number)

    def _target(self, newest: Slot | None) -> int:
        """The slot to be written: free, and the oldest."""
        free = [
            number
            for number in range(self._slots)
            if not self._is_pinned(number) and (newest is None or number != newest.number)
        ]
        if not free:
            raise NoSlotError("every other slot is being committed")
        return min(free, key=lambda n: self._look(n).sequence if self._state(n) == _COMPLETE else 0)

    def _at(self, number: int) -> int:
        if not 0 <= number < self._slots:
            raise MirrorError(f"there is no slot {number}")
        return int(self._first + number * self._slot_bytes)

    def _state(self, number: int) -> int:
        return self.memory.read(self._at(number) + _STATE_AT, 1)[0]

    def _is_pinned(self, number: int) -> bool:
        return self.memory.read(self._at(number) + _PINNED_AT, 1) != b"\x00"

    def _look(self, number: int) -> Slot:
        sequence, step, _ = _SLOT.unpack(self.memory.read(self._at(number) + _SLOT_AT, _SLOT.size))
        return Slot(number, sequence, step)


def _aligned(size_bytes: int, to_bytes: int) -> int:
    return -(-size_bytes // to_bytes) * to_bytes
