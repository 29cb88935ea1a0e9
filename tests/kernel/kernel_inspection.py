"""The invariants of chaos.invariants, held against a real folder by the process that comes next.

The names are the same. What is looked at here is what a real process has really left on a real file system;
what could have been left instead is for chaos.proof to enumerate.
"""

from __future__ import annotations

import errno
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kernel_faults import LOOKS, KernelFault, LoggedOperation, OperationKind, StrikeAction
from kernel_life import RealCycle
from kernel_nursery import Lived

from chaos.cycle import CANARY, KEY, NEXT_STEP
from chaos.invariants import ViolationError, demand
from resilient.errors import CheckpointError, CorruptError, ResilientError
from resilient.store import layout
from resilient.store.entry import Entry
from resilient.store.store import Store

_SECRETS = (CANARY, KEY, KEY.hex().encode())
_GCM_NONCE = slice(28, 40)


@dataclass(frozen=True)
class Spoilt:
    """A checkpoint that somebody has spoilt: its name, and the contents of its two files."""

    name: str
    contents: frozenset[bytes]


@dataclass(frozen=True)
class Past:
    """What was there before a life: the steps that were reported as saved, and what was spoilt since."""

    saved: tuple[int, ...] = ()
    spoilt: Spoilt | None = None


def inspect(root: Path, cycle: RealCycle, saved: Sequence[int], spoilt: Spoilt | None = None) -> None:
    """Recovers a folder for real, in which these steps were reported as saved. Raises ViolationError."""
    _Inspection(root, cycle, spoilt).inspect(saved)


def valid_steps(root: Path, cycle: RealCycle) -> list[int]:
    """The steps of the checkpoints below a folder, newest first, each read and compared byte for byte."""
    store = cycle.open(root)
    return [_step_of(store, entry, cycle) for entry in store.entries()]


def inspect_life(lived: Lived, cycle: RealCycle, fault: KernelFault, past: Past | None = None) -> int:
    """Holds a life, and what it has left, against the invariants; how many faults fired in it.

    A life with a past only recovers. Raises ViolationError, or AssertionError when no fault fired.
    """
    assert lived.struck, f"{fault} did not fire"
    _demand_no_sync_again(lived)
    if fault.action == StrikeAction.KILL:
        assert lived.status == -signal.SIGKILL
    else:
        assert lived.status == 0
        told = sorted(lived.saved + lived.failed)
        demand(past is not None or told == sorted(cycle.steps), "ErrorNotSwallowed", lived.diary)
        if fault.action in (StrikeAction.FAIL, StrikeAction.FAIL_DONE) or fault.error:
            _demand_told(lived)
    past = past or Past()
    inspect(lived.root, cycle, past.saved + lived.saved, past.spoilt)
    return len(lived.struck)


# What a life has told


def _demand_told(lived: Lived) -> None:
    """An operation that changes something and failed is told: in a checkpoint's own files by the save."""
    hints = LOOKS | OperationKind.HINT
    failed = [o for o in lived.struck if o.error and not o.kind & hints]
    written = {o.path for o in lived.operations if o.kind == OperationKind.CREATE}
    told = lived.failed or lived.troubles
    for operation in failed:
        if operation.kind == OperationKind.CLOSE and operation.path not in written:
            # Of a file or folder that was read there is nothing to lose.
            continue
        demand(bool(told), "ErrorNotSwallowed", operation)
        if operation.path in written and _makes_a_checkpoint(operation):
            demand(bool(lived.failed), "ErrorNotSwallowed", f"{operation}: {lived.diary}")


def _makes_a_checkpoint(operation: LoggedOperation) -> bool:
    name = operation.path.name
    ends = (layout.DATA_SUFFIX, layout.MANIFEST_SUFFIX)
    ours = layout.is_temporary(name) and layout.final_of(name).endswith(ends)
    return ours and operation.kind != OperationKind.REMOVE


def _demand_no_sync_again(lived: Lived) -> None:
    """A file whose sync has failed is not synced again, and bears no name that readers look at."""
    poisoned: set[int] = set()
    for operation in lived.operations:
        if operation.kind == OperationKind.CREATE:
            poisoned.discard(operation.inode)  # the number of a file that has gone is given again
        if operation.kind == OperationKind.SYNC:
            demand(operation.inode not in poisoned, "NoFsyncRetry", operation)
            # What a signal interrupted has not failed: no page was given up, and Python goes on with it.
            if operation.error not in (0, errno.EINTR):
                poisoned.add(operation.inode)
    for path in _files(lived.root):
        if path.suffix in (layout.DATA_SUFFIX, layout.MANIFEST_SUFFIX) and lived.status == 0:
            demand(path.stat().st_ino not in poisoned, "NoFsyncRetry", f"{path.name} counts as saved")


# What it has left


@dataclass(frozen=True)
class _Inspection:
    """What the next process does with a folder, step by step."""

    root: Path
    cycle: RealCycle
    spoilt: Spoilt | None

    def inspect(self, saved: Sequence[int]) -> None:
        self._demand_no_plaintext()
        before = self._valid()
        demand(max(before, default=0) >= max(saved, default=0), "AckDurability", f"{before} of {saved}")
        floor = min(self.cycle.keep, len(saved))
        demand(len(before) >= floor, "RetentionFloor", f"{before} of {saved}")
        store = self._recover(before)
        self._demand_newest(store, before)
        pruned = self.cycle.prune(store)
        demand(not pruned.failures and not pruned.quarantined, "RecoveryPreserves", pruned)
        kept = self._valid()
        demand(kept == before[: self.cycle.keep], "RetentionCeiling", f"{before} → {kept}")
        self._save_once_more(kept)

    def _recover(self, before: list[int]) -> Store:
        store = self.cycle.open(self.root)
        recovery = store.recover()
        bad = [f for f in recovery.quarantined if self.spoilt is None or f.name != self.spoilt.name]
        trouble = (*recovery.failures, *bad)
        demand(not trouble and store.meta_error is None, "RecoveryPreserves", trouble or store.meta_error)
        after = self._valid()
        demand(after == before, "RecoveryPreserves", f"{before} became {after}")
        self._demand_no_leak(store)
        settled = _contents(self.root)
        self.cycle.open(self.root).recover()
        demand(_contents(self.root) == settled, "RecoverIdempotent", "a second recovery changed something")
        return store

    def _demand_newest(self, store: Store, valid: list[int]) -> None:
        loaded = store.load_newest(lambda entry: lambda name, dtype, dims, size_bytes, section: None)
        found = loaded.entry.step if loaded else None
        demand(found == max(valid, default=None), "FallbackToNewestValid", f"{found} of {valid}")

    def _save_once_more(self, kept: list[int]) -> None:
        store = self.cycle.open(self.root)
        nonces = {entry.path.read_bytes()[_GCM_NONCE] for entry in store.entries()}
        try:
            entry = store.commit(self.cycle.draft(NEXT_STEP))
            self.cycle.prune(store)
        except ResilientError as error:
            raise ViolationError("Liveness", str(error)) from error
        found = self._valid()
        demand(found == [NEXT_STEP, *kept][: self.cycle.keep], "Liveness", f"{found} after {kept}")
        nonce = entry.path.read_bytes()[_GCM_NONCE]
        demand(self.cycle.mode is None or nonce not in nonces, "NonceUnique", nonce.hex())
        self._demand_no_leak(store)
        self._demand_no_plaintext()

    def _valid(self) -> list[int]:
        return valid_steps(self.root, self.cycle)

    def _demand_no_leak(self, store: Store) -> None:
        """There are checkpoints and nothing else; of one that was spoilt, every byte is in the quarantine."""
        wanted = {path for entry in store.entries() for path in (entry.path, entry.manifest_path)}
        rest = _contents(self.root)
        for path in (*wanted, store.directory / layout.META_NAME):
            rest.pop(path, None)
        aside = layout.quarantine_directory(self.root)
        if self.spoilt is not None:
            rest = {p: c for p, c in rest.items() if p.parent != aside or layout.is_temporary(p.name)}
            there = set(_contents(aside).values())
            demand(self.spoilt.contents <= there, "RecoveryPreserves", f"lost: {self.spoilt.name}")
        demand(not rest, "NoTmpLeak", sorted(rest))

    def _demand_no_plaintext(self) -> None:
        if self.cycle.mode is not None:
            for path, content in _contents(self.root).items():
                demand(not any(secret in content for secret in _SECRETS), "NoPlaintext", path.name)


def _step_of(store: Store, entry: Entry, cycle: RealCycle) -> int:
    target = bytearray(len(cycle.content(entry.step)))
    try:
        store.load(entry, lambda *tensor: memoryview(target))
    except CorruptError as error:
        raise ViolationError("PublishedNeverTorn", f"{entry.name}: {error}") from error
    except CheckpointError as error:
        raise ViolationError("AtomicVisibility", f"{entry.name}: {error}") from error
    same = target == cycle.content(entry.step)
    demand(same, "NeverLoadCorrupt", f"{entry.name} holds another step's content")
    return entry.step


def _files(root: Path) -> list[Path]:
    return [path for path in sorted(root.rglob("*")) if path.is_file()]


def _contents(root: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in _files(root)}
