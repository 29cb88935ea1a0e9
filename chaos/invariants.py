"""What must hold of a store's folder after any crash, each by name.

AtomicVisibility       no name that readers look at stands for anything but a whole file
PublishedNeverTorn     every checkpoint that is visible can be read in full, unless somebody spoilt it
AckDurability          the newest checkpoint that was reported as saved is there
RetentionFloor         no fewer valid checkpoints than promised
RecoveryPreserves      recovery loses no valid checkpoint, sets aside no good one, and reports no trouble
RecoverIdempotent      recovering twice is recovering once
NoTmpLeak              after recovery there are checkpoints and nothing else (but a spoilt file, which is no
                       longer what its manifest binds, may be somebody's and stays; so does a data file
                       whose manifest a split rename has lost)
FallbackToNewestValid  what is loaded is the newest valid one, however many spoilt ones are newer
NeverLoadCorrupt       what is loaded is, byte for byte, what was saved at that step
RetentionCeiling       after recovery and retention there are no more than promised
RetentionCountsOnlyValid   a spoilt checkpoint takes no place of a valid one
Liveness               the next save works, and is the newest then
NoPlaintext            with encryption on, neither the canary nor the key is anywhere on the disk
NonceUnique            no nonce is used twice, across crashes too
NoFsyncRetry           a file whose sync has failed is abandoned, and never reported as saved
ErrorNotSwallowed      an operation that failed is raised or reported
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from chaos.crashes import timeless
from chaos.cycle import CANARY, DIRECTORY, KEY, NEXT_STEP, Cycle, CycleProcess
from chaos.disk_state import DiskState
from chaos.faults import DiskOperation
from chaos.simulated_disk import SimulatedDisk
from resilient.codec.tensors import skip_tensor
from resilient.errors import CheckpointError, CorruptError, ResilientError, UnusableError
from resilient.store import layout
from resilient.store.entry import Entry, FileFailure
from resilient.store.store import Store

_GCM_MAGIC = b"\xd8\x5e\x3a\x7f"
_GCM_NONCE = slice(28, 40)
_SECRETS = (CANARY, KEY, KEY[:16], KEY.hex().encode())


class ViolationError(AssertionError):
    """An invariant does not hold."""

    def __init__(self, invariant: str, detail: str) -> None:
        super().__init__(f"{invariant}: {detail}")
        self.invariant = invariant


def demand(holds: bool, invariant: str, detail: object) -> None:
    """Raises ViolationError when it does not hold."""
    if not holds:
        raise ViolationError(invariant, str(detail))


@dataclass(frozen=True)
class Knowledge:
    """What the world knows when the next process comes: what was reported as saved, and what was spoilt.

    ``seed`` is that process's; no other one has had it.
    """

    cycle: Cycle
    acknowledged: tuple[int, ...]
    spoilt: frozenset[int]
    seed: int

    @property
    def good(self) -> list[int]:
        return [step for step in self.acknowledged if step not in self.spoilt]


@dataclass(frozen=True)
class RecoveryFinding:
    """What was found in a state: the steps that could be loaded, and whether recovery had work to do."""

    valid: tuple[int, ...]
    recovered: bool


class Inspector:
    """Holds crash states against the invariants. Remembers what it has seen: equal states are judged once."""

    def __init__(self) -> None:
        self.states: set[int] = set()
        self._moments: set[int] = set()
        self._settled: set[int] = set()
        self._read: dict[tuple[str, bytes, str | None], int] = {}
        self._clean: set[bytes] = set()

    def is_new(self, moment: DiskState, known: Knowledge) -> bool:
        """Whether this moment was not seen yet: many a recovery goes through the same ones."""
        key = hash((timeless(moment), known))
        new = key not in self._moments
        self._moments.add(key)
        return new

    def inspect(self, state: DiskState, known: Knowledge) -> RecoveryFinding | None:
        """Recovers the state as the next process would; None when the same was inspected before."""
        key = hash((state, known))
        if key in self.states:
            return None
        self.states.add(key)
        disk = SimulatedDisk(state)
        if known.cycle.mode is not None:
            self._demand_no_plaintext(disk)
        store = known.cycle.store(disk, known.seed)
        before = self._valid(store.entries(), store, disk, known)
        self._demand_promises(before, known)
        self._recover(store, disk, known, before)
        settled = timeless(disk.state())
        # What was acknowledged has been held against it already; the rest does not depend on that.
        key = hash((settled, known.cycle, known.spoilt))
        if key not in self._settled:
            self._settled.add(key)
            self._inspect_settled(settled, known, before)
        return RecoveryFinding(tuple(before), any(operation.mutates for operation in disk.log))

    def inspect_errors(
        self, disk: SimulatedDisk, life: CycleProcess, struck: Sequence[DiskOperation]
    ) -> None:
        """Holds a process in which operations failed against what it may have told."""
        commit_failed = any(_belongs_to_a_commit(operation) for operation in struck)
        told = len(life.acknowledged) + len(life.failed) == len(life.cycle.steps)
        demand(told, "ErrorNotSwallowed", f"{life.acknowledged} and {life.failed} of {life.cycle.steps}")
        demand(bool(life.failed) or not commit_failed, "ErrorNotSwallowed", f"{struck[0]} was not told")
        for path in disk.paths():
            saved = path.suffix in (".ckpt", ".manifest") and not layout.is_temporary(path.name)
            demand(not (saved and disk.is_poisoned(path)), "NoFsyncRetry", f"{path.name} counts as saved")

    def _demand_promises(self, before: list[int], known: Knowledge) -> None:
        good = known.good
        demand(not good or max(before, default=0) >= max(good), "AckDurability", f"{before} of {good}")
        floor = min(known.cycle.keep, len(good))
        demand(len(before) >= floor, "RetentionFloor", f"{before} of {good}, keep {known.cycle.keep}")

    def _recover(self, store: Store, disk: SimulatedDisk, known: Knowledge, before: list[int]) -> None:
        recovery = store.recover()
        demand(not recovery.failures, "RecoveryPreserves", recovery.failures)
        self._demand_only_spoilt(recovery.quarantined, known)
        entries = store.entries()
        after = self._valid(entries, store, disk, known)
        demand(after == before, "RecoveryPreserves", f"{before} became {after}")
        self._demand_no_leak(entries, disk, known)

    def _inspect_settled(self, settled: DiskState, known: Knowledge, valid: list[int]) -> None:
        """What only depends on the state after recovery."""
        disk = SimulatedDisk(settled)
        store = known.cycle.store(disk, known.seed + 1)
        store.recover()
        demand(timeless(disk.state()) == settled, "RecoverIdempotent", "a second recovery changed something")
        self._load_newest(store, known, valid)
        known.cycle.prune(store)
        kept = self._valid(store.entries(), store, disk, known)
        demand(
            len(kept) >= min(known.cycle.keep, len(valid)), "RetentionCountsOnlyValid", f"{valid} → {kept}"
        )
        demand(kept == valid[: known.cycle.keep], "RetentionCeiling", f"{valid} → {kept}")
        self._save_once_more(store, disk, known, kept)

    def _load_newest(self, store: Store, known: Knowledge, valid: list[int]) -> None:
        try:
            loaded = store.load_newest(lambda entry: skip_tensor)
        except UnusableError:
            demand(not valid, "FallbackToNewestValid", f"nothing was loaded, and {valid} are valid")
            return
        found = loaded.entry.step if loaded else None
        demand(found == max(valid, default=None), "FallbackToNewestValid", f"{found} of {valid}")
        if loaded:
            self._demand_only_spoilt(loaded.failures, known)

    def _save_once_more(self, store: Store, disk: SimulatedDisk, known: Knowledge, kept: list[int]) -> None:
        nonces = _nonces(disk)
        try:
            store.commit(known.cycle.draft(NEXT_STEP))
            known.cycle.prune(store)
        except ResilientError as error:
            raise ViolationError("Liveness", str(error)) from error
        if known.cycle.mode is not None:
            self._demand_no_plaintext(disk)
        wanted = [NEXT_STEP, *kept][: known.cycle.keep]
        entries = store.entries()
        found = self._valid(entries, store, disk, known)
        demand(found[:1] == [NEXT_STEP], "Liveness", f"{found} instead of {wanted}")
        demand(found == wanted, "RetentionCeiling", f"{found} instead of {wanted}")
        new = disk.content(entries[0].path)
        if new.startswith(_GCM_MAGIC):
            demand(new[_GCM_NONCE] not in nonces, "NonceUnique", new[_GCM_NONCE].hex())
        self._demand_no_leak(entries, disk, known)

    # The parts

    def _valid(
        self, entries: Sequence[Entry], store: Store, disk: SimulatedDisk, known: Knowledge
    ) -> list[int]:
        """The steps of those checkpoints that can be read, newest first."""
        found = []
        for entry in entries:
            try:
                found.append(self._step_of(store, entry, disk, known))
            except CorruptError as error:
                demand(entry.step in known.spoilt, "PublishedNeverTorn", f"{entry.name}: {error}")
            except CheckpointError as error:
                raise ViolationError("AtomicVisibility", f"{entry.name}: {error}") from error
        return found

    def _step_of(self, store: Store, entry: Entry, disk: SimulatedDisk, known: Knowledge) -> int:
        key = entry.digest, disk.content(entry.path), known.cycle.mode
        if key not in self._read:
            target = bytearray(len(known.cycle.content(entry.step)))
            store.load(entry, lambda *tensor: memoryview(target))
            same = bytes(target) == known.cycle.content(entry.step)
            demand(same, "NeverLoadCorrupt", f"{entry.name} holds another step's content")
            self._read[key] = entry.step
        return self._read[key]

    def _demand_only_spoilt(self, failures: tuple[FileFailure, ...], known: Knowledge) -> None:
        for failure in failures:
            detail = f"{failure.name} was set aside: {failure.error}"
            demand(failure.name in _data_names(known), "RecoveryPreserves", detail)

    def _demand_no_leak(self, entries: Sequence[Entry], disk: SimulatedDisk, known: Knowledge) -> None:
        wanted = {path for entry in entries for path in (entry.path, entry.manifest_path)}
        found = {path for path in disk.paths() if path.parent == DIRECTORY and path.name != layout.META_NAME}
        leaked = {path.name for path in found - wanted} - _data_names(known)
        if known.cycle.split:
            leaked = {name for name in leaked if layout.parse_checkpoint(name) is None}
        demand(not leaked, "NoTmpLeak", sorted(leaked))

    def _demand_no_plaintext(self, disk: SimulatedDisk) -> None:
        for content in disk.every_byte():
            if content not in self._clean:
                demand(not any(secret in content for secret in _SECRETS), "NoPlaintext", content[:80])
                self._clean.add(content)


def _belongs_to_a_commit(operation: DiskOperation) -> bool:
    """Whether it writes or syncs a checkpoint's own file: what fails there must be told by the commit."""
    path = operation.path
    writes = operation.kind in ("create", "write", "sync")
    return writes and path.parent == DIRECTORY and layout.META_NAME not in path.name


def _data_names(known: Knowledge) -> set[str]:
    """The data files that somebody has spoilt."""
    return {
        layout.CheckpointName("CKP", 0, 1, step, failure, copy).data
        for step in known.spoilt
        for failure in (False, True)
        for copy in (0, 1)
    }


def _nonces(disk: SimulatedDisk) -> set[bytes]:
    return {c[_GCM_NONCE] for c in disk.every_byte() if c.startswith(_GCM_MAGIC)}
