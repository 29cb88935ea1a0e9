"""Rekeying: whatever happens on the way, every state stays readable with the old or the new key."""

from __future__ import annotations

import errno
from dataclasses import replace
from itertools import pairwise

import pytest
from store_world import (
    CANARY,
    DIRECTORY,
    KEY,
    OTHER_KEY,
    QUARANTINE,
    ROOT,
    SEALINGS,
    damage,
    draft,
    make_store,
    names,
    newest,
    read_back,
    steps,
)

from chaos.clock import SteppedClock
from chaos.crashes import ends, moments
from chaos.disk import SimulatedDisk
from chaos.entropy import SeededEntropy
from chaos.faults import Fail, Kill, Killed, at
from resilient.codec.keys import key_id
from resilient.codec.record import info_record
from resilient.config import Sealing
from resilient.errors import StorageError, WrongKeyError
from resilient.host.world import World
from resilient.store import layout, manifest, pins
from resilient.store.rekey import ORIGIN, Rekey
from resilient.store.rundir import RunDirectory, RunRecord
from resilient.store.stockfile import Opening, read_stock
from resilient.store.weights import write_weights

STEPS = 3
PINNED = 2
OLD = SEALINGS["AES-GCM"]
NEW = Sealing("AES-CBC", OTHER_KEY)
WEIGHTS = layout.network_directory(ROOT, 0)
WEIGHTS_FILE = WEIGHTS / "CKP_rank_0-network-1_3.ckpt"
RECORD = RunRecord("run-1", 0.0, 1, "00" * 16, key_id=key_id(KEY), mode="AES-GCM")

seeds = iter(range(1000, 10**9))


def world(disk):
    return World(disk, SteppedClock(), SeededEntropy(next(seeds)))


def a_run(old=OLD):
    """A disk with a run of three checkpoints, one of them pinned, and a weights file."""
    disk = SimulatedDisk()
    store = make_store(disk, sealing=old)
    for step in range(1, STEPS + 1):
        store.commit(draft(step, failure=step == 2, reason="exception" if step == 2 else "schedule"))
    pinned = next(entry for entry in store.entries() if entry.step == PINNED)
    pins.pin(disk, pinned, "0" * 16)
    write_weights(disk, WEIGHTS_FILE, [info_record("note", CANARY.decode())], old, SeededEntropy(7))
    id_of = key_id(old.key) if old.key is not None else None
    record = replace(RECORD, key_id=id_of, mode=old.mode, plain=old.mode is None)
    RunDirectory(ROOT, world(disk)).write(record)
    return disk


def both(old=OLD, new=NEW):
    """What a rekey works with: the new key, and the old one to read with."""
    return Sealing(new.mode, new.key, (old.key,) if old.key is not None else ())


def rekey(disk, sealing=None):
    sealing = sealing or both()
    stores = [make_store(disk, sealing=sealing, allow_plain=True)]
    directory = RunDirectory(ROOT, world(disk))
    return list(Rekey(world(disk), sealing, stores).run(directory, directory.read(), [WEIGHTS]))


def facts(entry):
    """What must be the same of a checkpoint before and after."""
    made = entry.manifest
    info = {name: value for name, value in made.info.items() if name != ORIGIN}
    same = made.generation, made.step, made.epoch, made.step_in_epoch, made.reason, made.failure, made.created
    return (*same, made.run_id, made.prefix, made.plain_bytes, tuple(info.items()))


def is_chain(entries):
    """Whether each checkpoint names the one before as its parent."""
    return all(child.manifest.parent == parent.digest for child, parent in pairwise(entries))


def check_finished(disk, before, new=NEW):
    """Everything is under the new key, and as it was otherwise."""
    store = make_store(disk, sealing=new)
    entries = store.entries()
    assert [read_back(store, entry) for entry in entries] == [3, 2, 1]
    assert [facts(entry) for entry in entries] == before
    assert is_chain(entries)
    assert pins.pinned(disk, entries) == {e.name for e in entries if e.step == PINNED}
    wanted = {path for entry in entries for path in (entry.path, entry.manifest_path)}
    wanted |= {DIRECTORY / layout.pin_of(e.name) for e in entries if e.step == PINNED}
    found = {path for path in disk.paths() if path.parent == DIRECTORY}
    assert found == wanted | {DIRECTORY / layout.META_NAME}
    assert entries[0].name.encode() in disk.content(DIRECTORY / layout.META_NAME)
    assert names(disk, WEIGHTS) == [WEIGHTS_FILE.name]
    keys = [new.key] if new.key is not None else []
    assert read_stock(disk, WEIGHTS_FILE, keys, lambda *tensor: None) == Opening(new.mode, new.key)
    record = RunDirectory(ROOT, world(disk)).read()
    assert (record.mode, record.plain) == (new.mode, new.mode is None)
    assert record.key_id == (key_id(new.key) if new.key is not None else None)
    assert replace(record, mode=RECORD.mode, key_id=RECORD.key_id, plain=False) == RECORD


ANEW = {name: Sealing(s.mode, OTHER_KEY[: len(s.key)]) if s.key else s for name, s in SEALINGS.items()}


@pytest.mark.parametrize(
    ("old", "new"), [(old, new) for old in SEALINGS for new in ANEW if (old, new) != ("plain", "plain")]
)
def test_everything_is_sealed_anew(old, new):
    """From every mode to every other, a new key of the same too: content, order, reasons, times, pins and
    the chain are what they were."""
    old, new = SEALINGS[old], ANEW[new]
    disk = a_run(old)
    before = [facts(entry) for entry in make_store(disk, sealing=old).entries()]
    assert all(one.failure is None for one in rekey(disk, both(old, new)))
    check_finished(disk, before, new)
    assert rekey(disk, both(old, new)) == [], "a second time there is nothing left to do"


def test_there_and_back_again():
    """Rekeyed twice, the second time with the first key: as it was, names included."""
    disk = a_run()
    store = make_store(disk)
    before = [(entry.name, facts(entry)) for entry in store.entries()]
    rekey(disk)
    rekey(disk, both(NEW, OLD))
    entries = make_store(disk).entries()
    assert [(entry.name, facts(entry)) for entry in entries] == before
    assert is_chain(entries)


def test_a_crash_at_any_operation():
    """Killed, or without power, at every operation: all states are readable with the two keys, the old key
    alone opens the newest or nothing, run.json names the new key only when it opens all; and doing it again
    finishes."""
    disk = a_run()
    before = [facts(entry) for entry in make_store(disk).entries()]
    seen = set()

    def witness(state):
        seen.update(ends(state))

    moments(disk, lambda: rekey(disk), witness)
    assert len(seen) > 200
    for state in seen:
        found = SimulatedDisk(state)
        check_promises(found)
        rekey(found)
        check_finished(found, before)


def check_promises(disk):
    store = make_store(disk, sealing=both(), allow_plain=True)
    assert sorted({read_back(store, entry) for entry in store.entries()}) == [1, 2, 3]
    with_old = [entry.step for entry in make_store(disk, sealing=OLD).entries()]
    assert with_old[:1] in ([STEPS], [])
    record = RunDirectory(ROOT, world(disk)).read()
    with_new = {entry.step for entry in make_store(disk, sealing=NEW).entries()}
    assert record.key_id == key_id(KEY) or with_new == {1, 2, 3}
    pinned = pins.pinned(disk, store.entries())
    assert {entry.step for entry in store.entries() if entry.name in pinned} == {PINNED}
    assert read_stock(disk, WEIGHTS_FILE, [KEY, OTHER_KEY], lambda *tensor: None).key in (KEY, OTHER_KEY)
    assert not any(CANARY in content for content in disk.every_byte())


def test_a_second_crash_while_finishing():
    """A rekey that is killed, done again, and killed again loses nothing, and the third one finishes."""
    before = [facts(entry) for entry in make_store(a_run()).entries()]
    count = len(rehearsed().log)
    for first in range(0, count, 13):
        once = SimulatedDisk(a_run().state(), at(first, Kill()))
        with pytest.raises(Killed):
            rekey(once)
        for second in range(0, count, 17):
            twice = once.crash(lambda n: n - 1, at(second, Kill()))
            try:
                rekey(twice)
            except Killed:
                check_promises(twice.restart())
            again = twice.restart()
            rekey(again)
            check_finished(again, before)


def rehearsed():
    disk = SimulatedDisk(a_run().state())
    rekey(disk)
    return disk


def test_an_error_at_any_operation():
    """An operation that fails is told, nothing is lost by it, and doing it again finishes."""
    before = [facts(entry) for entry in make_store(a_run()).entries()]
    log = rehearsed().log
    changing = [number for number, operation in enumerate(log) if operation.mutates]
    raised = 0
    for number in changing:
        disk = SimulatedDisk(a_run().state(), at(number, Fail(errno.ENOSPC, partial=True)))
        try:
            rekey(disk)
        except StorageError:
            raised += 1
        found = disk.restart()
        check_promises(found)
        rekey(found)
        check_finished(found, before)
    assert raised > len(changing) // 2


def test_retention_in_the_middle_keeps_what_it_promised():
    """A copy beside its original takes the place of one: keep 2 leaves two different states."""
    count = len(rehearsed().log)
    for number in range(count):
        disk = SimulatedDisk(a_run().state(), at(number, Kill()))
        try:
            rekey(disk)
        except Killed:
            disk = disk.restart()
        for path in [path for path in disk.paths() if path.name.endswith(layout.PIN_SUFFIX)]:
            disk.remove(path)
        store = make_store(disk, sealing=both(), allow_plain=True)
        store.recover()
        store.prune(newest(2))
        assert {entry.step for entry in store.entries()} == {3, 2}


def test_a_missing_key_changes_nothing():
    """A checkpoint under a third key is named before anything is touched."""
    disk = a_run()
    make_store(disk, sealing=Sealing("AES-GCM", b"\x07" * 32)).commit(draft(9))
    before = disk.state()
    with pytest.raises(WrongKeyError, match=r"CKP_rank_0-1_9.ckpt .*--old-key-file"):
        rekey(disk)
    assert disk.state() == before


def test_what_is_corrupt_is_set_aside_and_told():
    """A damaged checkpoint cannot be sealed anew: it goes to the quarantine, the others are done."""
    disk = a_run()
    damage(disk, make_store(disk).entries()[0].path)
    done = rekey(disk)
    assert [one.name for one in done if one.failure] == ["CKP_rank_0-1_3.ckpt"]
    assert steps(make_store(disk, sealing=NEW)) == [2, 1]
    assert "CKP_rank_0-1_3.ckpt" in names(disk, QUARANTINE)


def test_a_copy_that_was_spoilt_is_made_again():
    """A copy that a crash left beside its original, damaged since: the original is copied once more."""
    disk = a_run()
    before = [facts(entry) for entry in make_store(disk).entries()]
    first_removal = next(
        number
        for number, operation in enumerate(rehearsed().log)
        if operation.kind == "rename"
        and operation.path.suffix == layout.MANIFEST_SUFFIX
        and operation.target.name.endswith(".tmp")
    )
    dying = SimulatedDisk(disk.state(), at(first_removal, Kill()))
    with pytest.raises(Killed):
        rekey(dying)
    found = dying.restart()
    copy = make_store(found, sealing=NEW).entries()[0]
    damage(found, copy.path)
    assert [one.name for one in rekey(found) if one.failure] == [copy.name]
    check_finished(found, before)


def test_a_child_under_the_new_key_is_linked_to_its_parents_copy():
    """A run that went on under the new key before it was rekeyed has one chain afterwards."""
    disk = a_run()
    make_store(disk, sealing=both(), allow_plain=True).commit(draft(4))
    rekey(disk)
    entries = make_store(disk, sealing=NEW).entries()
    assert [entry.step for entry in entries] == [4, 3, 2, 1]
    assert is_chain(entries)


def test_weights_that_nobody_can_open_are_named_and_stay():
    """A weights file that is neither old nor new is left as it is and reported. It needs a key that nobody
    knows: run.json goes on naming the old one, until the file is removed and it is done again."""
    disk = a_run()
    damage(disk, WEIGHTS_FILE)
    content = disk.content(WEIGHTS_FILE)
    assert [one.name for one in rekey(disk) if one.failure] == [WEIGHTS_FILE.name]
    assert disk.content(WEIGHTS_FILE) == content
    assert named_key(disk) == key_id(KEY)
    disk.remove(WEIGHTS_FILE)
    assert rekey(disk) == []
    assert named_key(disk) == key_id(OTHER_KEY)


def named_key(disk):
    return RunDirectory(ROOT, world(disk)).read().key_id


def test_what_recovery_cannot_set_aside_still_needs_the_old_key():
    """The newest checkpoint's manifest is damaged and the quarantine does not take it: all others are sealed
    anew, and run.json names the old key, or the new one alone would go on from an older state."""
    disk = a_run()
    newest_entry = make_store(disk).entries()[0]
    whole = disk.content(newest_entry.manifest_path)
    damage(disk, newest_entry.manifest_path)
    disk.obey(lambda n, o: Fail(errno.EACCES) if o.target and o.target.parent == QUARANTINE else None)
    assert [one.name for one in rekey(disk) if one.failure] == [newest_entry.name]
    assert steps(make_store(disk, sealing=NEW)) == [2, 1]
    assert named_key(disk) == key_id(KEY)
    found = disk.restart()
    found.put(newest_entry.manifest_path, whole)
    rekey(found)
    assert steps(make_store(found, sealing=NEW)) == [3, 2, 1]
    assert named_key(found) == key_id(OTHER_KEY)


def test_a_checkpoint_under_another_name_still_needs_the_old_key():
    """It may be the newest one, once somebody gives it its name back."""
    disk = a_run()
    entry = make_store(disk).entries()[0]
    for path in (entry.path, entry.manifest_path):
        disk.rename(path, path.with_name(path.name.replace("1_3", "1_4")))
    assert [one.name for one in rekey(disk) if one.failure] == ["CKP_rank_0-1_4.ckpt"]
    assert named_key(disk) == key_id(KEY)


def test_a_place_that_is_missing_still_needs_the_old_key():
    """What is there is sealed anew; nobody knows what is in the other one."""
    disk = a_run()
    stores = [make_store(disk, sealing=both(), allow_plain=True)]
    directory = RunDirectory(ROOT, world(disk))
    rekeying = Rekey(world(disk), both(), stores)
    done = list(rekeying.run(directory, directory.read(), [WEIGHTS], [ROOT / "elsewhere"]))
    assert [one.name for one in done if one.failure] == [str(ROOT / "elsewhere")]
    assert (rekeying.finished, named_key(disk)) == (False, key_id(KEY))
    assert steps(make_store(disk, sealing=NEW)) == [3, 2, 1]


def test_what_cannot_be_set_aside_stops_it():
    """A corrupt checkpoint that the quarantine does not take: told as the disk's fault, run.json keeps the
    old key, and nothing of it is removed."""
    disk = a_run()
    entry = make_store(disk).entries()[0]
    damage(disk, entry.path)
    disk.obey(lambda n, o: Fail(errno.EACCES) if o.target and o.target.parent == QUARANTINE else None)
    with pytest.raises(StorageError, match="cannot be set aside"):
        rekey(disk)
    found = disk.restart()
    assert {entry.path, entry.manifest_path} <= set(found.paths())
    assert RunDirectory(ROOT, world(found)).read().key_id == key_id(KEY)


def test_a_damaged_manifest_is_told_by_its_name():
    """What recovery sets aside before the first copy is among what could not be sealed anew."""
    disk = a_run()
    damage(disk, make_store(disk).entries()[0].manifest_path)
    assert [one.name for one in rekey(disk) if one.failure] == ["CKP_rank_0-1_3.ckpt"]
    assert steps(make_store(disk, sealing=NEW)) == [2, 1]


def test_a_copy_that_reads_back_differently_replaces_nothing():
    """A disk that does not give back what it was given: the original stays, and doing it again finishes."""
    disk = a_run()
    before = [facts(entry) for entry in make_store(disk).entries()]
    known = set(disk.paths())
    spoilt = []

    def plan(number, operation):
        new = operation.kind == "open" and operation.path.parent == DIRECTORY and operation.path not in known
        if new and not spoilt:
            spoilt.append(operation.path)
            damage(disk, operation.path)
        return None

    disk.obey(plan)
    with pytest.raises(StorageError, match="reads back differently"):
        rekey(disk)
    found = disk.restart()
    assert known <= set(found.paths())
    assert [one.name for one in rekey(found) if one.failure] == [spoilt[0].name]
    check_finished(found, before)


@pytest.mark.parametrize("change", [-1, 1])
def test_a_manifest_that_promises_another_size_is_no_fault_of_the_disk(change):
    """Its blocks are right and together they hold something else: set aside as corrupt, the others done."""
    disk = a_run()
    entry = make_store(disk).entries()[0]
    lying = replace(entry.manifest, plain_bytes=entry.manifest.plain_bytes + change)
    disk.put(entry.manifest_path, manifest.encode(lying, KEY))
    failures = [one for one in rekey(disk) if one.failure]
    assert [one.name for one in failures] == [entry.name]
    assert "as much as its manifest says" in str(failures[0].failure)
    assert steps(make_store(disk, sealing=NEW)) == [2, 1]


def test_what_else_lies_beside_the_weights_stays_as_it_is():
    """A file of another name is nobody's weights; a dead writer's that cannot be removed is named."""
    disk = a_run()
    left = WEIGHTS / layout.temporary(WEIGHTS_FILE.name, "0" * 16)
    others = {WEIGHTS / "notes.txt": b"mine", WEIGHTS / "model.ckpt": b"stock's", left: b"torn"}
    for path, content in others.items():
        disk.put(path, content)
    disk.obey(lambda n, o: Fail(errno.EPERM) if (o.kind, o.path) == ("remove", left) else None)
    assert [one.name for one in rekey(disk) if one.failure] == [left.name]
    assert {path: disk.content(path) for path in others} == others


def test_weights_that_go_meanwhile_are_no_concern():
    """Somebody removes a weights file while everything is sealed anew: the rest is, and it is finished."""
    disk = a_run()

    def plan(number, operation):
        if (operation.kind, operation.path) == ("open", WEIGHTS_FILE) and WEIGHTS_FILE in disk.paths():
            disk.remove(WEIGHTS_FILE)
        return None

    disk.obey(plan)
    assert not [one for one in rekey(disk) if one.failure]
    assert named_key(disk) == key_id(OTHER_KEY)


def test_a_copy_of_weights_that_goes_meanwhile_is_told():
    """Somebody clears away what we are writing: the file stays under the old key, and it is not finished."""
    disk = a_run()

    def plan(number, operation):
        if operation.kind == "rename" and operation.target == WEIGHTS_FILE:
            disk.remove(operation.path)
        return None

    disk.obey(plan)
    with pytest.raises(StorageError, match="has gone while it was made"):
        rekey(disk)
    assert named_key(disk) == key_id(KEY)


def test_an_original_that_goes_meanwhile_is_no_concern():
    """Somebody removes a checkpoint once its copy is there: as good as removed by us."""
    disk = a_run()
    before = [facts(entry) for entry in make_store(disk).entries()]
    oldest = make_store(disk).entries()[-1]

    def plan(number, operation):
        gone = operation.kind == "rename" and operation.path == oldest.manifest_path
        if gone and oldest.path in disk.paths():
            disk.remove(oldest.path)
            disk.remove(oldest.manifest_path)
        return None

    disk.obey(plan)
    assert not [one for one in rekey(disk) if one.failure]
    check_finished(disk, before)
