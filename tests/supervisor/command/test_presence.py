"""A run that has saved is started from zero, or from an older state, only by somebody who says so."""

from __future__ import annotations

import json
import os
import shutil
import threading
from dataclasses import replace
from pathlib import Path

import messages_said
import pytest
from test_trust import KEY, STARTED, edit, home, record, remove, run, save, start  # noqa: F401 - fixtures too

from resilient.codec import keys
from resilient.config import Sealing
from resilient.errors import EXIT_UNUSABLE
from resilient.host.world import World
from resilient.run import floor as floors
from resilient.run.floor import FloorFile
from resilient.run.reseal import Rekey
from resilient.run.rundir import RunDirectory
from resilient.store import layout
from resilient.store.opening import open_store
from supervisor.checkpointing.floor_keeper import FloorKeeper


@pytest.fixture
def known(run, start, home):  # noqa: F811
    """A run with the checkpoints of steps 1 to 3, which the floor knows since its last start."""
    assert start()[0] == STARTED
    save(run, 1, 2, 3)
    assert start()[0] == STARTED
    assert record(run).saved
    return run


def forget(home):  # noqa: F811
    """The home has no floor: it is another machine's, or was lost."""
    shutil.rmtree(home / "resilient" / "floors")


def rank_folder(run):  # noqa: F811
    return layout.checkpoint_directory(run, 0)


def drop_the_folder(run):  # noqa: F811
    shutil.rmtree(run / "checkpoint")


def empty_the_folder(run):  # noqa: F811
    drop_the_folder(run)
    rank_folder(run).mkdir(parents=True)


def rename_the_rank(run):  # noqa: F811
    rank_folder(run).rename(run / "checkpoint" / "rank_zero")


def drop_the_manifests(run):  # noqa: F811
    for path in rank_folder(run).glob("*.manifest"):
        path.unlink()


GONE = [drop_the_folder, empty_the_folder, rename_the_rank, drop_the_manifests]


@pytest.mark.parametrize("known_by", ["floor", "record", "journal"])
@pytest.mark.parametrize("lose", GONE, ids=lambda lose: lose.__name__)
def test_nothing_left_of_what_was_saved(known, start, home, lose, known_by):  # noqa: F811
    """Whatever has become of the checkpoints, and wherever they are known: status 65 and what to do.
    With --accept-rollback the run begins from step 1, and nobody asks again."""
    if known_by != "floor":
        forget(home)
    if known_by == "journal":
        # As an earlier version leaves it: no seal, and no word of what was saved.
        RunDirectory(known, World()).write(replace(record(known), saved=False))
    with open(known / "journal.jsonl", "a") as journal:
        journal.write('{"event": "torn\n' + json.dumps({"event": "saved", "step": 3}) + "\n")
    if known_by != "journal":
        (known / "journal.jsonl").unlink()
    lose(known)
    status, said = start()
    assert (status, "--accept-rollback" in said) == (EXIT_UNUSABLE, True)
    status, said = start("--accept-rollback")
    assert (status, "from step 1" in said or "as was accepted" in said) == (STARTED, True)
    if known_by != "journal":
        assert start()[0] == STARTED


def test_the_record_of_another_run(known, start, tmp_path):  # noqa: F811
    """A run.json of the same key, and of another run: all checkpoints are strangers'. Both runs are named."""
    assert start(root=tmp_path / "other")[0] == STARTED
    mine = record(known).run_id
    shutil.copy(tmp_path / "other" / "run.json", known / "run.json")
    status, said = start()
    other = record(tmp_path / "other").run_id
    assert (status, mine in said, other in said) == (EXIT_UNUSABLE, True, True)
    assert start("--accept-rollback")[0] == EXIT_UNUSABLE


def test_a_record_that_is_gone_with_the_checkpoints(known, start):  # noqa: F811
    """run.json and checkpoint/ are gone, and the journal still tells of saves: no new run begins there."""
    with open(known / "journal.jsonl", "a") as journal:
        journal.write(json.dumps({"event": "saved", "step": 3}) + "\n")
    (known / "run.json").unlink()
    drop_the_folder(known)
    assert start()[0] == EXIT_UNUSABLE


def test_a_place_of_the_scripts_that_is_not_mounted(run, start, tmp_path):  # noqa: F811
    """All that the run has saved is on a volume that is not there: 65; with the volume back it goes on."""
    out = tmp_path / "out"
    assert start()[0] == STARTED
    save(run, 1, place=out)
    RunDirectory(run, World(), keys=[KEY]).write(replace(record(run), checkpoints=(str(out),)))
    assert start()[0] == STARTED
    out.rename(tmp_path / "elsewhere")
    status, said = start()
    assert (status, str(out) in said) == (EXIT_UNUSABLE, True)
    out.mkdir()
    assert start()[0] == EXIT_UNUSABLE
    out.rmdir()
    (tmp_path / "elsewhere").rename(out)
    assert start()[0] == STARTED


def test_checkpoints_of_others_in_a_place_of_the_scripts(run, start, tmp_path):  # noqa: F811
    """A directory that two runs share is legitimate: a warning names it, and the new run starts."""
    out = tmp_path / "out"
    assert start()[0] == STARTED
    save(run, 1, place=out, run_id="another")
    RunDirectory(run, World(), keys=[KEY]).write(replace(record(run), checkpoints=(str(out),)))
    status, said = start()
    assert (status, f"{out} holds checkpoints of other runs only (another)" in said) == (STARTED, True)


# Set back


def test_the_newest_checkpoint_was_deleted(known, start):  # noqa: F811
    """The floor knows of a newer one: how many steps are missing is said, and an older state is not resumed
    from without --accept-rollback, which holds from then on."""
    remove(save(known).entries()[0])
    status, said = start()
    assert status == EXIT_UNUSABLE
    assert "step 3 (generation 3)" in said
    assert "step 2 (generation 2), 1 step less" in said
    assert start()[0] == EXIT_UNUSABLE
    assert start("--accept-rollback")[0] == STARTED
    assert start()[0] == STARTED


def test_an_older_copy_of_the_whole_directory(known, start, tmp_path):  # noqa: F811
    """The seals of an older copy are right, and yet it is not what the run has come to."""
    shutil.copytree(known, tmp_path / "backup", symlinks=True)
    save(known, 4)
    assert start()[0] == STARTED
    shutil.rmtree(known)
    (tmp_path / "backup").rename(known)
    status, said = start()
    assert (status, "this run was set back" in said) == (EXIT_UNUSABLE, True)


def test_a_damaged_newest_checkpoint_is_no_deletion(known, start):  # noqa: F811
    """A warning names one that is damaged, in its place or set aside, and the run falls back as always. An
    intact one that somebody has moved to the quarantine was not set aside by us."""
    entry = save(known).entries()[0]
    whole = entry.path.read_bytes()
    entry.path.write_bytes(whole + b"x")
    status, said = start()
    assert (status, "but is damaged" in said) == (STARTED, True), said
    open_store(known, World(), Sealing("AES-GCM", KEY), record(known).run_id).recover()
    aside = layout.quarantine_directory(known) / entry.name
    assert aside.exists()
    status, said = start()
    assert (status, "but is damaged" in said) == (STARTED, True), said
    aside.write_bytes(whole)
    assert start()[0] == EXIT_UNUSABLE
    # The floor was not lowered meanwhile.
    aside.rename(entry.path)
    aside.with_suffix(".manifest").rename(entry.manifest_path)
    status, said = start()
    assert (status, "but is damaged" in said) == (STARTED, False)


def test_all_were_set_aside(known, start):  # noqa: F811
    """Each one is named, at the second start too: it is no volume that is not mounted."""
    damaged = open_store(known, World(), Sealing("AES-GCM", KEY), record(known).run_id)
    names = [entry.name for entry in damaged.entries()]
    for entry in damaged.entries():
        entry.path.write_bytes(entry.path.read_bytes() + b"x")
    damaged.recover()
    assert not damaged.entries()
    status, said = start()
    assert status == EXIT_UNUSABLE
    assert f"set aside in quarantine/: {', '.join(sorted(names))} (" in said


def test_what_is_no_rollback(known, start, tmp_path, home):  # noqa: F811
    """Retention, a rekey, a move, a copy that goes on by itself, a run moved aside and back, an unreadable
    floor, another machine: none of them is taken for one."""
    for entry in save(known).entries()[1:]:
        remove(entry)
    assert start()[0] == STARTED  # retention keeps the newest
    moved = known.rename(tmp_path / "moved")
    status, said = start(root=moved)
    assert status == STARTED, said
    remove(save(moved).entries()[0])
    assert start(root=moved)[0] == EXIT_UNUSABLE  # the floor has moved with it
    assert start("--accept-rollback", root=moved)[0] == STARTED
    save(moved, 7, 8)
    shutil.copytree(moved, known)
    assert start(root=moved)[0] == STARTED
    save(known, 9, 10, 11)
    assert start()[0] == STARTED  # the copy is ahead now
    assert start(root=moved)[0] == STARTED
    status, said = start("--fresh", "--archive", root=moved)
    assert status == STARTED
    shutil.rmtree(moved)
    (tmp_path / "moved.archived-1").rename(moved)
    assert start(root=moved)[0] == STARTED
    [path] = [p for p in (home / "resilient" / "floors").iterdir() if record(moved).run_id in p.read_text()]
    content = json.loads(path.read_text())
    there = {
        h.replace(os.uname().nodename, "node7"): {**v, "checkpoint/rank_0": [99, 99, "CKP"]}
        for h, v in content["homes"].items()
    }
    path.write_text(json.dumps({**content, "homes": {**content["homes"], **there}}))
    status, said = start(root=moved)
    assert (status, "on node7 this run had come further" in said) == (STARTED, True)
    path.write_text("{")
    status, said = start(root=moved)
    assert (status, "cannot read" in said) == (STARTED, True)


def test_another_name_of_the_directory(known, start, tmp_path, home):  # noqa: F811
    """A link leads to the run: under either name the floor is the same, also the one that an earlier version
    has noted under the name of the link. Accepted once, it is accepted."""
    (tmp_path / "here").symlink_to(".")
    alias = tmp_path / "here" / "run"
    shutil.copytree(known, tmp_path / "backup", symlinks=True)
    save(known, 4, 5)
    assert start(root=alias)[0] == STARTED

    def set_back():
        shutil.rmtree(known)
        shutil.copytree(tmp_path / "backup", known, symlinks=True)

    set_back()
    for root in (known, alias):
        status, said = start(root=root)
        assert (status, "step 5 (generation 5)" in said) == (EXIT_UNUSABLE, True)
    [path] = (home / "resilient" / "floors").iterdir()
    content = json.loads(path.read_text())
    [(name, heights)] = content["homes"].items()
    older = {name: {"checkpoint/rank_0": [1, 1, "CKP"]}, name.replace(str(known), str(alias)): heights}
    path.write_text(json.dumps({**content, "homes": older}))
    assert start(root=alias)[0] == EXIT_UNUSABLE
    assert start("--accept-rollback", root=alias)[0] == STARTED
    for root in (known, alias):
        assert start(root=root)[0] == STARTED


def test_a_rekeyed_run_is_as_far_as_it_was(known, start, tmp_path):  # noqa: F811
    """Copies keep their generation. Under the new key the floor still counts, whichever key sealed it."""
    new = tmp_path / "new"
    new.write_text("03" * 32)
    new.chmod(0o600)
    sealing = Sealing("AES-GCM", b"\x03" * 32, (KEY,))
    rekeying = Rekey(World(), sealing, [open_store(known, World(), sealing, record(known).run_id)])
    list(rekeying.run(RunDirectory(known, World()), record(known), []))
    assert rekeying.finished
    assert start("--key-file", str(new))[0] == STARTED
    remove(save(known, key=b"\x03" * 32).entries()[0])
    assert start("--key-file", str(new))[0] == EXIT_UNUSABLE


def test_whatever_a_write_of_the_floor_raises_is_named_once_and_the_next_is_tried(known, home):  # noqa: F811
    """Also a fault of our own: the thread goes on."""
    told, tried = [], threading.Semaphore(0)

    class Faulty(FloorFile):
        def write(self, *words, **more):
            tried.release()
            raise ValueError("a fault")

    keeper = FloorKeeper(Faulty(World(), home, record(known).run_id, [KEY]), known, {})
    news = messages_said.saved(4, directory=str(rank_folder(known)), generation=4)
    for step in range(2):
        keeper.hear(replace(news, step=step), told.append)
        assert tried.acquire(timeout=30)
    keeper.close()
    keeper.hear(news, told.append)
    assert len(told) == 1
    assert "ValueError: a fault" in told[0]


def test_a_home_that_cannot_be_written(known, start, home, monkeypatch):  # noqa: F811
    """The run starts, with one warning that nobody would notice if it were set back."""
    forget(home)
    (home / "resilient" / "floors").write_text("a file in the way")
    assert start()[0] == STARTED
    told = []
    file = FloorFile(World(), home, record(known).run_id, [KEY])
    keeper = FloorKeeper(file, known, {})
    news = messages_said.saved(4, directory=str(rank_folder(known)), generation=4)
    keeper.hear(news, told.append)
    keeper.close()
    keeper.hear(news, told.append)
    keeper.hear(news, told.append)
    assert len(told) == 1
    assert "cannot be written" in told[0]


def test_the_floor_follows_what_is_acknowledged(tmp_path):
    """Each folder has its own height, which never sinks; other values change none."""
    file = FloorFile(World(), tmp_path / "home", "run-1", [KEY])
    keeper = FloorKeeper(file, tmp_path / "run", {})
    for generation, directory in ((2, "run/checkpoint/rank_0"), (1, "run/checkpoint/rank_0"), (5, "out")):
        folder = str(tmp_path / directory)
        keeper.hear(messages_said.saved(generation * 10, f"{generation}.ckpt", folder, generation), print)
    keeper.hear(messages_said.saved(9, "x"), print)
    keeper.hear(messages_said.resumed(9, "x"), print)
    keeper.close()
    found = file.read()
    assert found is not None
    assert found.homes == {
        floors.home_of(tmp_path / "run"): {
            "checkpoint/rank_0": floors.Height(2, 20, "2.ckpt"),
            str(tmp_path / "out"): floors.Height(5, 50, "5.ckpt"),
        }
    }
    assert found.seal is floors.Seal.SEALED
    assert FloorFile(World(), tmp_path / "home", "run-1", [b"\x02" * 32]).read().seal is floors.Seal.LOCKED
    assert file.path.stat().st_mode & 0o777 == 0o600
    assert Path(keys.default_path(tmp_path / "home", "AES-GCM")).parent == file.path.parent.parent
