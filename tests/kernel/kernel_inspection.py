"""The invariants of chaos.invariants, held against a real folder by the process that comes next.

The names are the same. What is looked at here is what a real process has really left on a real file system;
what could have been left instead is for chaos.proof to enumerate.
"""

from __future__ import annotations

import errno
import signal
from collections.abc import Sequence
from pathlib import Path

from kernel_faults import LOOKS, Action, Fault, Kind, Operation
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


def inspect(root: Path, cycle: RealCycle, saved: Sequence[int]) -> None:
    """Recovers a folder for real, in which these steps were reported as saved. Raises ViolationError."""
    store = cycle.open(root)
    _demand_no_plaintext(root, cycle)
    before = _valid(store, cycle)
    demand(max(before, default=0) >= max(saved, default=0), "AckDurability", f"{before} of {saved}")
    demand(len(before) >= min(cycle.keep, len(saved)), "RetentionFloor", f"{before} of {saved}")
    _recover(root, store, cycle, before)
    _demand_newest(store, before)
    pruned = cycle.prune(store)
    demand(not pruned.failures and not pruned.quarantined, "RecoveryPreserves", pruned)
    kept = _valid(store, cycle)
    demand(kept == before[: cycle.keep], "RetentionCeiling", f"{before} → {kept}")
    _save_once_more(root, cycle, kept)


def valid_steps(root: Path, cycle: RealCycle) -> list[int]:
    """The steps of the checkpoints below a folder, newest first, each read and compared byte for byte."""
    return _valid(cycle.open(root), cycle)


def inspect_life(lived: Lived, cycle: RealCycle, fault: Fault, before: Sequence[int] | None = None) -> int:
    """Holds a life, and what it has left, against the invariants; how many faults fired in it.

    ``before`` are the steps that were reported as saved before, when it was there to recover. Raises
    ViolationError, or AssertionError when no fault fired.
    """
    assert lived.struck, f"{fault} did not fire"
    if fault.action == Action.KILL:
        assert lived.status == -signal.SIGKILL
    else:
        assert lived.status == 0
        told = sorted(lived.saved + lived.failed)
        demand(before is not None or told == sorted(cycle.steps), "ErrorNotSwallowed", lived.diary)
        if fault.action in (Action.FAIL, Action.FAIL_DONE) or fault.error:
            _demand_told(lived)
    _demand_no_sync_again(lived)
    inspect(lived.root, cycle, (*(before or ()), *lived.saved))
    return len(lived.struck)


def _demand_told(lived: Lived) -> None:
    """An operation that changes something and failed is told: in a checkpoint's own files by the save."""
    hints = LOOKS | Kind.HINT
    failed = [o for o in lived.struck if o.error and not o.kind & hints]
    written = {o.path for o in lived.operations if o.kind == Kind.CREATE}
    told = lived.failed or lived.troubles
    for operation in failed:
        if operation.kind == Kind.CLOSE and operation.path not in written:
            # Of a file or folder that was read there is nothing to lose.
            continue
        demand(bool(told), "ErrorNotSwallowed", operation)
        if _makes_a_checkpoint(operation):
            demand(bool(lived.failed), "ErrorNotSwallowed", f"{operation}: {lived.diary}")


def _makes_a_checkpoint(operation: Operation) -> bool:
    temporary = layout.is_temporary(operation.path.name)
    return temporary and "CKP" in operation.path.name and operation.kind != Kind.REMOVE


def _demand_no_sync_again(lived: Lived) -> None:
    """A file whose sync has failed is not synced again, and bears no name that readers look at."""
    poisoned: set[int] = set()
    for operation in lived.operations:
        if operation.kind == Kind.CREATE:
            poisoned.discard(operation.inode)  # the number of a file that has gone is given again
        if operation.kind == Kind.SYNC:
            demand(operation.inode not in poisoned, "NoFsyncRetry", operation)
            # What a signal interrupted has not failed: no page was given up, and Python goes on with it.
            if operation.error not in (0, errno.EINTR):
                poisoned.add(operation.inode)
    for path in _files(lived.root):
        if path.suffix in (layout.DATA_SUFFIX, layout.MANIFEST_SUFFIX) and lived.status == 0:
            demand(path.stat().st_ino not in poisoned, "NoFsyncRetry", f"{path.name} counts as saved")


def _recover(root: Path, store: Store, cycle: RealCycle, before: list[int]) -> None:
    recovery = store.recover()
    trouble = (*recovery.failures, *recovery.quarantined)
    demand(not trouble and store.meta_error is None, "RecoveryPreserves", trouble or store.meta_error)
    after = _valid(store, cycle)
    demand(after == before, "RecoveryPreserves", f"{before} became {after}")
    _demand_no_leak(root, store)
    settled = _contents(root)
    cycle.open(root).recover()
    demand(_contents(root) == settled, "RecoverIdempotent", "a second recovery changed something")


def _demand_newest(store: Store, valid: list[int]) -> None:
    loaded = store.load_newest(lambda entry: lambda name, dtype, dims, size_bytes, section: None)
    found = loaded.entry.step if loaded else None
    demand(found == max(valid, default=None), "FallbackToNewestValid", f"{found} of {valid}")


def _save_once_more(root: Path, cycle: RealCycle, kept: list[int]) -> None:
    store = cycle.open(root)
    nonces = {entry.path.read_bytes()[_GCM_NONCE] for entry in store.entries()}
    try:
        entry = store.commit(cycle.draft(NEXT_STEP))
        cycle.prune(store)
    except ResilientError as error:
        raise ViolationError("Liveness", str(error)) from error
    found = _valid(store, cycle)
    demand(found == [NEXT_STEP, *kept][: cycle.keep], "Liveness", f"{found} after {kept}")
    nonce = entry.path.read_bytes()[_GCM_NONCE]
    demand(cycle.mode is None or nonce not in nonces, "NonceUnique", nonce.hex())
    _demand_no_leak(root, store)
    _demand_no_plaintext(root, cycle)


# The parts


def _valid(store: Store, cycle: RealCycle) -> list[int]:
    """The steps of the checkpoints, newest first, each read and compared byte for byte."""
    return [_step_of(store, entry, cycle) for entry in store.entries()]


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


def _demand_no_leak(root: Path, store: Store) -> None:
    wanted = {path for entry in store.entries() for path in (entry.path, entry.manifest_path)}
    leaked = set(_files(root)) - wanted - {store.directory / layout.META_NAME}
    demand(not leaked, "NoTmpLeak", sorted(leaked))


def _demand_no_plaintext(root: Path, cycle: RealCycle) -> None:
    if cycle.mode is None:
        return
    for path, content in _contents(root).items():
        demand(not any(secret in content for secret in _SECRETS), "NoPlaintext", path.name)


def _files(root: Path) -> list[Path]:
    return [path for path in sorted(root.rglob("*")) if path.is_file() and path.parent.name != "lost+found"]


def _contents(root: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in _files(root)}
