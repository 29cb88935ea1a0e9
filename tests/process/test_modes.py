"""Directories are 0700 and files 0600 whatever the umask; nothing inside a run is opened through a link."""

from __future__ import annotations

import os
import shutil
import stat
from functools import partial

import pytest

from resilient.config import Sealing
from resilient.errors import ResilientError, StorageError
from resilient.host.world import World
from resilient.store import layout
from resilient.store.opening import open_store

pytestmark = pytest.mark.process

SCRIPT = "print('trained')\n"


def modes(folder):
    """What lies in a folder, by name, and itself; with the mode of each."""
    found = [folder, *folder.rglob("*")]
    return {str(path.relative_to(folder)): oct(stat.S_IMODE(path.stat().st_mode)) for path in found}


@pytest.mark.parametrize("umask", [0o000, 0o002, 0o777])
def test_modes_do_not_follow_the_umask(supervise, tmp_path, monkeypatch, umask):
    """Also those of the folders in between, and of the key that is made on the way."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home" / ".config"))
    root = tmp_path / "above" / "between" / "run"
    run = supervise(SCRIPT, "--run-dir", str(root), before=partial(os.umask, umask), sealed=True)
    assert run.end() == 0, run.err()
    expected = {True: "0o700", False: "0o600"}
    for folder in (tmp_path / "above", tmp_path / "home"):
        for name, mode in modes(folder).items():
            assert mode == expected[(folder / name).is_dir()], name
    assert "logs/attempt_0001/rank_0.log" in modes(root)


@pytest.mark.parametrize(
    "name",
    [
        "lock",
        "run.json",
        "journal.jsonl",
        "trials.json",
        "logs",
        "logs/attempt_0001",
        "logs/attempt_0001/rank_0.log",
    ],
)
def test_a_link_that_was_planted_leads_nowhere(supervise, tmp_path, name):
    """No file of a run is made or changed through it, whatever it stands for; no traceback either."""
    elsewhere = tmp_path / "elsewhere"
    planted = tmp_path / "run" / name
    planted.parent.mkdir(parents=True, mode=0o700)
    if "." in name or name == "lock":
        elsewhere.write_text("a stranger's\n")
    else:
        elsewhere.mkdir()
    planted.symlink_to(elsewhere)
    before = modes(elsewhere)
    run = supervise(SCRIPT)
    run.end()
    assert "Traceback" not in run.err()
    assert modes(elsewhere) == before
    assert elsewhere.is_dir() or elsewhere.read_text() == "a stranger's\n"


def test_a_run_directory_may_be_reached_over_links(supervise, tmp_path):
    """`runs -> /data/runs`: above the run's own directory, and for itself, links are the user's."""
    (tmp_path / "data").mkdir(mode=0o700)
    (tmp_path / "run").symlink_to(tmp_path / "data")
    run = supervise(SCRIPT)
    assert run.end() == 0, run.err()
    assert (tmp_path / "data" / "logs" / "attempt_0001" / "rank_0.log").read_text() == "trained\n"


@pytest.mark.parametrize("swapped", ["checkpoint", "checkpoint/rank_0", "quarantine"])
def test_a_folder_that_was_swapped_for_a_link_is_not_entered(tmp_path, swapped):
    """Recovery sets aside what is corrupt: never a stranger's file, and never to where a link leads."""
    root, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    folder = layout.checkpoint_directory(root, 0)
    folder.mkdir(parents=True)
    (folder / "CKP_rank_0-1_1.ckpt").write_bytes(b"torn")
    (folder / "CKP_rank_0-1_1.manifest").write_bytes(b"no manifest")
    elsewhere.mkdir()
    if (root / swapped).exists():
        elsewhere.rmdir()
        shutil.move(root / swapped, elsewhere)
    (root / swapped).symlink_to(elsewhere)
    before = modes(elsewhere)
    store = open_store(root, World(), Sealing(), "r")
    with pytest.raises(StorageError, match="symbolic link"):
        store.recover()
    with pytest.raises(ResilientError, match="symbolic link"):
        store.load_newest(lambda entry: pytest.fail("there is none"))
    assert modes(elsewhere) == before


def test_folders_of_an_older_run_are_closed(tmp_path):
    """What an earlier version has made under umask 000 is ours alone from the next use on."""
    root = tmp_path / "run"
    (root / "logs" / "attempt_0001").mkdir(parents=True)
    for folder in (root / "logs", root / "logs" / "attempt_0001"):
        folder.chmod(0o777)
    open_store(root, World(), Sealing(), "r")
    World().files.make_directory(root / "logs" / "attempt_0001" / "more")
    World().files.make_directory(root / "logs")
    assert stat.S_IMODE((root / "logs").stat().st_mode) == 0o755
    assert stat.S_IMODE((root / "logs" / "attempt_0001").stat().st_mode) == 0o755


def test_a_directory_that_everybody_can_write_is_refused(supervise, tmp_path):
    """64, with what to do; one line names a group, and the run begins."""
    root = tmp_path / "run"
    root.mkdir()
    root.chmod(0o777)
    run = supervise(SCRIPT)
    assert run.end() == 64
    assert f"everybody can write in {root}" in run.err()
    assert f"chmod o-w {root}" in run.err()
    root.chmod(0o770)
    if os.geteuid() == 0:
        # A group of others: that of the user alone is nothing to tell.
        os.chown(root, 0, 4711)
        run = supervise(SCRIPT)
        assert run.end() == 0
        assert run.err().count("everybody in the group 4711 can write") == 1
        os.chown(root, 4711, 0)
        run = supervise(SCRIPT, "--fresh", "--archive")
        assert run.end() == 0
        assert "belongs to user 4711" in run.err()
