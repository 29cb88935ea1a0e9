"""From a state in memory to a checkpoint: now, on a thread, or in another process.

``Committer`` does the work: commit, retention, the weights files. The savers decide who waits for it:

    InlineSaver    the training waits
    ThreadSaver    the training goes on; the state is copied first, and committed on a thread;
                   or a process of its own does it (``saver_process``), and the thread only waits for it

At most one commit is in flight. What comes meanwhile replaces what waits: the newer state is the better one.
A failed save is told, loudly, and never raised: it must not end the training.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from resilient.codec.tensors import Record
from resilient.config import KeepPolicy, Sealing
from resilient.errors import ResilientError
from resilient.host.world import World
from resilient.policy import retention
from resilient.store import layout
from resilient.store.entry import Draft, Entry
from resilient.store.layout import WeightsName
from resilient.store.store import Store
from resilient.store.weights import prune_weights, write_weights


@dataclass(frozen=True)
class Snapshot:
    """A training state at one step boundary, with why it is to be saved.

    ``records`` and ``extra`` make the checkpoint; ``weights`` are further files by kind (see
    ``store.layout``). ``info`` is what retention may judge it by: its ``loss`` and its ``metrics``. Unless it
    was detached, the records are views of memory that training changes; ``check`` raises when that has
    happened (see ``store.entry.Draft``).
    """

    prefix: str
    step: int
    epoch: int
    step_in_epoch: int
    reason: str
    failure: bool
    records: tuple[Record, ...]
    extra: bytes
    weights: Mapping[str, tuple[Record, ...]] = field(default_factory=dict)
    info: Mapping[str, Any] = field(default_factory=dict)
    check: Callable[[], None] = lambda: None

    def detached(self) -> Snapshot:
        """The same state in memory of its own; what several files share is copied once."""
        copies: dict[int, bytes] = {}

        def copy(record: Record) -> Record:
            if id(record.data) not in copies:
                copies[id(record.data)] = bytes(record.data)
            return replace(record, data=copies[id(record.data)])

        weights = {kind: tuple(map(copy, records)) for kind, records in self.weights.items()}
        return replace(self, records=tuple(map(copy, self.records)), weights=weights)


@dataclass(frozen=True)
class Saved:
    """What became of a snapshot: the file's path and generation, or the error; what else is worth telling."""

    snapshot: Snapshot
    seconds: float
    path: Path | None = None
    error: str = ""
    remarks: tuple[str, ...] = ()
    generation: int = 0


Commit = Callable[[Snapshot], Saved]
Report = Callable[[Saved], None]


@dataclass(frozen=True)
class Committer:
    """Makes snapshots durable in one directory, and keeps its retention."""

    store: Store
    root: Path
    rank: int
    keep: KeepPolicy
    sealing: Sealing
    world: World

    def commit(self, snapshot: Snapshot) -> Saved:
        """Commits, then removes what the keep policy no longer holds. Never raises."""
        began = self.world.clock.monotonic()
        try:
            entry = self.store.commit(_draft(snapshot))
        except ResilientError as error:
            return Saved(snapshot, self.world.clock.monotonic() - began, error=str(error))
        except Exception as error:  # noqa: BLE001 - whatever is wrong with us, the training goes on
            text = f"{type(error).__name__}: {error}"
            return Saved(snapshot, self.world.clock.monotonic() - began, error=text)
        seconds = self.world.clock.monotonic() - began
        remarks = [*self._write_weights(snapshot), *self._prune()]
        if self.store.meta_error is not None:
            remarks.append(f"meta.json is out of date: {self.store.meta_error}")
        return Saved(snapshot, seconds, entry.path, "", tuple(remarks), entry.generation)

    def _write_weights(self, snapshot: Snapshot) -> list[str]:
        remarks = []
        for kind, records in snapshot.weights.items():
            name = WeightsName(snapshot.prefix, self.rank, kind, snapshot.epoch, snapshot.step_in_epoch).data
            path = self._weights_directory(kind) / name
            try:
                entropy = self.world.entropy
                write_weights(self.world.files, path, records, self.sealing, entropy, snapshot.check)
            except ResilientError as error:
                remarks.append(f"{name} could not be written: {error}")
        return remarks

    def _prune(self) -> list[str]:
        try:
            pruned = self.store.prune(partial(retention.kept, self.keep))
        except ResilientError as error:
            return [f"old checkpoints could not be removed: {error}"]
        remarks = [f"set aside in the quarantine: {failure}" for failure in pruned.quarantined]
        remarks += [f"old checkpoint could not be removed: {failure}" for failure in pruned.failures]
        # Two checkpoints of one step share a weights file.
        in_use = set(map(_weights_of, pruned.staying))
        for entry in pruned.removed:
            if _weights_of(entry) not in in_use:
                remarks += self._remove_weights(entry)
        return remarks

    def _remove_weights(self, entry: Entry) -> list[str]:
        made = entry.manifest
        remarks = []
        for kind in (layout.NETWORK, layout.TRAINABLE):
            name = WeightsName(made.prefix, self.rank, kind, made.epoch, made.step_in_epoch).data
            # Only the file that belonged to the checkpoint that has gone: others may be another run's.
            for failure in prune_weights(self.world.files, self._weights_directory(kind), name.__eq__, ()):
                remarks.append(f"old weights could not be removed: {failure}")
        return remarks

    def _weights_directory(self, kind: str) -> Path:
        place = layout.network_directory if kind == layout.NETWORK else layout.trainable_directory
        return place(self.root, self.rank)


class Saver(Protocol):
    """Takes snapshots and sees to it that they are committed."""

    def save(self, snapshot: Snapshot) -> None:
        """Commits the snapshot, or hands it on and returns; either way its memory may change afterwards."""
        ...

    def wait(self) -> bool:
        """Returns when nothing is in flight and nothing waits: whether the last commit succeeded."""
        ...


class InlineSaver:
    """Commits while the training waits."""

    def __init__(self, commit: Commit, report: Report) -> None:
        self._commit = commit
        self._report = report
        self._succeeded = True

    def save(self, snapshot: Snapshot) -> None:
        saved = self._commit(snapshot)
        self._succeeded = saved.path is not None
        self._report(saved)

    def wait(self) -> bool:
        return self._succeeded


class ThreadSaver:
    """Commits on one thread of its own, which lives as long as there is something to commit."""

    def __init__(self, commit: Commit, report: Report) -> None:
        self._commit = commit
        self._report = report
        self._succeeded = True
        self._changed = threading.Condition()
        self._waiting: Snapshot | None = None
        self._busy = False

    def save(self, snapshot: Snapshot) -> None:
        copied = True
        try:
            snapshot = snapshot.detached()
        except MemoryError:
            # No room for a copy: the training waits, and the one before it has left.
            self.wait()
            copied = False
        with self._changed:
            self._waiting = snapshot
            if self._busy:
                return
            self._busy = True
        if not (copied and self._start()):
            self._work()

    def _start(self) -> bool:
        """Starts the thread; where there is a limit of processes, or the interpreter is ending, it cannot."""
        # Not a daemon: an interpreter that ends waits for the commit.
        thread = threading.Thread(target=self._work, name="resilient-saver")
        try:
            thread.start()
        except RuntimeError:
            return False
        return True

    def _work(self) -> None:
        while (snapshot := self._next()) is not None:
            # Should one of these fail, nobody may wait for this thread for ever.
            try:
                self._succeeded = False
                saved = self._commit(snapshot)
                self._succeeded = saved.path is not None
                self._report(saved)
            except BaseException:
                with self._changed:
                    self._busy = False
                    self._changed.notify_all()
                raise

    def _next(self) -> Snapshot | None:
        """What waits; None, and the thread is over, when there is nothing."""
        with self._changed:
            snapshot, self._waiting = self._waiting, None
            if snapshot is None:
                self._busy = False
                self._changed.notify_all()
            return snapshot

    def wait(self) -> bool:
        with self._changed:
            self._changed.wait_for(lambda: not self._busy)
        return self._succeeded


def _weights_of(entry: Entry) -> tuple[str, int, int]:
    return entry.manifest.prefix, entry.manifest.epoch, entry.manifest.step_in_epoch


def _draft(snapshot: Snapshot) -> Draft:
    return Draft(
        prefix=snapshot.prefix,
        epoch=snapshot.epoch,
        step_in_epoch=snapshot.step_in_epoch,
        step=snapshot.step,
        records=snapshot.records,
        extra=snapshot.extra,
        reason=snapshot.reason,
        failure=snapshot.failure,
        info=snapshot.info,
        check=snapshot.check,
    )
