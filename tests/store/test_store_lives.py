"""Whole lives of a store, at random: commits, faults, crashes, damage and jumping clocks in any order."""

from __future__ import annotations

import contextlib
import errno
import random

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from store_world import CANARY, KEY, QUARANTINE, SEALINGS, draft, make_store, names, newest, read_back

from chaos.clock import SteppedClock
from chaos.disk import SimulatedDisk
from chaos.faults import Fail, Kill, Killed, nothing
from resilient.errors import CorruptError, StorageError
from resilient.store import layout

KEEP = 2


class Life(RuleBasedStateMachine):
    """One run directory through many processes.

    ``acknowledged`` are the steps reported as saved, ``damaged`` those whose files were spoilt since. What
    retention has removed rightfully is taken out of ``acknowledged`` once the removal was observed.
    """

    @initialize(name=st.sampled_from(sorted(SEALINGS)))
    def begin(self, name):
        self.sealing = SEALINGS[name]
        self.disk = SimulatedDisk()
        self.clock = SteppedClock()
        self.acknowledged = set()
        self.damaged = set()
        self.step = 0
        self.start()

    def start(self):
        self.store = make_store(self.disk, sealing=self.sealing, clock=self.clock)

    @rule(jump=st.floats(-1e6, 1e6))
    def time_jumps(self, jump):
        self.clock.jump(jump)

    @rule()
    def commit(self):
        self.step += 1
        self.store.commit(draft(self.step))
        self.acknowledged.add(self.step)

    @rule()
    def prune(self):
        before = self.valid()
        self.store.prune(newest(KEEP))
        assert self.valid() == before[:KEEP] or self.store._unacknowledged
        self.acknowledged &= set(self.valid())

    @rule(
        after=st.integers(0, 40),
        fault=st.sampled_from([Kill(), Kill(True), Fail(errno.ENOSPC, True), Fail(errno.EROFS)]),
        lasting=st.booleans(),
        seed=st.none() | st.integers(0, 2**32),
    )
    def trouble(self, after, fault, lasting, seed):
        """A commit and a prune during which something goes wrong, for once or from then on."""
        begin = len(self.disk.log) + after
        self.disk._plan = lambda n, o: (
            fault if o.mutates and (n >= begin if lasting else n == begin) else None
        )
        with contextlib.suppress(Killed, StorageError):
            self.commit()
            self.store.prune(newest(KEEP))
        self.disk._plan = nothing
        self.survivors_are_enough()
        self.acknowledged &= set(self.valid())
        if isinstance(fault, Kill) or seed is not None:
            self.crash(seed)

    @rule(seed=st.none() | st.integers(0, 2**32))
    def crash(self, seed):
        """The process or (with a seed) the machine dies; the next process recovers."""
        choose = random.Random(seed).randrange
        self.disk = self.disk.restart() if seed is None else self.disk.crash(choose)
        self.survivors_are_enough()
        self.start()
        visible = self.valid()
        self.store.recover()
        assert self.valid() == visible
        self.store.prune(newest(KEEP))
        assert self.valid() == visible[:KEEP]
        assert not any(layout.is_temporary(path.name) for path in self.disk.paths())
        self.acknowledged &= set(self.valid())

    @rule(data=st.data())
    def damage(self, data):
        """Somebody spoils one byte of one file of a checkpoint."""
        # Spoilt twice, a byte may be what it was.
        entries = [entry for entry in self.store.entries() if entry.step not in self.damaged]
        if len(entries) < 2:
            return
        entry = data.draw(st.sampled_from(entries))
        path = data.draw(st.sampled_from([entry.path, entry.manifest_path]))
        content = bytearray(self.disk.content(path))
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
        self.disk.put(path, bytes(content))
        self.damaged.add(entry.step)
        self.acknowledged.discard(entry.step)

    @invariant()
    def survivors_are_enough(self):
        """The newest checkpoint reported as saved is there, and no fewer than promised."""
        valid = self.valid()
        assert max(valid, default=0) >= max(self.acknowledged, default=0)
        assert len(valid) >= min(KEEP, len(self.acknowledged))
        assert valid == sorted(valid, reverse=True)
        assert not self.damaged.intersection(valid)

    @invariant()
    def nothing_good_is_set_aside(self):
        """Only damaged checkpoints are in the quarantine."""
        stems = {name.split(".")[0].split("~")[0] for name in names(self.disk, QUARANTINE)}
        spoilt = {f"CKP_rank_0-{1 + (s - 1) // 10}_{1 + (s - 1) % 10}" for s in self.damaged}
        assert stems <= spoilt

    @invariant()
    def nothing_is_readable(self):
        """With encryption on, neither plaintext nor the key is anywhere on the disk."""
        if self.sealing.mode is not None:
            assert not any(CANARY in content or KEY[:16] in content for content in self.disk.every_byte())

    def valid(self):
        """The steps of all checkpoints that a fresh process could load, newest first."""
        reader = make_store(self.disk.restart(), sealing=self.sealing)
        found = []
        for entry in reader.entries():
            with contextlib.suppress(CorruptError):
                found.append(read_back(reader, entry))
        return found


TestLives = Life.TestCase
TestLives.settings = settings(stateful_step_count=20)
