"""resilient key, pin and unpin."""

from __future__ import annotations

import os
import stat
from functools import partial

import pytest
from tool_runs import draft, every_file, key_file, make_run

from resilient.codec import keys
from resilient.config import KeepPolicy, Sealing
from resilient.host.world import World
from resilient.policy import retention
from resilient.run.rundir import RunDirectory


def test_a_key_is_made_for_you_alone(tool, tmp_path):
    """32 bytes, mode 0600, another one each time; its id is told and the key is not."""
    for name in ("one", "two"):
        line = tool("key", "make", name)
        made = keys.from_file(tmp_path / name, "AES-GCM")
        assert len(made) == 32
        assert keys.key_id(made) in line
        assert made.hex() not in line + tool.err
        assert stat.S_IMODE(os.stat(name).st_mode) == 0o600
    assert keys.from_file(tmp_path / "one", "AES-GCM") != keys.from_file(tmp_path / "two", "AES-GCM")
    [facts] = tool.json("key", "make", "three", "--sm4")
    small = keys.from_file(tmp_path / "three", "SM4-CBC")
    assert facts == {"file": "three", "key_id": keys.key_id(small), "bytes": 16}
    assert sorted(os.listdir()) == ["one", "three", "two"], "nothing half-made stays"


def test_a_key_is_never_overwritten(tool, tmp_path):
    """A name that is taken, by a file, a link or a directory, and a folder that is not there: bad usage."""
    tool("key", "make", "key")
    before = (tmp_path / "key").read_bytes()
    os.symlink("nowhere", "link")
    os.mkdir("folder")
    for name in ("key", "link", "folder", "missing/key"):
        tool("key", "make", name, status=64)
    assert (tmp_path / "key").read_bytes() == before
    assert not (tmp_path / "nowhere").exists()


def test_ids_of_keys(tool, tmp_path):
    """The id of each file's key; without a file that of one's own, which is not made by asking."""
    made = [key_file(tmp_path, "a"), key_file(tmp_path, "b", 16)]
    found = tool.json("key", "id", "a", "b")
    assert [line["key_id"] for line in found] == [keys.key_id(key) for key, _ in made]
    tool("key", "id", status=64)
    assert "you have no key yet" in tool.err
    assert not (tmp_path / "home").exists()
    (tmp_path / "home" / "resilient").mkdir(parents=True)
    own, _ = key_file(tmp_path / "home" / "resilient", "key")
    assert keys.key_id(own) in tool("key", "id")


@pytest.mark.parametrize("content", [b"", b"half a secret", b"x" * 4000])
def test_what_is_no_key(tool, tmp_path, content):
    """No key, no file, or one that others can read, is bad usage; its content is not said."""
    path = tmp_path / "no"
    path.write_bytes(content)
    path.chmod(0o600)
    tool("key", "id", path, status=64)
    assert content == b"" or content.decode() not in tool.err
    path.chmod(0o644)
    tool("key", "id", path, status=64)
    assert "chmod 600" in tool.err
    tool("key", "id", "missing", status=64)


def prune(store, count):
    store.prune(partial(retention.kept, KeepPolicy(max_count=count)))


def test_a_pinned_checkpoint_survives_retention(tool):
    """Pinned by step or by name, it stays; unpinned it goes."""
    store = make_run("run")
    assert "step 5, CKP_rank_0-1_5.ckpt: pinned" in tool("pin", "run", 5)
    assert "was pinned already" in tool("pin", "run", "CKP_rank_0-1_5")
    prune(store, 1)
    assert [entry.step for entry in store.entries()] == [15, 5]
    assert tool.json("unpin", "run", "run/checkpoint/rank_0/CKP_rank_0-1_5.ckpt")[0]["pinned"] is False
    assert "was not pinned" in tool("unpin", "run", 5)
    prune(store, 1)
    assert [entry.step for entry in store.entries()] == [15]


def test_the_newest_of_a_step_is_meant(tool):
    """Of two checkpoints of one step, the step's number means the newer one; each name means its own."""
    store = make_run("run")
    store.commit(draft(15, failure=True, reason="exception"))
    assert "CKP_rank_0-2_7_breakpoint.ckpt: pinned" in tool("pin", "run", 15)
    assert "CKP_rank_0-2_7.ckpt: pinned" in tool("pin", "run", "CKP_rank_0-2_7.ckpt")
    assert sum(row["pinned"] for row in tool.json("ls", "run")) == 2


@pytest.mark.parametrize("word", ["7", "CKP_rank_0-9_9.ckpt", "run.json", "", "../run.json", "-5"])
def test_what_is_not_there_cannot_be_pinned(tool, word):
    """A step or a name that is not there changes nothing, not even for those named beside it."""
    make_run("run")
    before = every_file("run/checkpoint")
    tool("pin", "run", "5", "--", word, status=64)
    assert every_file("run/checkpoint") == before
    if word == "7":
        assert "there are the steps 5, 10, 15" in tool.err


def test_bad_ones_cannot_be_pinned(tool, tmp_path):
    """A checkpoint that cannot be used is told as that; without any, that is said."""
    key, path = key_file(tmp_path, "key")
    store = make_run("run", Sealing("AES-GCM", key))
    tool("pin", "run", "5", status=64)
    assert "3 more cannot" in tool.err
    os.truncate(store.entries()[0].path, 10)
    tool("pin", "run", "CKP_rank_0-2_7.ckpt", "--key-file", path, status=64)
    assert "bytes instead of" in tool.err


def test_a_run_in_use_is_not_touched(tool, tmp_path):
    """While a process works on the run, whoever it is is named, and nothing is pinned."""
    make_run("run")
    lock = RunDirectory(tmp_path / "run", World()).lock()
    for command in ("pin", "unpin"):
        tool(command, "run", 5, status=64)
        assert f"in use by process {os.getpid()}" in tool.err
        assert "ls and verify work while it runs" in tool.err
    lock.release()
    assert tool("pin", "run", 5)
