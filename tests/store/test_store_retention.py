"""The store: which checkpoints it removes, and which never."""

from __future__ import annotations

import errno
from functools import partial

from store_world import (
    DIRECTORY,
    GCM,
    QUARANTINE,
    damage,
    draft,
    filled,
    make_store,
    names,
    newest,
    steps,
)

from chaos.faults import Fail, always
from chaos.simulated_disk import SimulatedDisk
from resilient.codec.tensors import info_record
from resilient.host.entropy import SystemEntropy
from resilient.store import layout
from resilient.store.weights import prune_weights, remove_temporaries, write_weights


def test_retention_removes_the_oldest_only():
    """With a count, the newest stay, and no file of a removed checkpoint is left."""
    disk, store = filled(5)
    pruned = store.prune(newest(2))
    assert [entry.step for entry in pruned.removed] == [1, 2, 3]
    assert steps(store) == [5, 4]
    assert len(names(disk)) == 5


def test_retention_never_removes_the_newest():
    """Not even a policy that keeps nothing can take the last checkpoint."""
    _, store = filled(3)
    store.prune(lambda entries: set())
    assert steps(store) == [3]


def test_only_valid_checkpoints_count():
    """Corrupt checkpoints do not count in place of good ones, and are set aside."""
    disk, store = filled(5)
    for entry in store.entries()[:2]:
        damage(disk, entry.path)
    fresh = make_store(disk)
    pruned = fresh.prune(newest(2))
    assert [failure.name for failure in pruned.quarantined] == ["CKP_rank_0-1_5.ckpt", "CKP_rank_0-1_4.ckpt"]
    assert steps(fresh) == [3, 2]
    assert "CKP_rank_0-1_5.ckpt" in names(disk, QUARANTINE)


def test_unreadable_checkpoints_neither_count_nor_go():
    """An unreadable checkpoint does not count, is not removed, and is reported."""
    disk, _ = filled(5)
    bad = DIRECTORY / "CKP_rank_0-1_4.ckpt"

    def plan(number, operation):
        return Fail(errno.EBADMSG) if operation.path == bad and operation.kind == "read_into" else None

    fresh = make_store(disk.restart(plan))
    pruned = fresh.prune(newest(2))
    assert [failure.name for failure in pruned.failures] == [bad.name]
    assert [entry.step for entry in fresh.entries()] == [5, 4, 3]


def test_verified_once_is_not_read_again():
    """Retention does not read again what this process has written or read in full."""
    disk, _ = filled(4)
    again = disk.restart()
    fresh = make_store(again)
    fresh.prune(newest(3))
    before = len([operation for operation in again.log if operation.kind == "read_into"])
    fresh.commit(draft(9))
    fresh.prune(newest(3))
    after = len([operation for operation in again.log if operation.kind == "read_into"])
    assert (before > 0, after) == (True, before)


def test_a_changed_file_is_verified_again():
    """A file that changed since its verification counts only after it is read again."""
    disk, store = filled(4)
    damage(disk, store.entries()[1].path)
    store.prune(newest(2))
    assert steps(store) == [4, 2]


def test_what_cannot_be_removed_does_not_stop_training():
    """A file that cannot be removed is reported; the others are still removed."""

    def plan(number, operation):
        stuck = operation.kind == "rename" and operation.path.name == "CKP_rank_0-1_1.manifest"
        return Fail(errno.EPERM) if stuck else None

    _, store = filled(4, disk=SimulatedDisk(plan=plan))
    pruned = store.prune(newest(2))
    assert [failure.error.errno for failure in pruned.failures] == [errno.EPERM]
    assert steps(store) == [4, 3, 1]


def test_no_removal_while_names_may_not_be_durable():
    """If the folder cannot be synced, nothing is removed."""
    disk, _ = filled(4)
    store = make_store(disk.restart(always("sync_directory", Fail(errno.EIO))))
    pruned = store.prune(newest(1))
    assert (pruned.removed, len(pruned.failures)) == ((), 1)
    assert steps(store) == [4, 3, 2, 1]


def test_weights_are_written_whole_and_pruned_by_name():
    """A weights file atomically replaces one of the same name, and only files with our names are removed."""
    disk = SimulatedDisk()
    folder = layout.network_directory(DIRECTORY, 0)
    entropy = SystemEntropy()
    for step in (1, 2, 2, 3):
        name = layout.WeightsName("CKP", 0, layout.NETWORK, 1, step)
        write_weights(disk, folder / name.data, [info_record("step", step)], GCM, entropy)
    disk.put(folder / "theirs.ckpt", b"theirs")
    disk.put(folder / layout.temporary("CKP_rank_0-network-1_4.ckpt", "0" * 16), b"half")
    assert remove_temporaries(disk, folder) == ()
    ours = partial(is_of, "CKP")
    assert prune_weights(disk, folder, ours, {"CKP_rank_0-network-1_3.ckpt"}) == ()
    assert names(disk, folder) == ["CKP_rank_0-network-1_3.ckpt", "theirs.ckpt"]


def is_of(prefix, name):
    parsed = layout.parse_weights(name)
    return parsed is not None and parsed.prefix == prefix
