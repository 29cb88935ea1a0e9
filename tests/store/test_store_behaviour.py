"""The store: what it promises while nothing crashes and nobody tampers."""

from __future__ import annotations

import errno
import json
from functools import partial

import pytest
from store_world import (
    DIRECTORY,
    GCM,
    KEY,
    OTHER_KEY,
    QUARANTINE,
    SEALINGS,
    Sinks,
    draft,
    filled,
    make_store,
    names,
    newest,
    read_back,
    steps,
)

from chaos.clock import SteppedClock
from chaos.disk import Fail, SimulatedDisk, always
from resilient import retention
from resilient.codec.container import info_record
from resilient.config import KeepPolicy, Sealing
from resilient.errors import CorruptError, StorageError, UnusableError, WrongKeyError
from resilient.host.entropy import SystemEntropy
from resilient.host.files import DiskFiles
from resilient.store import layout
from resilient.store.store import Store
from resilient.store.weights import prune_weights, remove_temporaries, write_weights


@pytest.mark.parametrize("sealing", SEALINGS.values(), ids=SEALINGS)
def test_what_is_committed_is_loaded(sealing):
    """In each mode, the newest checkpoint comes back exactly, by a new process."""
    disk, _ = filled(3, sealing=sealing)
    sinks = Sinks()
    loaded = make_store(disk.restart(), sealing=sealing).load_newest(sinks)
    assert (loaded.entry.step, loaded.failures) == (3, ())
    assert loaded.entry.manifest.info == {"loss": 0.5}
    assert loaded.entry.manifest.parent == make_store(disk, sealing=sealing).entries()[1].digest


def test_nothing_at_all_is_none():
    """A run without checkpoints starts anew without an error."""
    store = make_store(SimulatedDisk())
    assert store.load_newest(Sinks()) is None
    assert (store.entries(), store.recover().entries) == ([], ())


def test_order_is_by_generation_under_any_clock():
    """A wall clock that jumps, and file times in any order, do not change which checkpoint is the newest."""
    disk, clock = SimulatedDisk(), SteppedClock()
    store = make_store(disk, clock=clock)
    for step, jump in [(1, 0), (2, -1e6), (3, 2e6), (4, -5e5)]:
        clock.jump(jump)
        store.commit(draft(step))
    for path in reversed(disk.paths()):
        disk.put(path, disk.content(path))
    assert steps(store) == [4, 3, 2, 1]


def test_a_committed_file_is_never_overwritten():
    """A second checkpoint of the same step gets stock's numeric suffix; both stay valid."""
    disk, store = filled(1)
    store.commit(draft(1))
    assert steps(store) == [1, 1]
    assert "CKP_rank_0-1_1.ckpt" in names(disk)
    assert "CKP_rank_0_1-1_1.ckpt" in names(disk)


def test_stocks_files_are_never_touched():
    """Checkpoints of stock's in the same folder keep their content and count as taken names."""
    disk = SimulatedDisk()
    disk.make_directory(DIRECTORY)
    for name in ("CKP_rank_0-1_1.ckpt", "net-1_2.ckpt", "data.manifest", "CKP_rank_0-1_7.tmp", ".hidden.tmp"):
        disk.put(DIRECTORY / name, b"theirs")
    store = make_store(disk)
    store.recover()
    for step in range(1, 5):
        store.commit(draft(step))
        store.prune(newest(1))
    make_store(disk).recover()
    theirs = {path.name for path in disk.paths() if disk.content(path) == b"theirs"}
    assert theirs == {
        "CKP_rank_0-1_1.ckpt",
        "net-1_2.ckpt",
        "data.manifest",
        "CKP_rank_0-1_7.tmp",
        ".hidden.tmp",
    }
    assert names(disk, QUARANTINE) == []


def test_failure_checkpoints_are_checkpoints():
    """A checkpoint made on a failure is named so, loads like any other and counts in retention."""
    disk, store = filled(2)
    store.commit(draft(3, failure=True, reason="exception"))
    store.prune(newest(1))
    assert steps(store) == [3]
    assert "CKP_rank_0-1_3_breakpoint.ckpt" in names(disk)


def test_meta_describes_the_newest():
    """meta.json is stock's, and right after each commit, prune and recovery."""
    disk, store = filled(12)
    meta = DIRECTORY / layout.META_NAME
    wanted = {"last_epoch": 2, "last_step": 2, "last_ckpt_file": "CKP_rank_0-2_2.ckpt"}
    assert json.loads(disk.content(meta)) == wanted
    disk.put(meta, b"torn")
    store.recover()
    assert json.loads(disk.content(meta)) == wanted
    entry = store.entries()[0]
    disk.put(entry.path, b"")
    store.prune(newest(20))
    assert json.loads(disk.content(meta))["last_ckpt_file"] == "CKP_rank_0-2_1.ckpt"


def test_a_failing_meta_does_not_fail_the_checkpoint():
    """meta.json is a courtesy: the checkpoint counts without it, and the failure can be seen."""
    faults = {"armed": False}

    def plan(number, operation):
        hit = faults["armed"] and operation.kind == "create" and "meta" in operation.path.name
        return Fail(errno.ENOSPC) if hit else None

    store = make_store(SimulatedDisk(plan=plan))
    faults["armed"] = True
    store.commit(draft(1))
    assert steps(store) == [1]
    assert store.meta_error.errno == errno.ENOSPC
    faults["armed"] = False
    store.recover()
    assert store.meta_error is None


def test_retention_removes_the_oldest_only():
    """With a count, the newest stay, and each removed checkpoint is gone entirely."""
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
    """Checkpoints that turn out corrupt do not fill the places of good ones, and are set aside."""
    disk, store = filled(5)
    for entry in store.entries()[:2]:
        damage(disk, entry.path)
    fresh = make_store(disk)
    pruned = fresh.prune(newest(2))
    assert [failure.name for failure in pruned.quarantined] == ["CKP_rank_0-1_5.ckpt", "CKP_rank_0-1_4.ckpt"]
    assert steps(fresh) == [3, 2]
    assert "CKP_rank_0-1_5.ckpt" in names(disk, QUARANTINE)


def test_unreadable_checkpoints_neither_count_nor_go():
    """A checkpoint that the disk cannot give does not count, is not removed, and is reported."""
    disk, _ = filled(5)
    bad = DIRECTORY / "CKP_rank_0-1_4.ckpt"

    def plan(number, operation):
        return Fail(errno.EBADMSG) if operation.path == bad and operation.kind == "read_into" else None

    fresh = make_store(disk.restart(plan))
    pruned = fresh.prune(newest(2))
    assert [failure.name for failure in pruned.failures] == [bad.name]
    assert [entry.step for entry in fresh.entries()] == [5, 4, 3]


def test_verified_once_is_not_read_again():
    """What this process has written or read in full is not read again for each retention."""
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
    """A file that has changed since it was verified counts only after it has been read again."""
    disk, store = filled(4)
    damage(disk, store.entries()[1].path)
    store.prune(newest(2))
    assert steps(store) == [4, 2]


def test_what_cannot_be_removed_does_not_stop_training():
    """A file that the system does not let go is reported; the others are still removed."""

    def plan(number, operation):
        stuck = operation.kind == "rename" and operation.path.name == "CKP_rank_0-1_1.manifest"
        return Fail(errno.EPERM) if stuck else None

    _, store = filled(4, disk=SimulatedDisk(plan=plan))
    pruned = store.prune(newest(2))
    assert [failure.error.errno for failure in pruned.failures] == [errno.EPERM]
    assert steps(store) == [4, 3, 1]


def test_no_removal_while_names_may_not_be_durable():
    """Where the folder cannot be synced, nothing is removed on account of what is in it."""
    disk, _ = filled(4)
    store = make_store(disk.restart(always("sync_directory", Fail(errno.EIO))))
    pruned = store.prune(newest(1))
    assert (pruned.removed, len(pruned.failures)) == ((), 1)
    assert steps(store) == [4, 3, 2, 1]


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
    """A read that fails once with an error that may pass is tried again; a folder that cannot be listed is
    never taken for an empty one."""
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
    """An unreadable newest checkpoint is left where it is; the one before is used, and both are named."""
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
    """With another key nothing is moved or lost, and the error says what is needed."""
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
    """A checkpoint whose key is missing keeps its place: what is committed meanwhile is newer."""
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
    """Without a key, encrypted checkpoints are kept and named, not taken for garbage."""
    disk, _ = filled(1)
    with pytest.raises(UnusableError, match="another key"):
        make_store(disk, sealing=Sealing()).load_newest(Sinks())
    assert steps(make_store(disk)) == [1]


@pytest.mark.parametrize("other", [{"run_id": "run-2"}, {"rank": 1}])
def test_other_runs_are_left_alone(other):
    """Checkpoints of another run or rank are neither used nor moved, and are no reason to refuse a start."""
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
    """On a disk that takes nothing, the intact checkpoint still loads, and the corrupt one stays in place."""
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


def test_not_finite_numbers_do_not_prevent_a_checkpoint():
    """A loss that has become NaN or infinite is stored like any other."""
    _, store = filled(0)
    store.commit(draft(1, info={"loss": float("nan"), "best": float("inf")}))
    assert str(store.entries()[0].manifest.info["loss"]) == "nan"


@pytest.mark.parametrize(
    "prefix", ["a*b[c]?", "with space", "a-b-1_2", "x_rank_9-1_1", ".dot", "名前", "a.ckpt"]
)
def test_prefixes_may_hold_any_character(tmp_path, prefix):
    """On a real disk, prefixes with glob characters, dashes, dots and spaces commit, load and prune."""
    store = Store(
        tmp_path / "checkpoint",
        quarantine=tmp_path / "quarantine",
        files=DiskFiles(),
        clock=SteppedClock(),
        entropy=SystemEntropy(),
        sealing=GCM,
        run_id="run-1",
    )
    for step in (1, 2, 3):
        store.commit(draft(step, prefix=prefix))
    (tmp_path / "checkpoint" / "aXbc1_rank_0-9_9.ckpt").write_bytes(b"theirs")
    store.prune(partial(retention.kept, KeepPolicy(max_count=2)))
    store.recover()
    assert steps(store) == [3, 2]
    assert sorted(path.name for path in (tmp_path / "checkpoint").iterdir()) == sorted(
        ["aXbc1_rank_0-9_9.ckpt", "meta.json"]
        + [f"{prefix}_rank_0-1_{step}.{end}" for step in (2, 3) for end in ("ckpt", "manifest")]
    )


def test_files_are_private(tmp_path):
    """On a real disk, checkpoints, manifests, meta.json and folders can be read by their owner only."""
    store = Store(
        tmp_path / "a" / "b",
        quarantine=tmp_path / "quarantine",
        files=DiskFiles(),
        clock=SteppedClock(),
        entropy=SystemEntropy(),
        sealing=Sealing(),
        run_id="run-1",
    )
    store.commit(draft(1))
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "a" / "b").iterdir()} == {0o600}
    assert {(tmp_path / "a").stat().st_mode & 0o777, (tmp_path / "a" / "b").stat().st_mode & 0o777} == {0o700}


def test_weights_are_written_whole_and_pruned_by_name():
    """Weights files replace one of the same name at once, and only those named ours are removed."""
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


def damage(disk, path):
    data = bytearray(disk.content(path))
    data[len(data) // 2] ^= 1
    disk.put(path, bytes(data))


def test_read_back_would_notice():
    """The check these tests rely on fails for content of another step."""
    _, store = filled(1)
    entry = store.commit(draft(2, extra=b"wrong"))
    with pytest.raises(AssertionError):
        read_back(store, entry)
