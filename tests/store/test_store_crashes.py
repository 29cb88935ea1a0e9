"""Crashes: a process killed and a machine without power at every single operation, and every error once."""

from __future__ import annotations

import contextlib
import errno
import random

import pytest
from store_world import (
    CANARY,
    DIRECTORY,
    GCM,
    KEY,
    QUARANTINE,
    SEALINGS,
    draft,
    make_store,
    names,
    newest,
    steps,
)

from chaos.faults import Fail, Kill, Killed, at, nothing
from chaos.simulated_disk import SimulatedDisk
from resilient.codec.keys import manifest_key
from resilient.errors import StorageError
from resilient.store import layout

KEEP = 2
LAST_STEP = 4


class Run:
    """A process that commits and prunes, and the checkpoints that it reported as saved before it ended."""

    def __init__(self, disk, sealing=GCM):
        self.disk = disk
        self.acknowledged = []
        self.failed = 0
        self._store = make_store(disk, sealing=sealing)

    def go(self):
        for step in range(1, LAST_STEP + 1):
            try:
                self._store.commit(draft(step))
                self.acknowledged.append(step)
                self._store.prune(newest(KEEP))
            except StorageError:
                self.failed += 1
        return self

    def until_killed(self):
        try:
            self.go()
        except Killed:
            return self
        return self


def mutations():
    """The numbers of a run's changing operations, when nothing goes wrong."""
    disk = SimulatedDisk()
    Run(disk).go()
    return changes(disk.log)


def changes(log):
    return [number for number, operation in enumerate(log) if operation.mutates]


def choices():
    """Ways in which a power loss picks the survivors: nothing, all, the newest changes first, at random."""
    yield lambda n: 0
    yield lambda n: min(1, n - 1)
    yield lambda n: n - 1
    for seed in range(2):
        yield random.Random(seed).randrange


def after_every_end(disk):
    """The disks that the next process may find: after the death of the process, and of the machine."""
    yield disk.restart()
    for choose in choices():
        yield disk.crash(choose)


def check(disk, acknowledged, sealing=GCM):
    """Checks everything that must hold when a process restarts, before and after it recovers."""
    store = make_store(disk, sealing=sealing)
    before = steps(store)
    assert before[:1] >= acknowledged[-1:], "what was reported as saved is gone"
    assert len(before) >= min(KEEP, len(acknowledged)), "fewer are left than promised"
    assert before == sorted(before, reverse=True)

    recovery = store.recover()
    assert (recovery.quarantined, recovery.failures) == ((), ())
    assert steps(store) == before, "recovery lost a valid checkpoint"
    store.prune(newest(KEEP))
    assert steps(store) == before[:KEEP]
    only_checkpoints_are_left(disk, store)

    settled = disk.state()
    make_store(disk, sealing=sealing).recover()
    assert disk.state() == settled, "recovery is not idempotent"

    store.commit(draft(99))
    store.prune(newest(KEEP))
    assert steps(store) == [99, *before][:KEEP]
    only_checkpoints_are_left(disk, store)


def only_checkpoints_are_left(disk, store):
    entries = store.entries()
    wanted = {entry.path for entry in entries} | {entry.manifest_path for entry in entries}
    assert set(disk.paths()) - {DIRECTORY / layout.META_NAME} == wanted


@pytest.mark.parametrize("partial", [False, True])
def test_a_crash_at_any_operation(partial):
    """After a kill before or during any operation, with or without a power loss: no checkpoint reported as
    saved is lost, as many are left as promised, nothing torn is visible, and recovery cleans up."""
    for number in mutations():
        run = Run(SimulatedDisk(plan=at(number, Kill(partial)))).until_killed()
        for disk in after_every_end(run.disk):
            check(disk, run.acknowledged)


def test_a_second_crash_during_recovery():
    """A recovery that is itself killed at any operation leaves what the next one can finish."""
    seen = set()
    for number in mutations():
        run = Run(SimulatedDisk(plan=at(number, Kill()))).until_killed()
        for disk in after_every_end(run.disk):
            state = disk.state()
            if state in seen or not any(layout.is_temporary(name) for name in names(disk)):
                continue
            seen.add(state)
            for second in changes(recovered(disk).log):
                again = SimulatedDisk(state, at(second, Kill()))
                with pytest.raises(Killed):
                    make_store(again).recover()
                for third in (again.restart(), again.crash(lambda n: 0), again.crash(lambda n: n - 1)):
                    check(third, run.acknowledged)
    assert len(seen) > 20


def recovered(disk):
    copy = SimulatedDisk(disk.state())
    make_store(copy).recover()
    return copy


def test_an_error_at_any_operation():
    """If any operation fails once, the error is raised or reported, the next checkpoint works, and everything
    reported as saved survives a power loss."""
    for number in mutations():
        disk = SimulatedDisk(plan=at(number, Fail(errno.EIO, partial=True)))
        run = Run(disk).go()
        assert len(run.acknowledged) >= LAST_STEP - 1
        assert run.acknowledged[-1] == LAST_STEP or run.failed
        for found in after_every_end(disk):
            check(found, run.acknowledged)


def test_a_failed_sync_is_never_believed():
    """A checkpoint whose sync failed is not reported as saved, and leaves no file behind."""
    for kind in ("sync", "sync_directory"):
        for count in range(4):
            calls = []

            def plan(number, operation, kind=kind, calls=calls, count=count):
                if operation.kind == kind:
                    calls.append(number)
                return Fail(errno.EIO) if len(calls) == count + 1 and number == calls[-1] else None

            disk = SimulatedDisk(plan=plan)
            store = make_store(disk)
            try:
                store.commit(draft(1))
            except StorageError:
                assert names(disk) == [], f"{kind} {count}"
            else:
                assert count >= {"sync": 2, "sync_directory": 3}[kind]


def test_an_unacknowledged_checkpoint_costs_no_other():
    """A failed checkpoint that can be neither made durable nor removed does not replace a good one."""
    broken = []
    disk = SimulatedDisk(plan=lambda n, o: Fail(errno.EIO) if broken and o.mutates else None)
    store = make_store(disk)
    store.commit(draft(1))

    def plan(number, operation):
        if operation.kind == "rename" and operation.target.name.endswith("1_2.manifest"):
            broken.append(number)
            return None
        return Fail(errno.EIO) if broken and operation.mutates else None

    disk._plan = plan
    with pytest.raises(StorageError):
        store.commit(draft(2))
    disk._plan = nothing
    assert [entry.step for entry in store.entries()] == [2, 1]
    store.prune(newest(1))
    assert 1 in [entry.step for entry in store.entries()]


@pytest.mark.parametrize("mode", ["AES-GCM", "AES-CBC", "SM4-CBC"])
def test_no_plaintext_and_no_key_ever_reaches_the_disk(mode):
    """No state of the disk, temporary files included, holds plaintext or a key."""
    secrets = (CANARY, KEY, KEY[:16], KEY.hex().encode(), manifest_key(KEY))
    for number in mutations():
        run = Run(SimulatedDisk(plan=at(number, Kill(partial=True))), SEALINGS[mode]).until_killed()
        for content in run.disk.every_byte():
            assert not any(secret in content for secret in secrets)


def test_the_canary_would_be_seen():
    """Without encryption the canary is on the disk: the test above looks in the right place."""
    run = Run(SimulatedDisk(), SEALINGS["plain"]).go()
    assert any(CANARY in content for content in run.disk.every_byte())


def test_somebody_elses_file_under_our_unfinished_name_stays():
    """If a crash left an unfinished commit and somebody put another file under its name, recovery leaves that
    file alone."""
    for number in mutations():
        run = Run(SimulatedDisk(plan=at(number, Kill()))).until_killed()
        disk = run.disk.restart()
        visible = {path for entry in make_store(disk).entries() for path in (entry.path, entry.manifest_path)}
        orphans = [p for p in disk.paths() if p.suffix == ".ckpt" and p not in visible]
        for path in orphans:
            disk.put(path, b"theirs" * 100)
        recovery = make_store(disk).recover()
        assert all(disk.content(path) == b"theirs" * 100 for path in orphans)
        assert recovery.quarantined == ()
        assert not any(layout.is_temporary(name) for name in names(disk))


def test_a_crash_during_quarantine():
    """After a kill at any operation of setting a corrupt checkpoint aside, it never becomes valid again, no
    file is lost from both places, and the next recovery finishes."""
    for number in range(60):
        disk = SimulatedDisk()
        store = make_store(disk)
        for step in (1, 2):
            store.commit(draft(step))
        path = store.entries()[0].path
        garbage = b"x" * len(disk.content(path))
        disk.put(path, garbage)
        dying = SimulatedDisk(disk.state(), at(number, Kill()))
        with contextlib.suppress(Killed):
            make_store(dying).load_newest(lambda entry: lambda *tensor: None)
        for found in after_every_end(dying):
            again = make_store(found)
            again.recover()
            assert again.load_newest(lambda entry: lambda *tensor: None).entry.step == 1
            assert steps(again) == [1]
            kept = [name for name in names(found, QUARANTINE) if found.content(QUARANTINE / name) == garbage]
            assert kept
            assert all(f"{name[:-5]}.reason.txt" in names(found, QUARANTINE) for name in kept)
            assert not any(layout.is_temporary(name) for name in names(found, QUARANTINE))
