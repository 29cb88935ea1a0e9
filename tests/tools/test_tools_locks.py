"""What changes a run holds all of it: whoever still saves there is named, and nothing is changed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from rank_holder import rank_held
from tool_runs import draft, every_file, key_file, make_run

from resilient.config import Sealing
from resilient.host.world import World
from resilient.run import rundir
from resilient.run.rundir import RunDirectory
from resilient.store import layout
from resilient.store.opening import open_store


@pytest.fixture
def run(tmp_path):
    """A run with a second place, its key, and the words of a rekey."""
    (old, old_file), (_, new_file) = key_file(tmp_path, "old"), key_file(tmp_path, "new")
    make_run("run", Sealing("AES-GCM", old), checkpoints=(str(tmp_path / "out"),))
    record = RunDirectory(tmp_path / "run", World()).read()
    open_store(tmp_path / "out", World(), Sealing("AES-GCM", old), record.run_id).commit(draft(20))
    return ["--old-key-file", old_file, "--key-file", new_file]


WORDS = {
    "rekey": lambda keys: ("rekey", "run", *keys),
    "pin": lambda keys: ("pin", "run", "15", "--key-file", keys[1]),
    "unpin": lambda keys: ("unpin", "run", "15", "--key-file", keys[1]),
}


@pytest.mark.parametrize("command", WORDS)
@pytest.mark.parametrize(("place", "rank"), [("run", 0), ("out", 0), ("run", 3), ("out", 11)])
def test_a_rank_that_is_held_is_left_alone(tool, tmp_path, run, command, place, rank):
    """A worker or a saver has outlived its supervisor: it is named, whatever rank and place it saves in."""
    with rank_held(layout.rank_lock(tmp_path / place, rank)) as pid:
        before = [
            every_file("run/checkpoint"),
            every_file("out/checkpoint"),
            Path("run/run.json").read_bytes(),
        ]
        tool(*WORDS[command](run), status=64)
        assert f"process {pid}" in tool.err
        assert f"rank {rank} in {tmp_path / place}" in tool.err
        now = [every_file("run/checkpoint"), every_file("out/checkpoint"), Path("run/run.json").read_bytes()]
        assert now == before
    tool(*WORDS[command](run))


def test_a_run_in_a_shared_place_is_left_alone(tool, tmp_path, run):
    """A process without a supervisor works where this run has checkpoints too: it is waited for."""
    (tmp_path / "out" / "run.json").write_text(json.dumps({"run_id": "another"}))
    lock = RunDirectory(tmp_path / "out", World()).lock()
    before = every_file("run/checkpoint")
    tool("rekey", "run", *run, status=64)
    assert f"{tmp_path / 'out'} is in use by process" in tool.err
    assert every_file("run/checkpoint") == before
    lock.release()
    tool("rekey", "run", *run)


def test_a_lock_whose_holder_cannot_be_told(tool, tmp_path, run):
    """What the lock's file says makes no sense: it is held all the same."""
    lock = World().files.lock(layout.rank_lock(tmp_path / "run", 0), b"\xff nobody")
    tool("pin", "run", "15", "--key-file", run[1], status=64)
    assert "another process, a worker or a saver, still holds" in tool.err
    lock.release()


def test_a_run_is_read_again_once_it_is_held(tool, tmp_path, run, monkeypatch):
    """A run that ends between our first look and the lock: what it has written last is not undone."""
    original = RunDirectory.lock

    def late(directory):
        record = directory.read()
        if record.status != rundir.FAILED:
            lock = original(directory)
            (tmp_path / "late").mkdir()
            changed = [*record.checkpoints, str(tmp_path / "late")]
            content = json.loads((tmp_path / "run" / "run.json").read_text())
            content |= {"status": rundir.FAILED, "checkpoints": changed}
            (tmp_path / "run" / "run.json").write_text(json.dumps(content))
            lock.release()
        return original(directory)

    monkeypatch.setattr(RunDirectory, "lock", late)
    tool("rekey", "run", *run)
    record = RunDirectory(tmp_path / "run", World()).read()
    assert record.status == rundir.FAILED
    assert record.checkpoints[-1] == str(tmp_path / "late")
