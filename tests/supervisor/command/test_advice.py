"""Every refusal says what to do, and whoever follows it gets on: no advice leads to another refusal."""

from __future__ import annotations

import json
import re
import shutil
import textwrap
from dataclasses import replace

import pytest
from test_trust import KEY, STARTED, edit, home, plant, record, remove, run, save, start  # noqa: F401

from resilient.config import Sealing
from resilient.errors import EXIT_UNUSABLE, EXIT_USAGE
from resilient.host.world import World
from resilient.run import rundir
from resilient.run.rundir import RunDirectory
from resilient.store.opening import open_store

OPTIONS = re.compile(r"--fresh --archive|--run-dir|--(?:accept|old-key|no-encrypt|extend)[-a-z]*")

TRAINS = """
    import contextlib, sys
    from pathlib import Path
    from resilient.errors import CorruptError
    from resilient.worker.session.session import current
    from resilient.policy.settings import Settings

    me = current()
    # The tests' checkpoints hold no training.
    with contextlib.suppress(CorruptError):
        me.recover(me.open(Settings(directory={directory})))
    sys.exit(9)
"""
"""A script that looks for what to resume from as a training does, and whose status tells that it was let."""


@pytest.fixture(autouse=True)
def script(run):  # noqa: F811
    """Writes the script: one that keeps its checkpoints in this directory, by default the run's own."""

    def write(directory=None):
        content = TRAINS.format(directory=f"Path({str(directory)!r})" if directory else None)
        run.with_name("train.py").write_text(textwrap.dedent(content))

    write()
    return write


@pytest.fixture
def walk(run, start, home, tmp_path):  # noqa: F811
    """Demands that a start is refused, again and again, with this advice, and that each piece of it works."""

    def restore(kept):
        for name in ("run", "home", "out"):
            shutil.rmtree(tmp_path / name, ignore_errors=True)
            if (kept / name).exists():
                shutil.copytree(kept / name, tmp_path / name, symlinks=True)
        for archived in tmp_path.glob("run.archived-*"):
            shutil.rmtree(archived)

    def advice(*advised, given=(), refused=EXIT_UNUSABLE):
        for _ in range(2):
            status, said = start(*given)
            assert status == refused, said
            assert set(OPTIONS.findall(said)) == set(advised), said
        kept = tmp_path / "kept"
        shutil.copytree(tmp_path, kept, ignore=shutil.ignore_patterns("kept"), symlinks=True)
        for option in advised:
            if option == "--old-key-file":
                words = [*given, option, str(home / "resilient" / "key")]
            elif option == "--run-dir":
                words = [*given, option, str(tmp_path / "elsewhere")]
            else:
                words = [*given, *option.split()]
            status, said = start(*words)
            assert status == STARTED, f"{option}: {said}"
            restore(kept)

    return advice


@pytest.fixture
def known(run, start):  # noqa: F811
    """A run with the checkpoints of steps 1 to 3, which its record and the floor know."""
    assert start()[0] == STARTED
    save(run, 1, 2, 3)
    assert start()[0] == STARTED
    return run


def test_a_script_that_names_a_new_directory(known, script, walk, tmp_path):
    """The checkpoints are where the script kept them before, and it looks elsewhere now: refused at each
    start, as long as nobody has accepted it."""
    script(tmp_path / "out")
    walk("--accept-rollback", "--fresh --archive")


def test_it_is_accepted_once(known, script, start, tmp_path):  # noqa: F811
    """A run that begins anew in another directory, as the user has said, goes on there at the next start,
    and names where the older checkpoints are."""
    script(tmp_path / "out")
    status, said = start("--accept-rollback")
    assert (status, f"there are checkpoints in {known}; it begins from step 1" in said) == (STARTED, True), (
        said
    )
    status, said = start()
    assert (status, f"it has some in {known}" in said) == (STARTED, True), said


def test_nothing_is_there(known, walk):
    """All checkpoints are gone."""
    shutil.rmtree(known / "checkpoint")
    walk("--accept-rollback", "--fresh --archive")


def test_nothing_is_there_and_the_floor_is_gone(known, home, walk):  # noqa: F811
    """Only the record knows that there were some."""
    shutil.rmtree(known / "checkpoint")
    shutil.rmtree(home / "resilient" / "floors")
    walk("--accept-rollback", "--fresh --archive")


def test_the_newest_is_gone(known, walk):
    """The run was set back."""
    remove(save(known).entries()[0])
    walk("--accept-rollback")


def test_all_are_damaged(known, walk):
    """None of them can be used: the worker finds that, and the next start what it has set aside."""
    for entry in save(known).entries():
        entry.path.write_bytes(entry.path.read_bytes() + b"x")
    open_store(known, World(), Sealing("AES-GCM", KEY), record(known).run_id).recover()
    walk("--accept-rollback", "--fresh --archive")


def test_all_are_damaged_in_their_place(known, start, walk):  # noqa: F811
    """The same, before anything was set aside."""
    for entry in save(known).entries():
        entry.path.write_bytes(entry.path.read_bytes() + b"x")
    status, said = start()
    assert (status, "no checkpoint of this run can be used" in said) == (EXIT_UNUSABLE, True)
    assert OPTIONS.findall(said) == ["--accept-rollback", "--fresh --archive"]
    walk("--accept-rollback", "--fresh --archive")


def test_the_record_of_another_run(known, start, walk, tmp_path):  # noqa: F811
    """All checkpoints are strangers'."""
    assert start(root=tmp_path / "other")[0] == STARTED
    shutil.copy(tmp_path / "other" / "run.json", known / "run.json")
    walk("--run-dir", "--fresh --archive")


def test_a_record_that_was_changed(known, walk):
    """The key does not vouch for it."""
    edit(known, seed=7)
    walk("--accept-unsealed", "--fresh --archive")


@pytest.mark.parametrize("strip", [False, True])
def test_a_record_that_names_other_places(known, walk, strip):
    """It was changed so that it no longer tells where the checkpoints are."""
    edit(known, strip=strip, checkpoints=["/somewhere"], saved=False)
    walk("--accept-unsealed", "--fresh --archive")


def test_all_checkpoints_are_unencrypted(run, start, walk):  # noqa: F811
    """The run was one without encryption, and it is started with a key."""
    assert start("--no-encrypt")[0] == STARTED
    save(run, 1, 2, key=None)
    walk("--accept-plain", "--no-encrypt")


def test_the_newest_checkpoints_are_unencrypted(run, start, walk):  # noqa: F811
    """An earlier version has written the record; older checkpoints are encrypted."""
    RunDirectory(run, World()).open({"plain": True})
    save(run, 1, proven=False)
    save(run, 2, key=None)
    walk("--accept-plain", "--no-encrypt")


def test_another_key(known, walk, tmp_path):
    """The checkpoints were made with a key that was not given."""
    other = tmp_path / "other.key"
    other.write_text("02" * 32)
    other.chmod(0o600)
    walk("--old-key-file", given=("--key-file", str(other)))


def test_no_key_at_all(known, walk):
    """--no-encrypt for a run that was encrypted."""
    walk("--old-key-file", given=("--no-encrypt",))


def complete(run, **changes):  # noqa: F811
    directory = RunDirectory(run, World(), keys=[KEY])
    directory.write(replace(record(run), status=rundir.COMPLETE, **changes))


def test_a_complete_run_whose_checkpoints_are_gone(known, walk):
    """Its record does not fit what lies around it."""
    complete(known)
    shutil.rmtree(known / "checkpoint")
    walk("--accept-rollback", "--fresh --archive")


def test_a_complete_run_that_was_set_back(known, walk):
    """The newest checkpoint is gone."""
    complete(known)
    remove(save(known).entries()[0])
    walk("--accept-rollback", "--fresh --archive")


def test_a_complete_record_beside_the_checkpoints_of_another_run(known, start, walk, tmp_path):  # noqa: F811
    """There is nothing that --accept-rollback could resume from: it is not named."""
    assert start(root=tmp_path / "other")[0] == STARTED
    complete(tmp_path / "other")
    shutil.copy(tmp_path / "other" / "run.json", known / "run.json")
    walk("--run-dir", "--fresh --archive")


def test_a_complete_run_of_another_command(known, walk):
    """Nothing was run now."""
    complete(known, command=("train.py", "--epochs", "3"))
    walk("--extend", "--fresh --archive", "--run-dir", refused=EXIT_USAGE)


def test_a_record_that_is_no_json(known, walk):
    """It is damaged."""
    (known / "run.json").write_text("{")
    walk("--fresh --archive")


def test_checkpoints_without_a_record(known, walk):
    """Nobody tells whose they are."""
    (known / "run.json").unlink()
    walk("--run-dir", "--fresh --archive")


def test_a_journal_that_tells_of_saves(known, walk):
    """run.json and the checkpoints are gone."""
    with open(known / "journal.jsonl", "a") as journal:
        journal.write(json.dumps({"event": "saved", "step": 3}) + "\n")
    (known / "run.json").unlink()
    shutil.rmtree(known / "checkpoint")
    walk("--accept-rollback", "--fresh --archive")


def test_a_run_in_the_way(known, walk):
    """--fresh alone."""
    walk("--fresh --archive", given=("--fresh",), refused=EXIT_USAGE)
