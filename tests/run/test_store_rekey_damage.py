"""Rekeying a run with damaged, missing or vanishing files: it reports them, and nothing good is lost."""

from __future__ import annotations

import errno
from dataclasses import replace

import pytest
from rekeyed import (
    NEW,
    WEIGHTS,
    WEIGHTS_FILE,
    a_run,
    both,
    check_finished,
    facts,
    named_key,
    rekey,
    world,
)
from store_world import (
    DIRECTORY,
    KEY,
    OTHER_KEY,
    QUARANTINE,
    ROOT,
    damage,
    make_store,
    names,
    steps,
)

from chaos.faults import Fail
from resilient.codec.keys import key_id
from resilient.errors import StorageError
from resilient.run.reseal import Rekey
from resilient.run.rundir import RunDirectory
from resilient.store import layout, manifest


def test_what_is_corrupt_is_set_aside_and_told():
    """A damaged checkpoint cannot be resealed: it goes to the quarantine, and the others are resealed."""
    disk = a_run()
    damage(disk, make_store(disk).entries()[0].path)
    done = rekey(disk)
    assert [one.name for one in done if one.failure] == ["CKP_rank_0-1_3.ckpt"]
    assert steps(make_store(disk, sealing=NEW)) == [2, 1]
    assert "CKP_rank_0-1_3.ckpt" in names(disk, QUARANTINE)


def test_weights_that_nobody_can_open_are_named_and_stay():
    """A weights file under neither the old nor the new key stays unchanged and is reported: run.json keeps
    the old key until the file is removed and the rekey runs again."""
    disk = a_run()
    damage(disk, WEIGHTS_FILE)
    content = disk.content(WEIGHTS_FILE)
    assert [one.name for one in rekey(disk) if one.failure] == [WEIGHTS_FILE.name]
    assert disk.content(WEIGHTS_FILE) == content
    assert named_key(disk) == key_id(KEY)
    disk.remove(WEIGHTS_FILE)
    assert rekey(disk) == []
    assert named_key(disk) == key_id(OTHER_KEY)


def test_what_recovery_cannot_set_aside_still_needs_the_old_key():
    """If the newest manifest is damaged and cannot be set aside, all others are resealed, but run.json keeps
    the old key: a run with the new one alone would resume from an older state."""
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
    """A renamed checkpoint counts as unfinished: it may be the newest once somebody renames it back."""
    disk = a_run()
    entry = make_store(disk).entries()[0]
    for path in (entry.path, entry.manifest_path):
        disk.rename(path, path.with_name(path.name.replace("1_3", "1_4")))
    assert [one.name for one in rekey(disk) if one.failure] == ["CKP_rank_0-1_4.ckpt"]
    assert named_key(disk) == key_id(KEY)


def test_a_place_that_is_missing_still_needs_the_old_key():
    """With a place missing, the others are resealed, but it is not finished: the place may hold anything."""
    disk = a_run()
    stores = [make_store(disk, sealing=both(), allow_plain=True)]
    directory = RunDirectory(ROOT, world(disk))
    rekeying = Rekey(world(disk), both(), stores)
    done = list(rekeying.run(directory, directory.read(), [WEIGHTS], [ROOT / "elsewhere"]))
    assert [one.name for one in done if one.failure] == [str(ROOT / "elsewhere")]
    assert (rekeying.finished, named_key(disk)) == (False, key_id(KEY))
    assert steps(make_store(disk, sealing=NEW)) == [3, 2, 1]


def test_what_cannot_be_set_aside_stops_it():
    """A corrupt checkpoint that cannot be set aside is reported as a disk error, run.json keeps the old key,
    and no file of it is removed."""
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
    """Checkpoints that recovery sets aside before the first copy are reported as not resealed."""
    disk = a_run()
    damage(disk, make_store(disk).entries()[0].manifest_path)
    assert [one.name for one in rekey(disk) if one.failure] == ["CKP_rank_0-1_3.ckpt"]
    assert steps(make_store(disk, sealing=NEW)) == [2, 1]


def test_a_copy_that_reads_back_differently_replaces_nothing():
    """If the disk reads back other bytes than were written, the original stays; running it again finishes."""
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
    with pytest.raises(StorageError, match="does not read back"):
        rekey(disk)
    found = disk.restart()
    assert known <= set(found.paths())
    assert [one.name for one in rekey(found) if one.failure] == [spoilt[0].name]
    check_finished(found, before)


@pytest.mark.parametrize("change", [-1, 1])
def test_a_manifest_that_promises_another_size_is_no_fault_of_the_disk(change):
    """A checkpoint of valid blocks with a wrong whole is set aside as corrupt; the others are resealed."""
    disk = a_run()
    entry = make_store(disk).entries()[0]
    lying = replace(entry.manifest, plain_bytes=entry.manifest.plain_bytes + change)
    disk.put(entry.manifest_path, manifest.encode(lying, KEY))
    failures = [one for one in rekey(disk) if one.failure]
    assert [one.name for one in failures] == [entry.name]
    assert "shorter or longer than its manifest says" in str(failures[0].failure)
    assert steps(make_store(disk, sealing=NEW)) == [2, 1]


def test_what_else_lies_beside_the_weights_stays_as_it_is():
    """A file with a foreign name is not a weights file; an irremovable temporary one is reported."""
    disk = a_run()
    left = WEIGHTS / layout.temporary(WEIGHTS_FILE.name, "0" * 16)
    others = {WEIGHTS / "notes.txt": b"mine", WEIGHTS / "model.ckpt": b"stock's", left: b"torn"}
    for path, content in others.items():
        disk.put(path, content)
    disk.obey(lambda n, o: Fail(errno.EPERM) if (o.kind, o.path) == ("remove", left) else None)
    assert [one.name for one in rekey(disk) if one.failure] == [left.name]
    assert {path: disk.content(path) for path in others} == others


def test_weights_that_go_meanwhile_are_no_concern():
    """If somebody removes a weights file meanwhile, the rest is resealed, and it counts as finished."""
    disk = a_run()

    def plan(number, operation):
        if (operation.kind, operation.path) == ("open", WEIGHTS_FILE) and WEIGHTS_FILE in disk.paths():
            disk.remove(WEIGHTS_FILE)
        return None

    disk.obey(plan)
    assert not [one for one in rekey(disk) if one.failure]
    assert named_key(disk) == key_id(OTHER_KEY)


def test_a_copy_of_weights_that_goes_meanwhile_is_told():
    """If somebody removes our unfinished copy, the file stays under the old key, and it is not finished."""
    disk = a_run()

    def plan(number, operation):
        if operation.kind == "rename" and operation.target == WEIGHTS_FILE:
            disk.remove(operation.path)
        return None

    disk.obey(plan)
    with pytest.raises(StorageError, match="vanished while it was made"):
        rekey(disk)
    assert named_key(disk) == key_id(KEY)


def test_an_original_that_goes_meanwhile_is_no_concern():
    """If somebody removes a checkpoint after its copy was made, it counts as removed by us."""
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
