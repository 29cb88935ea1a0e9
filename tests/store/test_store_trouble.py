"""The store: corruption, wrong keys and disk errors are three different things."""

from __future__ import annotations

import contextlib
import errno

import pytest
from store_world import (
    DIRECTORY,
    KEY,
    OTHER_KEY,
    QUARANTINE,
    Sinks,
    damage,
    draft,
    filled,
    make_store,
    names,
    newest,
    steps,
)

from chaos.faults import Fail
from chaos.simulated_disk import SimulatedDisk
from resilient.config import Sealing
from resilient.errors import CorruptError, StorageError, UnusableError, WrongKeyError
from resilient.store import layout


def test_a_full_disk_leaves_everything_as_it_was():
    """A commit that runs out of space raises, leaves no trace, and the next one works once there is space."""
    disk = SimulatedDisk(capacity_bytes=2000)
    store = make_store(disk)
    store.commit(draft(1))
    before = names(disk)
    with pytest.raises(StorageError) as caught:
        store.commit(draft(2))
    assert caught.value.errno == errno.ENOSPC
    assert names(disk) == before
    assert steps(store) == [1]
    disk.remove(DIRECTORY / layout.META_NAME)
    roomy = SimulatedDisk(disk.state())
    make_store(roomy).commit(draft(3))
    assert steps(make_store(roomy)) == [3, 1]


@pytest.mark.parametrize("kind", ["names", "read", "identity"])
def test_errors_that_may_pass_are_tried_again(kind):
    """A read that fails once with a transient error is retried; a folder that cannot be listed never counts
    as empty."""
    disk, _ = filled(2)
    failed = []

    def plan(number, operation):
        if operation.kind == kind and not failed:
            failed.append(number)
            return Fail(errno.EIO)
        return None

    store = make_store(disk.restart(plan))
    if kind == "names":
        with pytest.raises(StorageError):
            store.load_newest(Sinks())
    assert store.load_newest(Sinks()).entry.step == 2
    assert failed


def test_a_disk_error_is_no_corruption():
    """An unreadable newest checkpoint stays in place; the one before is used, and both are reported."""
    disk, _ = filled(2)
    bad = DIRECTORY / "CKP_rank_0-1_2.ckpt"
    broken = disk.restart(
        lambda n, o: Fail(errno.EBADMSG) if (o.path, o.kind) == (bad, "read_into") else None
    )
    loaded = make_store(broken).load_newest(Sinks())
    assert loaded.entry.step == 1
    assert isinstance(loaded.failures[0].error, StorageError)
    assert names(disk, QUARANTINE) == []
    assert steps(make_store(disk)) == [2, 1]


def test_a_wrong_key_is_no_corruption():
    """With another key nothing is moved or lost, and the error names the missing key."""
    disk, _ = filled(2)
    before = disk.state()
    store = make_store(disk, sealing=Sealing("AES-GCM", OTHER_KEY))
    assert store.recover().failures != ()
    with pytest.raises(UnusableError, match="give the key") as caught:
        store.load_newest(Sinks())
    assert "CKP_rank_0-1_2.ckpt" in str(caught.value)
    assert disk.state() == before
    assert steps(make_store(disk)) == [2, 1]


def test_old_keys_open_older_checkpoints():
    """After a change of key and mode, the old key opens the old checkpoints and the new one seals."""
    disk, _ = filled(2)
    store = make_store(disk, sealing=Sealing("SM4-CBC", OTHER_KEY[:16], old_keys=(KEY,)))
    assert store.load_newest(Sinks()).entry.step == 2
    store.commit(draft(3))
    assert steps(store) == [3, 2, 1]
    without = make_store(disk, sealing=Sealing("SM4-CBC", OTHER_KEY[:16]))
    assert steps(without) == [3]


def test_generations_go_on_behind_what_cannot_be_opened():
    """A checkpoint whose key is missing keeps its place: later commits are newer."""
    disk, _ = filled(3)
    other = Sealing("AES-GCM", OTHER_KEY)
    make_store(disk, sealing=other).commit(draft(4))
    both = make_store(disk, sealing=Sealing("AES-GCM", KEY, old_keys=(OTHER_KEY,)))
    assert steps(both) == [4, 3, 2, 1]


def test_unencrypted_ones_are_not_trusted_once_encryption_is_on():
    """Anybody can write an unencrypted checkpoint; with a key it counts only when allowed explicitly."""
    disk, _ = filled(2, sealing=Sealing())
    store = make_store(disk)
    with pytest.raises(UnusableError, match="not encrypted") as caught:
        store.load_newest(Sinks())
    assert "rekey" in str(caught.value)
    assert store.recover().quarantined == ()
    assert steps(make_store(disk, allow_plain=True)) == [2, 1]
    assert steps(make_store(disk, sealing=Sealing())) == [2, 1]


def test_encrypted_ones_need_their_key():
    """Without a key, encrypted checkpoints are kept and reported, not treated as garbage."""
    disk, _ = filled(1)
    with pytest.raises(UnusableError, match="another key"):
        make_store(disk, sealing=Sealing()).load_newest(Sinks())
    assert steps(make_store(disk)) == [1]


@pytest.mark.parametrize("other", [{"run_id": "run-2"}, {"rank": 1}])
def test_other_runs_are_left_alone(other):
    """Checkpoints of another run or rank are neither used nor moved, and do not prevent a start."""
    disk, _ = filled(2)
    before = disk.state()
    store = make_store(disk, **other)
    assert store.load_newest(Sinks()) is None
    store.recover()
    assert disk.state() == before
    store.commit(draft(1))
    store.prune(newest(1))
    assert steps(store) == [1]
    assert steps(make_store(disk)) == [2, 1]


def test_unusable_stays_unusable():
    """When everything was corrupt and set aside, the next start still refuses to begin from zero."""
    disk, store = filled(2)
    for entry in store.entries():
        damage(disk, entry.path)
    with pytest.raises(UnusableError, match=r"1_2\.ckpt: .*1_1\.ckpt: "):
        store.load_newest(Sinks())
    assert store.entries() == []
    with pytest.raises(UnusableError, match="in the quarantine"):
        make_store(disk).load_newest(Sinks())
    assert make_store(disk, run_id="run-2").load_newest(Sinks()) is None


def test_the_quarantine_replaces_nothing():
    """Two corrupt files of one name lie side by side, each with its data, manifest and reason."""
    disk, store = filled(1)
    damage(disk, store.entries()[0].path)
    store.prune(newest(1))
    with pytest.raises(UnusableError):
        store.load_newest(Sinks())
    store.commit(draft(1))
    damage(disk, store.entries()[0].path)
    with pytest.raises(UnusableError):
        store.load_newest(Sinks())
    stem = "CKP_rank_0-1_1"
    ends = ("ckpt", "manifest", "reason.txt")
    wanted = [f"{stem}.{end}" for end in ends] + [f"{stem}~1.{end}" for end in ends]
    assert names(disk, QUARANTINE) == sorted(wanted)
    reason = disk.content(QUARANTINE / f"{stem}~1.reason.txt").decode()
    assert "is not the one that was written" in reason
    assert "run-1" in reason


def test_a_quarantine_that_cannot_be_written_is_reported():
    """On a full disk, the intact checkpoint still loads, and the corrupt one stays in place."""
    disk, store = filled(2)
    damage(disk, store.entries()[0].path)
    frozen = disk.restart(lambda n, o: Fail(errno.EROFS) if o.mutates else None)
    reader = make_store(frozen)
    reader.recover()
    loaded = reader.load_newest(Sinks())
    assert loaded.entry.step == 1
    assert "cannot be set aside" in str(loaded.failures[0])


def test_a_checkpoint_that_lost_its_data_is_corrupt():
    """A manifest without its data file is set aside; an older checkpoint is used."""
    disk, store = filled(2)
    disk.remove(store.entries()[0].path)
    recovery = store.recover()
    assert [failure.name for failure in recovery.quarantined] == ["CKP_rank_0-1_2.ckpt"]
    assert store.load_newest(Sinks()).entry.step == 1


def test_verify_says_what_is_wrong_and_moves_nothing():
    """Verification reads every byte and leaves every file where it is."""
    disk, store = filled(1)
    entry = store.entries()[0]
    store.verify(entry)
    damage(disk, entry.path)
    before = disk.state()
    with pytest.raises(CorruptError):
        store.verify(entry)
    with pytest.raises(WrongKeyError):
        make_store(disk, sealing=Sealing("AES-GCM", OTHER_KEY)).verify(entry)
    assert disk.state() == before


def test_a_folder_that_goes_is_told():
    """If somebody removes the folder at any moment, saves and retention succeed or raise a StorageError; the
    next save creates the folder again."""
    whole, store = filled(2)
    store.prune(newest(1))
    for number in range(len(whole.log)):
        disk = SimulatedDisk()
        disk.obey(lambda n, o, disk=disk, number=number: disk.wipe(DIRECTORY) if n == number else None)
        store = make_store(disk)
        for step in (1, 2):
            with contextlib.suppress(StorageError):
                store.commit(draft(step))
        with contextlib.suppress(StorageError):
            store.prune(newest(1))
        store.commit(draft(3))
        assert steps(store)[0] == 3
        assert store.recover().failures == ()


def test_a_leftover_that_somebody_else_removes():
    """A temporary file that vanishes before recovery removes it counts as removed."""
    disk, _ = filled(1)
    leftover = DIRECTORY / layout.temporary("meta.json", "0" * 16)
    disk.put(leftover, b"torn")

    removed = []

    def somebody_else(number, operation):
        if operation.kind == "remove" and not removed:
            removed.append(operation.path)
            gone.remove(leftover)

    gone = disk.restart(somebody_else)
    recovery = make_store(gone).recover()
    assert recovery.failures == ()
    assert removed == [leftover]
    assert leftover not in gone.paths()
