"""Files that vanish, or disk errors, between two looks at the same folder."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
from store_world import (
    DIRECTORY,
    GCM,
    KEY,
    OTHER_KEY,
    QUARANTINE,
    Sinks,
    draft,
    filled,
    make_store,
    names,
    newest,
    steps,
)

from chaos.faults import Fail, Kill, Killed, always
from chaos.simulated_disk import SimulatedDisk
from resilient.codec.tensors import info_record
from resilient.config import Sealing
from resilient.errors import CorruptError, StorageError
from resilient.host.entropy import SystemEntropy
from resilient.host.world import World
from resilient.run import lock_owner
from resilient.run.rundir import RunDirectory
from resilient.store import commit as sequence
from resilient.store import layout, manifest
from resilient.store.commit import CommitPaths
from resilient.store.weights import prune_weights, write_weights

DATA = [DIRECTORY / f"CKP_rank_0-1_{step}.ckpt" for step in range(6)]
MANIFESTS = [path.with_suffix(".manifest") for path in DATA]


def vanishes(disk, kind, path, gone=None):
    """Somebody removes a file just before this operation on that path."""
    done = []

    def plan(number, operation):
        if (operation.kind, operation.path) == (kind, path) and not done:
            done.append(number)
            disk.remove(gone or path)
        return None

    disk.obey(plan)
    return done


def test_a_manifest_that_vanishes_while_it_is_looked_at_is_no_checkpoint():
    """If a checkpoint vanishes after the listing, the others still count."""
    disk, _ = filled(3)
    done = vanishes(disk, "read", MANIFESTS[3])
    assert steps(make_store(disk)) == [2, 1]
    assert done


def test_a_data_file_that_vanishes_before_it_is_opened_is_corrupt():
    """If a data file vanishes, an older checkpoint is used, and the lone manifest is set aside."""
    disk, _ = filled(2)
    done = vanishes(disk, "open", DATA[2])
    loaded = make_store(disk).load_newest(Sinks())
    assert (loaded.entry.step, len(loaded.failures)) == (1, 1)
    assert done
    assert "CKP_rank_0-1_2.manifest" in names(disk, QUARANTINE)


def test_a_data_file_that_changes_its_size_before_it_is_opened_is_corrupt():
    """The size is compared with the manifest again before memory is allocated for the content."""
    disk, _ = filled(2)
    grown = []

    def plan(number, operation):
        if (operation.kind, operation.path) == ("open", DATA[2]) and not grown:
            grown.append(number)
            disk.put(DATA[2], disk.content(DATA[2]) + b"more")
        return None

    disk.obey(plan)
    loaded = make_store(disk).load_newest(Sinks())
    assert loaded.entry.step == 1
    assert "bytes instead of" in str(loaded.failures[0])


@pytest.mark.parametrize("last", range(3))
def test_a_save_that_fails_at_any_sync_of_its_names_is_taken_back(last):
    """If the last sync fails, the checkpoint was not saved, although both names are visible already."""
    disk, store = filled(1)
    before = names(disk)
    done = []

    def plan(number, operation):
        if operation.kind == "sync_directory":
            done.append(number)
        return Fail(errno.EIO) if operation.kind == "sync_directory" and len(done) == last + 1 else None

    disk.obey(plan)
    with pytest.raises(StorageError):
        store.commit(draft(2))
    assert len(done) > last
    assert names(disk) == before
    assert steps(store) == [1]


@pytest.mark.parametrize("taken", [DATA[2], MANIFESTS[2]])
def test_a_name_that_is_taken_is_never_given_again(taken):
    """A taken name is a mistake of the caller, and raises before anything is written."""
    disk, _ = filled(1)
    disk.put(taken, b"another's")
    before = disk.state()
    place = CommitPaths(DIRECTORY, DATA[2].name, "0" * 16)
    with pytest.raises(AssertionError, match=taken.name):
        sequence.commit(disk, place, lambda writer: writer.write(b"data"), lambda written: b"manifest")
    assert disk.state() == before


@pytest.mark.parametrize("which", [0, 1])
def test_a_save_that_cannot_create_its_files_leaves_nothing(which):
    """If the data file or the manifest cannot be created, the commit fails and leaves nothing behind."""
    disk, store = filled(1)
    before = names(disk)
    made = []

    def plan(number, operation):
        if operation.kind == "create":
            made.append(number)
        return Fail(errno.ENOSPC) if operation.kind == "create" and len(made) == which + 1 else None

    disk.obey(plan)
    with pytest.raises(StorageError):
        store.commit(draft(2))
    assert names(disk) == before
    assert steps(store) == [1]


def test_unfinished_reasons_are_cleared_away_by_their_own_rank():
    """Recovery removes this rank's temporary files from the quarantine, and leaves those of other ranks."""
    disk, _ = filled(1)
    disk.make_directory(QUARANTINE)
    stems = {"ours": "CKP_rank_0-1_1", "copy": "CKP_rank_0-1_1~2", "other": "CKP_rank_1-1_1", "odd": "notes"}
    files = {key: layout.temporary(f"{stem}.reason.txt", "0" * 16) for key, stem in stems.items()}
    for name in (*files.values(), "CKP_rank_0-1_1.reason.txt"):
        disk.put(QUARANTINE / name, b"run run-1 rank 0\n")
    make_store(disk).recover()
    assert names(disk, QUARANTINE) == sorted([files["other"], files["odd"], "CKP_rank_0-1_1.reason.txt"])


def test_a_checkpoint_that_has_gone_cannot_be_verified():
    """Verification of a vanished checkpoint reports that it is missing."""
    disk, store = filled(1)
    entry = store.entries()[0]
    disk.remove(entry.path)
    with pytest.raises(CorruptError, match="missing"):
        store.verify(entry)


def test_a_manifest_that_is_far_too_large_is_set_aside(monkeypatch):
    """A manifest that is too large is not read, and cannot be a checkpoint."""
    disk, _ = filled(2)
    monkeypatch.setattr(manifest, "LIMIT_BYTES", 5000)
    disk.put(MANIFESTS[2], b" " * 5001)
    recovery = make_store(disk).recover()
    assert "far too large" in str(recovery.quarantined[0])
    assert steps(make_store(disk)) == [1]


def test_what_was_written_and_cannot_be_looked_at_is_read_before_it_counts():
    """A fresh checkpoint whose identity cannot be read is verified like any other."""
    disk, store = filled(2)

    def plan(number, operation):
        # The commit also checks the name before it starts: then it has to be free.
        committed = any(o.kind == "rename" and o.target == DATA[3] for o in disk.log)
        wanted = (operation.kind, operation.path) == ("identity", DATA[3]) and committed
        return Fail(errno.EACCES) if wanted else None

    disk.obey(plan)
    entry = store.commit(draft(3))
    disk.obey(lambda n, o: None)
    store.prune(newest(1))
    assert any(o.kind == "read_into" and o.path == entry.path for o in disk.log)
    assert steps(store) == [3]


def test_what_cannot_be_looked_at_during_retention_does_not_count():
    """A checkpoint whose identity cannot be read during verification does not replace a good one."""
    disk, store = filled(3)
    looked = []

    def plan(number, operation):
        if (operation.kind, operation.path) != ("identity", DATA[3]):
            return None
        looked.append(number)
        # The first one is the survey's, which needs the size.
        return Fail(errno.EACCES) if len(looked) > 1 else None

    disk.obey(plan)
    pruned = store.prune(newest(1))
    disk.obey(lambda n, o: None)
    assert [type(failure.error) for failure in pruned.failures] == [StorageError]
    assert steps(store) == [3, 2]


def test_retention_of_nothing_removes_nothing():
    """An empty or missing folder raises no error."""
    pruned = make_store(SimulatedDisk()).prune(newest(1))
    assert (pruned.removed, pruned.quarantined, pruned.failures) == ((), (), ())


def test_a_removal_that_died_before_its_last_step_is_finished():
    """If only the hidden manifest is left, recovery removes it and nothing else."""
    disk, store = filled(2)
    hidden = DIRECTORY / layout.temporary(MANIFESTS[1].name, "0" * 16)
    disk.rename(MANIFESTS[1], hidden)
    disk.remove(DATA[1])
    assert make_store(disk).recover().removed == (hidden.name,)
    assert steps(store) == [2]


def test_what_others_remove_first_is_no_failure():
    """A surplus checkpoint that vanished is neither removed nor reported."""
    disk, store = filled(3)
    done = vanishes(disk, "rename", MANIFESTS[1])
    pruned = store.prune(newest(1))
    assert done
    assert ([entry.step for entry in pruned.removed], pruned.failures) == ([2], ())


def interrupted():
    """A disk on which a save died after its data file was renamed and before its manifest was."""
    disk, _ = filled(1)
    disk.obey(lambda n, o: Kill() if (o.kind, o.target) == ("rename", MANIFESTS[2]) else None)
    with pytest.raises(Killed):
        make_store(disk).commit(draft(2))
    return disk.restart()


def test_a_save_that_died_before_any_name_was_given_is_cleared_away():
    """Recovery removes both temporary files; nothing else was there."""
    disk, store = filled(1)
    disk.obey(lambda n, o: Kill() if (o.kind, o.target) == ("rename", DATA[2]) else None)
    with pytest.raises(Killed):
        store.commit(draft(2))
    after = disk.restart()
    recovery = make_store(after).recover()
    assert [layout.final_of(name) for name in recovery.removed] == [DATA[2].name, MANIFESTS[2].name]
    assert steps(make_store(after)) == [1]


def test_nothing_is_cleared_away_while_names_may_not_be_durable():
    """If the folder cannot be synced, recovery leaves the temporary files and reports the error."""
    disk = interrupted()
    before = names(disk)
    disk.obey(always("sync_directory", Fail(errno.EIO)))
    recovery = make_store(disk).recover()
    assert [failure.name for failure in recovery.failures] == [DIRECTORY.name]
    assert (recovery.removed, names(disk)) == ((), before)
    assert [entry.step for entry in recovery.entries] == [1]


def test_what_cannot_be_cleared_away_is_reported():
    """A temporary file that cannot be removed is reported; recovery still finds the checkpoints."""
    disk = interrupted()
    disk.obey(always("remove", Fail(errno.EPERM)))
    recovery = make_store(disk).recover()
    assert [layout.is_temporary(failure.name) for failure in recovery.failures] == [True]
    assert [entry.step for entry in recovery.entries] == [1]
    disk.obey(lambda n, o: None)
    assert len(make_store(disk).recover().removed) == 2


def test_what_was_sealed_with_a_missing_key_is_not_cleared_away():
    """Without the key of a temporary manifest, the owner of its data is unknown: both files stay."""
    disk = interrupted()
    other = make_store(disk, sealing=Sealing("AES-GCM", OTHER_KEY))
    assert any(layout.is_temporary(failure.name) for failure in other.recover().failures)
    assert DATA[2].name in names(disk)
    make_store(disk, sealing=Sealing("AES-GCM", OTHER_KEY, old_keys=(KEY,))).recover()
    assert DATA[2].name not in names(disk)


def test_a_reason_that_vanishes_is_no_reason():
    """A person may clear the quarantine while the store reads it."""
    disk = SimulatedDisk()
    disk.make_directory(QUARANTINE)
    reason = QUARANTINE / "CKP_rank_0-1_1.reason.txt"
    disk.put(reason, b"run run-1 rank 0\nbroken\n")
    done = vanishes(disk, "read", reason)
    assert make_store(disk).load_newest(Sinks()) is None
    assert done


def test_weights_that_cannot_be_removed_are_named():
    """Weights files that vanished already raise no error; the others are removed."""
    disk = SimulatedDisk()
    paths = [Path("/weights") / f"{name}.ckpt" for name in "abc"]
    for path in paths:
        write_weights(disk, path, [info_record("step", 1)], GCM, SystemEntropy())
    gone = vanishes(disk, "remove", paths[0])
    assert prune_weights(disk, Path("/weights"), paths[0].name.__eq__, ()) == ()
    assert gone
    disk.obey(lambda n, o: Fail(errno.EPERM) if (o.kind, o.path) == ("remove", paths[1]) else None)
    failures = prune_weights(disk, Path("/weights"), lambda name: True, ())
    assert [failure.name for failure in failures] == names(disk, Path("/weights")) == ["b.ckpt"]


def test_a_runs_files_have_their_places(tmp_path):
    """The journal, each attempt's output and the saver's lie in the run's directory."""
    run = RunDirectory(tmp_path, World())
    assert run.journal == tmp_path / "journal.jsonl"
    assert run.log(3, rank=2) == tmp_path / "logs" / "attempt_0003" / "rank_2.log"
    assert run.saver_log == tmp_path / "logs" / "saver.log"


def test_a_machine_that_does_not_tell_its_boot_can_lock(tmp_path, monkeypatch):
    """Without /proc, the kernel still keeps the lock exclusive."""
    monkeypatch.setattr(lock_owner, "_BOOT_ID", tmp_path / "nowhere")
    run = RunDirectory(tmp_path / "run", World())
    run.lock().release()
    assert b'"boot_id": ""' in (tmp_path / "run" / "lock").read_bytes()
