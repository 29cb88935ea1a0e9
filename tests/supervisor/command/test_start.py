"""Before anything is supervised: what is in the way, and whether the key fits."""

from __future__ import annotations

import errno
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from rank_holder import rank_held

from resilient.codec.keys import key_id
from resilient.config import Sealing
from resilient.errors import EXIT_IO, EXIT_UNUSABLE, EXIT_USAGE, StorageError, UsageError
from resilient.host.world import World
from resilient.journal.base import JOURNAL_VERSION
from resilient.journal.events import SupervisorStarted
from resilient.run.reseal import Rekey
from resilient.run.rundir import RunDirectory
from resilient.store import layout
from resilient.store.entry import Draft
from resilient.store.opening import open_store
from resilient.tools.journal_reader import JournalReader
from supervisor.command import cli
from supervisor.command.cli import main, parse
from supervisor.command.start import _move_aside

STARTED = 9  # the status of the script: it was run
OLD, NEW = b"\x01" * 32, b"\x02" * 32


@pytest.fixture
def script(tmp_path):
    """A script that nobody gets to run."""
    path = tmp_path / "train.py"
    path.write_text("raise SystemExit(9)")
    return str(path)


@pytest.fixture
def run(tmp_path):
    """The directory of a run; the keys are in files beside it."""
    for name, key in (("old", OLD), ("new", NEW)):
        (tmp_path / name).write_text(key.hex())
        (tmp_path / name).chmod(0o600)
    RunDirectory(tmp_path / "run", World()).open({"key_id": key_id(OLD), "mode": "AES-GCM"})
    return tmp_path / "run"


@pytest.fixture
def start(run, script, capfd):
    """Starts the run with keys, the first of them its own from now on; the status, and what was said."""

    def begin(*names, root=run, accept=()):
        words = ["--run-dir", str(root), "--max-restarts", "0", *accept]
        for name, option in zip(names, ("--key-file", "--old-key-file", "--old-key-file"), strict=False):
            words += [option, str(run.with_name(name))]
        status = main([*words, *([] if names else ["--no-encrypt"]), script])
        return status, capfd.readouterr().err

    return begin


def record(root):
    return RunDirectory(root, World()).read()


def store_of(root, key, run_id, *old):
    sealing = Sealing("AES-GCM" if key else None, key, old)
    return open_store(root, World(), sealing, run_id, allow_plain=True)


def save(root, *steps, run, key=OLD):
    """Checkpoints of these steps, in a place of the run's."""
    store = store_of(root, key, record(run).run_id, *({OLD, NEW} - {key}))
    for step in steps:
        store.commit(Draft("CKP", 1, step, step, [], b"", "schedule"))
    return store


def name_places(run, *places):
    RunDirectory(run, World()).write(replace(record(run), checkpoints=tuple(map(str, places))))


def rekey_the_oldest(run):
    """A rekey that is interrupted after the first checkpoint."""
    sealing = Sealing("AES-GCM", NEW, (OLD,))
    rekeying = Rekey(World(), sealing, [store_of(run, NEW, record(run).run_id, OLD)])
    going = rekeying.run(RunDirectory(run, World()), record(run), [])
    assert next(going).failure is None
    going.close()


def test_an_interrupted_rekey_and_a_start_with_both_keys(run, start):
    """Started with both keys, nothing new was saved: the new key alone is still refused, both are not."""
    save(run, 1, 2, run=run)
    rekey_the_oldest(run)
    assert start("new", "old")[0] == STARTED
    assert record(run).key_id == key_id(OLD)
    status, said = start("new")
    assert status == EXIT_UNUSABLE
    assert f"were made with the key {key_id(OLD)}, not with {key_id(NEW)}" in said
    assert "--old-key-file" in said
    assert start("new", "old")[0] == STARTED


def test_the_old_key_alone_does_not_go_behind_what_the_new_one_has_saved(run, start):
    """Started with both keys, and saved: the old key opens older states only, and is refused by name."""
    save(run, 1, 2, run=run)
    start("new", "old")
    save(run, 3, run=run, key=NEW)
    status, said = start("old")
    assert status == EXIT_UNUSABLE
    assert "CKP_rank_0-1_3.ckpt, newer than all checkpoints that the keys open" in said
    assert start("old", "new")[0] == STARTED


def test_the_new_key_is_named_once_nothing_needs_the_old_one(run, start):
    """When retention has removed what was under the old key, the new one is enough, and is the run's."""
    store = save(run, 1, run=run)
    start("new", "old")
    save(run, 2, run=run, key=NEW)
    assert start("new")[0] == EXIT_UNUSABLE
    for path in (store.entries()[-1].path, store.entries()[-1].manifest_path):
        os.remove(path)
    assert start("new")[0] == STARTED
    assert record(run).key_id == key_id(NEW)


def test_checkpoints_in_a_place_of_the_scripts_count(run, start, tmp_path):
    """The run's own directory holds none: another key is refused all the same."""
    save(tmp_path / "out", 1, run=run)
    name_places(run, tmp_path / "out")
    assert start("new")[0] == EXIT_UNUSABLE
    assert record(run).key_id == key_id(OLD)
    assert start("old")[0] == STARTED


def test_nobody_knows_what_is_in_a_place_that_is_missing(run, start, tmp_path):
    """Another key is refused; with the run's own the place is told, and the run goes on."""
    name_places(run, tmp_path / "gone")
    status, said = start("new")
    assert (status, f"the key {key_id(OLD)}, not with" in said) == (EXIT_UNUSABLE, True)
    status, said = start("old")
    assert (status, f"{tmp_path / 'gone'}, where this run has kept" in said) == (STARTED, True)


def test_without_encryption_an_encrypted_run_needs_its_key(run, start):
    """--no-encrypt and no old key: told before the script is run, and the record stays."""
    save(run, 1, run=run)
    status, said = start()
    assert (status, f"the key {key_id(OLD)}, and none was given" in said) == (EXIT_UNUSABLE, True)
    assert record(run).key_id == key_id(OLD)


def test_a_script_with_a_key_of_its_own_is_not_refused(run, start):
    """Its checkpoints are under a key that the supervisor is never given: its monitor opens them."""
    store = store_of(run, b"\x03" * 32, record(run).run_id)
    store.commit(Draft("CKP", 1, 1, 1, [], b"", "schedule"))
    assert start("old")[0] == STARTED
    assert start("new")[0] == STARTED
    assert record(run).key_id == key_id(NEW)


def test_a_run_without_encryption_gets_a_key(run, start):
    """Anybody could have written the checkpoints from before, so the user has to say that they are the run's.
    Then the key is the run's at once; and a file that is planted later is no state."""
    RunDirectory(run, World()).write(replace(record(run), key_id=None, mode=None, plain=True))
    [entry] = save(run, 1, run=run, key=None).entries()
    status, said = start("new")
    assert (status, "--accept-plain" in said, record(run).key_id) == (EXIT_UNUSABLE, True, None)
    assert start("new", accept=["--accept-plain"])[0] == STARTED
    assert (record(run).key_id, record(run).plain) == (key_id(NEW), True)
    assert record(run).accepted == (entry.digest,)
    save(run, 2, run=run, key=None)
    status, said = start("new")
    assert (status, "CKP_rank_0-1_2.ckpt (--accept-plain" in said) == (STARTED, True)
    assert record(run).accepted == (entry.digest,)


def test_a_forged_state_without_encryption_is_no_reason_to_refuse(run, start):
    """Where everything is encrypted, a state that is not is anybody's: it is passed over, as before."""
    save(run, 1, run=run)
    save(run, 2, run=run, key=None)
    assert start("old")[0] == STARTED


def test_what_cannot_be_read_may_need_any_key(run, start):
    """A manifest that the disk does not give: another key is refused."""
    store = save(run, 1, run=run)
    path = store.entries()[0].manifest_path
    os.remove(path)
    path.mkdir()
    assert start("new")[0] == EXIT_UNUSABLE
    assert start("old")[0] == STARTED


def test_a_new_run_takes_any_key(run, start):
    """Nothing was saved yet: whatever key is given is the run's."""
    assert start("new")[0] == STARTED
    assert record(run).key_id == key_id(NEW)


def test_a_copy_that_is_gone_on_with_is_a_run_of_its_own(run, start, tmp_path):
    """It names its own directory from then on, and not the original's places."""
    save(run, 1, run=run)
    save(tmp_path / "out", 2, run=run)
    name_places(run, run, tmp_path / "out")
    shutil.copytree(run, tmp_path / "copy")
    status, said = start("old", root=tmp_path / "copy")
    assert status == STARTED
    assert f"this run is a copy, and {tmp_path / 'out'} belongs to the run in {run}: have the script" in said
    assert record(tmp_path / "copy").checkpoints == (str(tmp_path / "copy"),)
    assert record(run).checkpoints == (str(run), str(tmp_path / "out"))


@pytest.mark.parametrize(("place", "damaged"), [("run", False), ("run", True), ("out", False)])
def test_a_run_that_is_saved_into_is_not_moved_aside(tmp_path, script, capfd, place, damaged):
    """--fresh --archive while a worker of the run lives on: it is named; the record may be damaged."""
    (tmp_path / "out" / "checkpoint").mkdir(parents=True)
    RunDirectory(tmp_path / "run", World()).open({"checkpoints": (str(tmp_path / "out"),)})
    if damaged:
        (tmp_path / "run" / "run.json").write_text("{")
    words = ["--run-dir", str(tmp_path / "run"), "--fresh", "--archive", "--no-encrypt", script]
    with rank_held(layout.rank_lock(tmp_path / place, 0)) as pid:
        assert main(words) == EXIT_USAGE
        assert f"process {pid}, a worker or a saver, still holds" in capfd.readouterr().err
        assert not (tmp_path / "run.archived-1").exists()


@pytest.mark.parametrize(
    "error", [StorageError("read /run: Input/output error", errno=errno.EIO), OSError(5, "EIO")]
)
def test_a_disk_that_fails_is_no_bad_usage(monkeypatch, script, tmp_path, capfd, error):
    """Nothing is wrong with the command: a status of its own, and one line that says so."""

    def fail(*arguments):
        raise error

    monkeypatch.setattr(cli, "supervise", fail)
    assert main(["--run-dir", str(tmp_path / "run"), script]) == EXIT_IO
    said = capfd.readouterr().err
    assert said.count("\n") == 1
    assert "a failure of the machine" in said


def test_what_was_named_wrongly_is_bad_usage_whatever_the_system_calls_it(monkeypatch, script, tmp_path):
    """Only what fails whatever the command says has the other status."""

    def fail(*arguments):
        raise StorageError("a name that is too long", errno=errno.ENAMETOOLONG)

    monkeypatch.setattr(cli, "supervise", fail)
    assert main(["--run-dir", str(tmp_path / "run"), script]) == EXIT_USAGE


def test_a_run_on_a_mount_point_cannot_be_moved_aside(tmp_path):
    """It is said what it is, and what to do."""
    options = parse(["--run-dir", "/proc", "--no-python", "true"])
    with pytest.raises(UsageError, match="is a mount point") as caught:
        _move_aside(Path("/proc"), Path("/proc.archived-1"), options)
    assert "a folder inside of it" in caught.value.hint


def test_each_supervisor_writes_the_journals_version_first(run, start):
    """Its first event says who it is, and of which version what follows is."""
    for _ in range(2):
        assert start("old")[0] == STARTED
    events = list(JournalReader(World().files, run / "journal.jsonl").events())
    first = [event for event in events if isinstance(event, SupervisorStarted)]
    assert events[0] is first[0]
    assert [event.version for event in first] == [JOURNAL_VERSION] * 2
    assert {event.run_id for event in first} == {record(run).run_id}
