"""resilient rekey: a run under another key, on a real disk; dying in the middle costs nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tool_runs import CANARY, STEPS, draft, every_file, flip, key_file, make_run, tensor

from resilient.codec import keys
from resilient.codec.tensors import Record
from resilient.config import Sealing
from resilient.host.world import World
from resilient.run.rundir import RunDirectory
from resilient.store.opening import open_store


@pytest.fixture
def two(tmp_path):
    """A run under the key ``old``, and a second key."""
    old, new = (key_file(tmp_path, name) for name in ("old", "new"))
    make_run("run", Sealing("AES-GCM", old[0]), weights=True)
    return old, new


def record():
    return json.loads(Path("run/run.json").read_text())


def test_from_the_old_to_the_new_key(tool, two):
    """Every checkpoint and every weights file; run.json names the new key; the old one opens nothing."""
    (_, old), (new_key, new) = two
    out = tool("rekey", "run", "--old-key-file", old, "--key-file", new)
    assert out.count("sealed anew") == 2 * len(STEPS) + 1
    assert f"key {keys.key_id(new_key)}" in out
    assert f"--key-file {new}" in out.splitlines()[-1]
    assert record()["key_id"] == keys.key_id(new_key)
    assert "all ok" in tool("verify", "run", "--key-file", new)
    assert [row["step"] for row in tool.json("ls", "run", "--key-file", new)] == [15, 10, 5]
    tool("ls", "run", "--key-file", old, status=1)
    assert "there was nothing to do" in tool("rekey", "run", "--old-key-file", old, "--key-file", new)


def test_from_ones_own_key_and_through_every_mode(tool, tmp_path):
    """The old key need not be named where it is one's own; modes change with --enc-mode."""
    (tmp_path / "home" / "resilient").mkdir(parents=True)
    own, _ = key_file(tmp_path / "home" / "resilient", "key")
    make_run("run", Sealing("AES-GCM", own), weights=True)
    _, a = key_file(tmp_path, "a")
    _, small = key_file(tmp_path, "small", 16)
    tool("rekey", "run", "--key-file", a, "--enc-mode", "AES-CBC")
    tool("rekey", "run", "--old-key-file", a, "--key-file", small, "--enc-mode", "SM4-CBC")
    assert {row["mode"] for row in tool.json("ls", "run", "--key-file", small)} == {"SM4-CBC"}
    tool("rekey", "run", "--old-key-file", small, "--no-encrypt")
    assert "all ok" in tool("verify", "run")
    assert (record()["key_id"], record()["mode"], record()["plain"]) == (None, None, True)
    phrase = tmp_path / "phrase"
    phrase.write_text("correct horse")
    phrase.chmod(0o600)
    tool("rekey", "run", "--passphrase-file", phrase)
    assert "all ok" in tool("verify", "run", "--passphrase-file", phrase)
    assert record()["plain"] is False
    assert not any(CANARY in content for content in every_file("run").values())


def test_blocks_of_full_size(tool, tmp_path):
    """Checkpoints of several real blocks, to no encryption and back: bit for bit."""
    key, path = key_file(tmp_path, "key")
    store = make_run("run", Sealing("AES-GCM", key), steps=())
    content = os.urandom(11 * 1024 * 1024)
    store.commit(draft(1, records=[Record("w", "Int8", (len(content),), content)]))
    for words in (("--old-key-file", path, "--no-encrypt"), ("--key-file", path)):
        tool("rekey", "run", *words)
        assert newest_content(key, len(content)) == content


def newest_content(key, size):
    target = bytearray(size)
    sealing = Sealing(old_keys=(key,))
    store = open_store(Path("run"), World(), sealing, record()["run_id"], allow_plain=True)
    store.load(store.entries()[0], lambda *tensor: memoryview(target))
    return bytes(target)


def test_json(tool, two):
    """One object for each file."""
    (_, old), (_, new) = two
    lines = tool.json("rekey", "run", "--old-key-file", old, "--key-file", new)
    assert [line["ok"] for line in lines] == [True] * 6


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("--key-file", "new", "--no-encrypt"),
        ("--no-encrypt", "--enc-mode", "AES-CBC"),
        ("--key-file", "missing"),
        ("--key-file", "new", "--enc-mode", "SM4-CBC"),
        ("--key-file", "new", "--old-key-file", "missing"),
    ],
)
def test_bad_usage_changes_nothing(tool, two, words):
    """No new key, two of them, one that is no key or not for this mode."""
    before = every_file("run")
    tool("rekey", "run", *words, status=64)
    assert every_file("run") == before


def test_without_the_old_key_nothing_is_changed(tool, two):
    """The checkpoints that cannot be opened are named, and what to do."""
    before = every_file("run")
    tool("rekey", "run", "--key-file", two[1][1], status=1)
    assert "CKP_rank_0-2_7.ckpt" in tool.err
    assert "--old-key-file" in tool.err
    after = every_file("run")
    after = {
        path: content for path, content in after.items() if path.suffix != ".lock" and path.name != "lock"
    }
    assert after == before


def test_a_damaged_checkpoint_is_told(tool, two):
    """It goes to the quarantine, the others are sealed anew, and the exit status is 1."""
    (old_key, old), (_, new) = two
    store = make_run("run", Sealing("AES-GCM", old_key), steps=())
    flip(store.entries()[1].path)
    out = tool("rekey", "run", "--old-key-file", old, "--key-file", new, status=1)
    assert "CKP_rank_0-2_2.ckpt  BAD" in out
    assert "1 file could not be sealed anew" in tool.err
    assert "in quarantine/ under the old key: 1 file" in tool.err
    rows = tool.json("ls", "run", "--key-file", new)
    assert [row.get("step") for row in rows] == [15, 5, None]


def test_a_run_in_use_is_left_alone(tool, two, tmp_path):
    """Nothing is changed while a process works on the run."""
    (_, old), (_, new) = two
    lock = RunDirectory(tmp_path / "run", World()).lock()
    before = every_file("run/checkpoint")
    tool("rekey", "run", "--old-key-file", old, "--key-file", new, status=64)
    assert "in use by process" in tool.err
    assert every_file("run/checkpoint") == before
    lock.release()


def test_a_directory_of_the_scripts_is_locked_too(tool, tmp_path):
    """Checkpoints elsewhere, held by a worker: its lock is respected."""
    old, new = (key_file(tmp_path, name) for name in ("old", "new"))
    make_run("out", Sealing("AES-GCM", old[0]))
    run_id = json.loads(Path("out/run.json").read_text())["run_id"]
    os.remove("out/run.json")
    RunDirectory(tmp_path / "run", World()).open({"run_id": run_id, "checkpoints": (str(tmp_path / "out"),)})
    lock = World().files.lock(tmp_path / "out" / ".rank_0.lock")
    words = ("rekey", "run", "--old-key-file", old[1], "--key-file", new[1])
    tool(*words, status=64)
    lock.release()
    tool(*words)
    assert len(tool.json("ls", "run", "--key-file", new[1])) == 3


# Ends the process before the n-th change of the disk.
DYING = (
    "import os, sys, signal\n"
    "from resilient.host.files import DiskFiles\n"
    "left = [int(sys.argv.pop(1))]\n"
    "def dying(name):\n"
    "    original = getattr(DiskFiles, name)\n"
    "    def method(self, *args):\n"
    "        left[0] -= 1\n"
    "        if left[0] < 0:\n"
    "            os.kill(os.getpid(), signal.SIGKILL)\n"
    "        return original(self, *args)\n"
    "    setattr(DiskFiles, name, method)\n"
    "for name in ('create', 'rename', 'remove', 'sync_directory'):\n"
    "    dying(name)\n"
    "from resilient.tools import main\n"
    "sys.exit(main())\n"
)


@pytest.mark.parametrize("count", range(1, 40, 3))
def test_killed_and_done_again(tool, two, count):
    """SIGKILL before the n-th change of a real disk: both keys open everything, and a second try finishes."""
    (_, old), (_, new) = two
    words = ["rekey", "run", "--old-key-file", str(old), "--key-file", str(new)]
    done = subprocess.run([sys.executable, "-c", DYING, str(count), *words], capture_output=True)
    assert done.returncode == -signal.SIGKILL
    both = ("--key-file", old, "--key-file", new)
    rows = tool.json("ls", "run", *both)
    assert next(row["step"] for row in rows if row["valid"]) == 15
    assert {row["step"] for row in rows} == set(STEPS)
    assert "all ok" in tool("verify", "run", *both)
    tool(*words)
    assert [row["step"] for row in tool.json("ls", "run", "--key-file", new)] == [15, 10, 5]
    left = [name for name in os.listdir("run/checkpoint/rank_0") if name.startswith(".")]
    assert left == []
    assert tensor(5) in _exported(tool, new)


@pytest.mark.parametrize("count", [3, 10, 19, 28])
def test_a_plain_run_gets_a_key_killed_or_not(tool, tmp_path, count):
    """Nothing says that the run was ever encrypted: no option is asked for, not by the second try either."""
    _, path = key_file(tmp_path, "key")
    make_run("run", Sealing(), weights=True)
    words = ["rekey", "run", "--key-file", str(path)]
    done = subprocess.run([sys.executable, "-c", DYING, str(count), *words], capture_output=True)
    assert done.returncode == -signal.SIGKILL
    tool(*words)
    assert [row["step"] for row in tool.json("ls", "run", "--key-file", path)] == [15, 10, 5]
    assert not any(CANARY in content for content in every_file("run").values())


def test_an_interrupted_no_encrypt_asks_for_a_word(tool, two):
    """Copies without a key prove nothing: they are named, and --accept-plain finishes."""
    (_, old), _ = two
    words = ["rekey", "run", "--old-key-file", str(old), "--no-encrypt"]
    subprocess.run([sys.executable, "-c", DYING, "19", *words], capture_output=True)
    tool(*words, status=1)
    assert "--accept-plain" in tool.err
    tool(*words, "--accept-plain")
    assert [row["step"] for row in tool.json("ls", "run")] == [15, 10, 5]


@pytest.mark.parametrize("word", ["old key", "run.json", "another checkpoint"])
def test_where_something_says_that_the_run_is_encrypted(tool, tmp_path, word):
    """An old key that is named, a key in run.json, or a checkpoint of a key: no plain one is sealed."""
    (old_key, old), (_, new) = (key_file(tmp_path, name) for name in ("old", "new"))
    make_run("run", Sealing())
    content = record()
    if word == "run.json":
        key_id = keys.key_id(old_key)
        Path("run/run.json").write_text(json.dumps({**content, "key_id": key_id, "mode": "AES-GCM"}))
    elif word == "another checkpoint":
        make_run("run", Sealing("AES-GCM", old_key), steps=(20,))
    before = every_file("run/checkpoint")
    named = ("--old-key-file", old) if word == "old key" else ()
    tool("rekey", "run", *named, "--key-file", new, status=1)
    assert "not encrypted" in tool.err
    assert every_file("run/checkpoint") == before


def _exported(tool, key):
    tool("export", "run", "--step", 5, "--out", "five.ckpt", "--key-file", key)
    return Path("five.ckpt").read_bytes()


def test_a_directory_that_is_gone_keeps_the_old_key_needed(tool, two, tmp_path):
    """It is not finished until the directory is there again, or is said to be no concern any more."""
    (_, old), (new_key, new) = two
    content = record()
    gone = str(tmp_path / "gone")
    Path("run/run.json").write_text(json.dumps({**content, "checkpoints": [gone]}))
    words = ("rekey", "run", "--old-key-file", old, "--key-file", new)
    tool(*words, status=1)
    assert f"{gone}  BAD: does not exist" in tool.out
    assert "NOT finished" in tool.err
    assert record()["key_id"] == content["key_id"]
    assert "the run is now sealed with" in tool(*words, "--forget-missing")
    assert record()["key_id"] == keys.key_id(new_key)
    assert record()["checkpoints"] == []


def test_what_was_saved_of_other_ranks_is_sealed_anew(tool, two, tmp_path):
    """A run that was once of more ranks: their checkpoints are its own too."""
    (old_key, old), (_, new) = two
    rank_1 = open_store(tmp_path / "run", World(), Sealing("AES-GCM", old_key), record()["run_id"], rank=1)
    rank_1.commit(draft(20))
    tool("rekey", "run", "--old-key-file", old, "--key-file", new)
    assert [row["rank"] for row in tool.json("ls", "run", "--key-file", new)] == [0, 0, 0, 1]
    tool("export", "run", "--rank", "1", "--out", "one.ckpt", "--key-file", new)
