"""The store notices changes to the folder between two saves, although a save reads only new manifests."""

from __future__ import annotations

import pytest
from store_world import DIRECTORY, QUARANTINE, damage, draft, filled, make_store, names, newest, steps

from resilient.store import layout


def manifest_reads(disk, since):
    return [o.path.name for o in disk.log[since:] if o.kind == "read" and o.path.suffix == ".manifest"]


def save(store, step, keep):
    store.commit(draft(step))
    return store.prune(newest(keep))


@pytest.mark.parametrize("keep", [3, 100])
def test_a_save_reads_no_manifest_but_the_new_one(keep):
    """A save reads no manifest that this process knows, however many there are, with or without a removal."""
    disk, store = filled(3)
    save(store, 4, keep)
    before = len(disk.log)
    save(store, 5, keep)
    assert manifest_reads(disk, before) == ["CKP_rank_0-1_5.manifest"]


def test_a_new_process_reads_every_manifest():
    """A new process knows nothing, so it reads every manifest."""
    disk, _ = filled(4)
    fresh = make_store(disk.restart())
    fresh.recover()
    assert {f"CKP_rank_0-1_{n}.manifest" for n in range(1, 5)} <= set(manifest_reads(fresh._files, 0))


@pytest.mark.parametrize("what", ["path", "manifest_path"])
def test_a_spoilt_checkpoint_does_not_count(what):
    """A checkpoint damaged between two saves, data or manifest, does not replace a good one."""
    disk, store = filled(4)
    save(store, 5, keep=4)
    spoilt = store.entries()[1]
    damage(disk, getattr(spoilt, what))
    pruned = save(store, 6, keep=4)
    assert [failure.name for failure in pruned.quarantined] == [spoilt.name]
    assert steps(store) == [6, 5, 3, 2]
    assert spoilt.name in names(disk, QUARANTINE)


@pytest.mark.parametrize("what", ["path", "manifest_path"])
def test_a_spoilt_newest_is_seen_without_any_removal(what):
    """meta.json never names a checkpoint that is known to be damaged."""
    disk, store = filled(3)
    spoilt = store.entries()[0]
    damage(disk, getattr(spoilt, what))
    pruned = store.prune(newest(100))
    if what == "path":
        # Its size is right, so only reading it shows the damage, and nothing is to be removed for it.
        assert pruned.quarantined == ()
        disk.put(spoilt.path, b"")
        pruned = store.prune(newest(100))
    assert [failure.name for failure in pruned.quarantined] == [spoilt.name]
    assert b"CKP_rank_0-1_2.ckpt" in disk.content(DIRECTORY / layout.META_NAME)


@pytest.mark.parametrize("what", ["path", "manifest_path"])
def test_a_removed_checkpoint_is_seen(what):
    """A checkpoint removed by somebody between two saves no longer counts, and no good one goes for it."""
    disk, store = filled(3)
    save(store, 4, keep=3)
    disk.remove(getattr(store.entries()[1], what))
    pruned = save(store, 5, keep=3)
    assert [entry.step for entry in pruned.removed] == []
    assert steps(store) == [5, 4, 2]


def test_a_manifest_without_its_data_is_set_aside_at_once():
    """A vanished data file is noticed by its name, even when nothing is to be removed."""
    disk, store = filled(3)
    lost = store.entries()[1]
    disk.remove(lost.path)
    pruned = store.prune(newest(100))
    assert [failure.name for failure in pruned.quarantined] == [lost.name]
    assert lost.manifest_path.name in names(disk, QUARANTINE)


def test_an_added_checkpoint_is_seen():
    """A checkpoint restored between two saves counts: for its generation, and in retention."""
    disk, store = filled(4)
    newest_one = store.entries()[0]
    kept = {path: disk.content(path) for path in (newest_one.path, newest_one.manifest_path)}
    for path in kept:
        disk.remove(path)
    fresh = make_store(disk.restart())
    assert steps(fresh) == [3, 2, 1]
    save(fresh, 5, keep=10)
    for path, content in kept.items():
        fresh._files.put(path, content)
    pruned = save(fresh, 6, keep=2)
    # The restored one and the one that took its generation meanwhile both stay.
    assert [entry.step for entry in pruned.removed] == [1, 2, 3]
    assert steps(fresh) == [6, 5, 4]
    assert fresh.entries()[0].generation > newest_one.generation


def test_somebody_elses_name_is_never_taken():
    """A file that appears under the next checkpoint's name between two saves stays as it is."""
    disk, store = filled(1)
    theirs = DIRECTORY / "CKP_rank_0-1_2.ckpt"
    disk.put(theirs, b"theirs")
    entry = store.commit(draft(2))
    assert entry.name == "CKP_rank_0_1-1_2.ckpt"
    assert disk.content(theirs) == b"theirs"


def test_manifests_of_others_are_judged_once():
    """Another run's checkpoints in the folder, or those of a key we lack, are not read at every save."""
    disk, _ = filled(3)
    store = make_store(disk, run_id="another")
    save(store, 11, keep=5)
    before = len(disk.log)
    save(store, 12, keep=5)
    assert manifest_reads(disk, before) == ["CKP_rank_0-2_2.manifest"]
    assert layout.manifest_of("CKP_rank_0-1_1.ckpt") in names(disk)
