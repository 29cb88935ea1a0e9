"""Whole lives of a store, at random: saves, faults, crashes, damage, other keys and jumping clocks, in any
order, held against the model in ``ledger`` and the invariants that ``chaos.invariants`` names."""

from __future__ import annotations

import contextlib
import errno
import random
from dataclasses import replace
from functools import partial

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule
from store_world import CANARY, DIRECTORY, QUARANTINE, Sinks, make_store, names
from strangers import Strangers
from whole_checkpoints import (
    EVERY_KEY,
    KEYS,
    LONG,
    SHORT,
    WholeCheckpoints,
    draft,
    good_ones_set_aside,
    leftovers,
    serial_of,
)

from chaos.faults import Fail, Kill, Killed, nothing
from chaos.invariants import ViolationError, demand
from chaos.simulated_disk import SimulatedDisk
from chaos.stepped_clock import SteppedClock
from resilient.codec.keys import key_id
from resilient.config import KeepPolicy, Sealing
from resilient.errors import ResilientError, StorageError, UnusableError
from resilient.policy import retention
from resilient.store import layout

MODES = [("AES-GCM", key) for key in KEYS] + [("AES-CBC", LONG[0]), ("AES-CBC", SHORT[0])]
MODES += [("SM4-CBC", key) for key in SHORT]
POLICIES = [KeepPolicy(max_count=n) for n in (1, 2, 3)] + [KeepPolicy(per_minutes=10)]
WRITE_FAULTS = [Kill(), Kill(True), Fail(errno.ENOSPC, True), Fail(errno.EROFS), Fail(errno.EIO)]
READ_FAULTS = [Fail(errno.EACCES), Fail(errno.EMFILE)]

seeds = st.none() | st.integers(0, 2**32)
"""How a crash ends: only the process dies, or the machine loses its power and this decides what is left."""

syncs = st.tuples(st.integers(0, 3), st.sampled_from(["sync", "rename", "sync_directory"]))
"""The n-th of the operations of one of these kinds: where the order of a save's steps shows."""

places = syncs | st.tuples(st.integers(0, 45), st.none())
"""One of those, or the n-th of all the operations that change something."""


class Lives(Strangers):
    """One run directory through many processes. ``ledger`` is the model; ``doubtful`` are names whose save
    failed in the living process; ``touched`` are names of files that somebody else changed."""

    @initialize(
        sealed=st.none() | st.sampled_from(MODES), keep=st.sampled_from(POLICIES), saves=st.integers(0, 5)
    )
    def begin(self, sealed, keep, saves):
        self.ledger = WholeCheckpoints()
        self.disk = SimulatedDisk()
        self.clock = SteppedClock()
        self.sealing = Sealing(*sealed) if sealed else Sealing()
        self.allow_plain = False
        self.was_plain = sealed is None
        self.keep = keep
        self.serial = self.step = 0
        self.strangers = {}
        self.touched = set()
        self.start()
        self.train(saves, False)

    def start(self):
        """The next process."""
        self.doubtful = set()
        self.store = make_store(
            self.disk, sealing=self.sealing, clock=self.clock, allow_plain=self.allow_plain
        )

    # Saving and retention

    @rule(count=st.integers(1, 4), prune=st.booleans())
    def train(self, count, prune):
        """Some saves without trouble."""
        for _ in range(count):
            self.save(False, False, prune)

    @rule(failure=st.booleans(), again=st.booleans(), prune=st.booleans())
    def save(self, failure, again, prune):
        """A save on a healthy disk works, whatever happened before, and is the newest then."""
        wanted = self.next_draft(failure, again)
        try:
            entry = self.store.commit(wanted)
        except ResilientError as error:
            raise ViolationError("Liveness", str(error)) from error
        self.ledger.acknowledge(self.serial, entry, self.disk)
        demand(self.ledger.valid(self.disk)[:1] == [self.serial], "Liveness", "the new one is not the newest")
        assert entry.name.encode() in self.disk.content(DIRECTORY / layout.META_NAME)
        if prune:
            self.prune()

    def next_draft(self, failure=False, again=False):
        self.serial += 1
        self.step += 0 if again and self.step else 1
        self.clock.advance(60.0)
        return draft(self.serial, self.step, failure=failure)

    @rule()
    def prune(self):
        """Retention removes exactly the surplus: as many stay as promised."""
        before, surplus = set(self.ledger.intact(self.disk)), self.surplus()
        self.ledger.retire(surplus)
        self.store.prune(partial(retention.kept, self.keep))
        after = set(self.ledger.valid(self.disk))
        demand(
            before - surplus <= after, "RetentionFloor", f"{before} became {after}, and could lose {surplus}"
        )
        demand(after <= before - surplus, "RetentionCeiling", f"{before} became {after}, surplus {surplus}")

    def surplus(self):
        """The checkpoints that retention may remove now, among the intact ones that this process can open."""
        usable = {s: self.ledger.whole[s].entry for s in self.usable()}
        valid = {s: entry for s, entry in usable.items() if entry.name not in self.doubtful}
        kept = retention.kept(self.keep, list(valid.values()))
        return {s for s, entry in valid.items() if entry.generation not in kept}

    def usable(self):
        """The intact checkpoints that this process has the key for, newest first."""
        intact = self.ledger.intact(self.disk)
        return [
            serial for serial in intact if self.ledger.whole[serial].entry.manifest.key_id in self.key_ids()
        ]

    def key_ids(self):
        keys = [key for key in (self.sealing.key, *self.sealing.old_keys) if key is not None]
        plain = {None} if self.allow_plain or self.sealing.key is None else set()
        return {key_id(key) for key in keys} | plain

    @rule(keep=st.sampled_from(POLICIES))
    def keep_differently(self, keep):
        self.keep = keep

    # Trouble

    @rule(
        where=places,
        fault=st.sampled_from(WRITE_FAULTS),
        lasting=st.booleans(),
        seed=seeds,
        again=st.booleans(),
        stranger=st.booleans(),
    )
    def trouble(self, where, fault, lasting, seed, again, stranger):
        """A save and retention during which something fails, once or from then on."""
        after, kind = where
        struck = self.plan(after, fault, lasting, lambda o: o.mutates and kind in (None, o.kind))
        self.save_in_trouble(self.next_draft(again=again), struck, prune=True)
        if isinstance(fault, Kill) or seed is not None:
            self.crash(seed, stranger)

    @precondition(lambda self: not self.ledger.in_doubt())
    @rule(after=st.integers(0, 60), fault=st.sampled_from(READ_FAULTS), lasting=st.booleans())
    def unreadable(self, after, fault, lasting):
        """A save and retention during which nothing, or one thing, can be read or written."""
        struck = self.plan(after, fault, lasting, lambda operation: True)
        # By minutes, what cannot be read now may let others stay in its place.
        self.save_in_trouble(self.next_draft(), struck, prune=self.keep.max_count is not None)

    @precondition(lambda self: self.ledger.intact(self.disk) and not self.ledger.in_doubt())
    @rule(data=st.data(), fault=st.sampled_from(READ_FAULTS), manifest=st.booleans())
    def bad_sectors(self, data, fault, manifest):
        """The next process saves while the files of some checkpoints cannot be read; later they can again."""
        serials = data.draw(st.sets(st.sampled_from(self.ledger.intact(self.disk)), min_size=1))
        entries = [self.ledger.whole[serial].entry for serial in serials]
        bad = {entry.manifest_path if manifest else entry.path for entry in entries}
        self.start()
        struck = self.plan(
            0, fault, True, lambda o: o.kind in ("read", "open", "read_into") and o.path in bad
        )
        self.save_in_trouble(self.next_draft(), struck, prune=self.keep.max_count is not None)

    @rule(room=st.integers(0, 3000))
    def full_disk(self, room):
        """A save on a disk that is nearly full."""
        used = sum(len(self.disk.content(path)) for path in self.disk.paths())
        self.disk.resize(used + room)
        self.save_in_trouble(self.next_draft(), [], prune=True)
        self.disk.resize(2**40)

    def plan(self, after, fault, lasting, hit):
        """From now on the ``after``-th operation that counts goes wrong, or all from it on (``lasting``)."""
        struck, seen = [], []

        def plan(number, operation):
            if not hit(operation):
                return None
            seen.append(operation)
            if len(seen) <= after or (struck and not lasting):
                return None
            struck.append(operation)
            return fault

        self.disk.obey(plan)
        return struck

    def save_in_trouble(self, wanted, struck, *, prune):
        serial, saved = self.serial, False
        with contextlib.suppress(Killed, StorageError):
            try:
                entry = self.store.commit(wanted)
                saved = True
                hurt = [operation for operation in struck if writes_checkpoint(operation)]
                demand(not hurt, "ErrorNotSwallowed", f"saved, although {hurt[:1]} failed")
                demand(not self.disk.is_poisoned(entry.path), "NoFsyncRetry", entry.name)
                self.ledger.acknowledge(serial, entry, self.disk)
            finally:
                self.doubtful |= set() if saved else self.names_of_drafts(wanted)
            if prune:
                self.ledger.retire(self.surplus())
                self.store.prune(partial(retention.kept, self.keep))
        self.disk.obey(nothing)
        self.what_is_promised_is_there()

    def names_of_drafts(self, wanted):
        """The names that a failed save may have left: the free ones, of which it chose the first."""
        known = {whole.entry.name for s, whole in self.ledger.whole.items() if s != self.serial}
        return {name for name in names(self.disk) if name.endswith(".ckpt")} - known

    @rule(where=syncs, seed=st.integers(0, 2**32), stranger=st.booleans())
    def power_cut(self, where, seed, stranger):
        """The machine loses its power in the middle of a save and retention."""
        self.trouble(where, Kill(), False, seed, False, stranger)

    @rule(seed=seeds, stranger=st.booleans())
    def crash(self, seed, stranger):
        """The process or the machine dies; the next process recovers.

        Perhaps somebody put a file there under the name that the interrupted save would have used.
        """
        self.die(seed)
        for name in filter(layout.is_temporary, names(self.disk) if stranger else ()):
            self.put_strange(layout.final_of(name), b"stock")
        self.start()
        self.recover()

    def die(self, seed):
        choose = random.Random(seed).randrange
        self.disk = self.disk.restart() if seed is None else self.disk.crash(choose)
        self.what_is_promised_is_there()

    # Recovery

    @rule()
    def recover(self):
        """Recovery loses nothing good, leaves nothing behind, and does nothing the second time."""
        before = self.ledger.valid(self.disk)
        self.store.recover()
        demand(self.ledger.valid(self.disk) == before, "RecoveryPreserves", f"{before} are not all there")
        leaked = leftovers(self.disk, self.key_ids(), self.touched)
        demand(not leaked, "NoTmpLeak", leaked)
        once = self.files()
        make_store(self.disk, sealing=self.sealing, allow_plain=self.allow_plain).recover()
        demand(self.files() == once, "RecoverIdempotent", "a second recovery changed something")

    def files(self):
        """Every file with its identity: one rewritten with the same content counts as another."""
        return {path: (self.disk.number_of(path), self.disk.content(path)) for path in self.disk.paths()}

    @rule(
        after=st.integers(0, 12),
        fault=st.sampled_from(WRITE_FAULTS + READ_FAULTS),
        lasting=st.booleans(),
        seed=seeds,
        first=seeds,
    )
    def recovery_in_trouble(self, after, fault, lasting, seed, first):
        """After a crash, and a recovery that crashes or fails too, the next recovery succeeds."""
        self.die(first)
        self.start()
        before = self.ledger.valid(self.disk)
        reading = fault in READ_FAULTS
        self.plan(after, fault, lasting, lambda operation: operation.mutates or reading)
        with contextlib.suppress(Killed, StorageError):
            self.store.recover()
        self.disk.obey(nothing)
        self.die(seed)
        demand(self.ledger.valid(self.disk) == before, "RecoveryPreserves", f"{before} are not all there")
        self.start()
        self.recover()

    @rule()
    def load(self):
        """The newest valid one is loaded; no process starts from zero while there is one under any key."""
        usable, sinks = self.usable(), Sinks()
        store = make_store(self.disk, sealing=self.sealing, allow_plain=self.allow_plain)
        before = self.ledger.valid(self.disk)
        try:
            loaded = store.load_newest(sinks)
        except UnusableError:
            demand(not usable, "FallbackToNewestValid", f"nothing was loaded, and {usable} are valid")
        else:
            found = serial_of(sinks.tensors, loaded.extra) if loaded else None
            demand(found == max(usable, default=None), "FallbackToNewestValid", f"{found} of {usable}")
            ours = before or any(name.endswith(".reason.txt") for name in names(self.disk, QUARANTINE))
            demand(loaded or not ours, "FallbackToNewestValid", "starts from zero in silence")
        demand(self.ledger.valid(self.disk) == before, "RecoveryPreserves", f"{before} are not all there")

    # Keys and clocks

    @rule(sealed=st.sampled_from(MODES), keep_old=st.booleans(), allow_plain=st.booleans())
    def change_key(self, sealed, keep_old, allow_plain):
        """The next process seals with another key, in another mode, or encrypts from now on.

        Without the old keys their checkpoints stay in place; with the keys they are all found again.
        """
        self.sealing = Sealing(*sealed, old_keys=(*EVERY_KEY.old_keys, KEYS[0]) if keep_old else ())
        self.allow_plain = allow_plain
        self.next_process()

    @rule(keep_old=st.booleans())
    def stop_encrypting(self, keep_old):
        """The next process does not encrypt, and may open what is encrypted."""
        self.sealing = Sealing(old_keys=tuple(KEYS) if keep_old else ())
        self.was_plain = True
        self.next_process()

    @rule()
    def give_every_key_back(self):
        """The next process has all the keys there ever were, and may read what is not encrypted."""
        self.sealing = replace(self.sealing, old_keys=tuple(KEYS))
        self.allow_plain = True
        self.next_process()
        assert self.usable() == self.ledger.valid(self.disk)

    def next_process(self):
        self.disk = self.disk.restart()
        self.start()
        self.recover()

    @rule(jump=st.floats(-1e6, 1e6))
    def time_jumps(self, jump):
        self.clock.jump(jump)

    @rule(seconds=st.floats(0, 2000))
    def time_passes(self, seconds):
        self.clock.advance(seconds)

    # What holds at any time

    @invariant()
    def what_is_promised_is_there(self):
        """Every checkpoint that was reported as saved and that retention must keep exists and is whole."""
        valid = self.ledger.valid(self.disk)
        lost = self.ledger.promised - set(valid)
        demand(not lost, "AckDurability", f"{lost} were reported as saved, and {valid} are there")

    @invariant()
    def nothing_good_is_set_aside(self):
        """Only damaged checkpoints are in the quarantine."""
        good = good_ones_set_aside(self.ledger, self.disk)
        demand(not good, "RecoveryPreserves", f"{good} were set aside")

    @invariant()
    def what_others_put_there_stays(self):
        """Files that are not ours are never touched, under any name."""
        for path, content in self.strangers.items():
            assert self.disk.content(path) == content

    @invariant()
    def nothing_is_readable(self):
        """With encryption on from the start, the disk holds neither plaintext nor a key."""
        if not self.was_plain:
            for content in self.disk.every_byte():
                demand(not any(secret in content for secret in (CANARY, *KEYS)), "NoPlaintext", content[:80])


def writes_checkpoint(operation):
    """Whether the operation writes a checkpoint's own file: a save fails if that write fails."""
    writes = operation.kind in ("create", "write", "sync")
    return writes and operation.path.parent == DIRECTORY and layout.META_NAME not in operation.path.name


TestLives = Lives.TestCase
TestLives.settings = settings(stateful_step_count=30)
