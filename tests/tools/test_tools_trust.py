"""What the tools say of a run directory that somebody without the key has changed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from tool_runs import draft, key_file, make_run

from resilient.codec import keys
from resilient.config import Sealing
from resilient.host.world import World
from resilient.run.floor import FloorFile, Height
from resilient.run.rundir import RunDirectory
from resilient.store.opening import open_store


@pytest.fixture
def sealed(tmp_path):
    """A sealed run of three checkpoints, and the words that name its key."""
    key, path = key_file(tmp_path, "key")
    store = make_run("run", Sealing("AES-GCM", key))
    directory = RunDirectory(Path("run").absolute(), World(), keys=[key])
    directory.write(directory.read())
    return key, store, ("--key-file", path)


def plant(store):
    """A newer checkpoint that somebody has made without the key."""
    run_id = RunDirectory(Path("run"), World()).read().run_id
    made = open_store(Path("attacker"), World(), Sealing(), run_id)
    for step in range(1, 10):
        made.commit(draft(step * 11))
    entry = made.entries()[0]
    for path in (entry.path, entry.manifest_path):
        shutil.copy(path, store.directory)
    return entry


def edit(**changes):
    path = Path("run/run.json")
    content = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({name: value for name, value in content.items() if value != "gone"}))


@pytest.mark.parametrize("forged", [{}, {"plain": True, "key_id": None, "mode": None}])
@pytest.mark.parametrize("strip", [False, True])
def test_planted_weights_are_not_ok(tool, sealed, forged, strip):
    """ls shows them as unproven, verify does not call them ok, nothing exports them, and rekey does not seal
    them with the run's key: whatever run.json says."""
    key, store, words = sealed
    entry = plant(store)
    edit(**forged, **({"seal": "gone"} if strip else {}))
    rows = {Path(row["file"]).name: row for row in tool.json("ls", "run", *words, status=1)}
    assert (rows[entry.name]["state"], rows[entry.name]["valid"]) == ("unproven", None)
    assert [row["state"] for row in rows.values()].count("ok") == 3
    assert ("cannot be believed" in tool.err) == bool(forged and not strip)
    for more in ((), ("--quick",)):
        states = {line["file"]: line["state"] for line in tool.json("verify", "run", *words, *more, status=1)}
        assert (states[entry.name], len(states)) == ("unproven", 4)
    tool("verify", "run", status=1)
    assert f"{entry.name}  unproven" in tool.out
    tool("export", "run", "--out", "out.ckpt", "--step", "99", *words, status=64)
    _, new = key_file(".", "new")
    old = ("--old-key-file", words[1])
    tool("rekey", "run", *old, "--key-file", new, status=1)
    assert {
        e.step for e in open_store(Path("run"), World(), Sealing("AES-GCM", key), store_id()).entries()
    } == {
        5,
        10,
        15,
    }


def store_id():
    return RunDirectory(Path("run"), World()).read().run_id


def test_rekey_seals_the_record_and_the_floor(tool, sealed, tmp_path):
    """After a rekey the new key alone vouches for run.json, and for how far the run has come."""
    key, _, words = sealed
    FloorFile(World(), tmp_path / "home", store_id(), [key]).write(
        Path("run").absolute(), {"checkpoint/rank_0": Height(3, 15, "x")}
    )
    new, path = key_file(tmp_path, "new")
    tool("rekey", "run", "--old-key-file", words[1], "--key-file", path)
    directory = RunDirectory(Path("run"), World())
    assert directory.look([new]).seal.name == "SEALED"
    assert directory.look([key]).seal.name == "LOCKED"
    assert FloorFile(World(), tmp_path / "home", store_id(), [new]).read().seal.name == "SEALED"
    tool("verify", "run", "--key-file", path)
    tool("rekey", "run", "--old-key-file", path, "--no-encrypt")
    assert directory.look([new]).seal.name == "UNSEALED"
    tool("verify", "run")


def test_a_run_without_encryption_is_as_it_was(tool, tmp_path):
    """Its checkpoints are ok, also for somebody who has a key of his own."""
    make_run("run")
    keys.default_key(tmp_path / "home", "AES-GCM")
    assert "all ok" in tool("verify", "run")
    assert "unproven" not in tool("ls", "run")
