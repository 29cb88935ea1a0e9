"""Whole lives of a mirror, at random: writes, deaths, pins and new processes in any order."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from mirrors import bytes_of_a_write, new_memory, newest_step, write

from chaos.faults import Killed
from resilient.errors import NoSlotError
from resilient.wire.mirror import Mirror


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
