"""Whatever is named, and whatever lies in a run's directory: every command ends in words, no traceback."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from test_tools_adopt import stock_file
from tool_runs import draft, every_file, key_file, make_run

from resilient.config import Sealing
from resilient.host.world import World
from resilient.store import manifest, pins
from resilient.tools import main

LONG = "x" * 5000
LINES = [
    {"event": "run", "time": 1.0, "monotonic": 1.0, "run_id": "r", "command": ["a"], "pid": 4},
    {"event": "attempt", "time": 2.0, "monotonic": 2.0, "attempt": 1, "pid": 5},
    {
        "event": "saved",
        "time": 3.0,
        "monotonic": 3.0,
        "step": 3,
        "epoch": 1,
        "file": "f",
        "reason": "request",
    },
]


@pytest.mark.parametrize(
    "words",
    [
        ("ls", LONG),
        ("ls", ""),
        ("status", LONG),
        ("ls", "/dev/null"),
        ("export", "run", "--out", f"{LONG}/a.ckpt"),
        ("export", "run", "--rank", "9" * 400, "--out", "a.ckpt"),
        ("export", "run", "--step", "9" * 400, "--out", "a.ckpt"),
        ("pin", "run", "9" * 5000),
        ("pin", "run", "/"),
        ("unpin", "run", ""),
        ("key", "make", ""),
        ("key", "make", f"{LONG}/key"),
        ("key", "id", LONG),
        ("adopt", LONG, "--run-dir", "new"),
        ("adopt", "stock", "--run-dir", "new", "--file", LONG),
        ("adopt", "stock", "--run-dir", "new", "--no-encrypt", "--steps-per-epoch", "9" * 300),
        ("adopt", "huge", "--run-dir", "new", "--no-encrypt", "--steps-per-epoch", "1"),
        ("adopt", "nowhere", "--run-dir", "new", "--no-encrypt"),
    ],
    ids=lambda words: " ".join(words)[:40],
)
def test_names_and_numbers_that_nothing_has(tool, words):
    """Bad usage, in words, and nothing is made or changed by it."""
    make_run("run")
    stock_file("stock/CKP-2_3.ckpt", 5)
    Path("huge").mkdir()
    shutil.copy("stock/CKP-2_3.ckpt", f"huge/CKP-{'9' * 100}_1.ckpt")
    Path("nowhere").mkdir()
    os.symlink("gone", "nowhere/CKP-2_3.ckpt")
    before = every_file(".")
    tool(*words, status=64)
    assert len(tool.err.splitlines()) == 1
    after = {path: data for path, data in every_file(".").items() if not path.name.endswith("lock")}
    assert after == before


def test_a_path_that_the_system_refuses_is_told(tool, monkeypatch):
    """Where nobody foresaw it: the system's own words and the path, and no traceback."""
    make_run("run")
    monkeypatch.setattr(json, "loads", lambda *_: os.stat("/proc/nowhere"))
    tool("ls", "run", status=1)
    assert tool.err == "resilient: No such file or directory: /proc/nowhere\n"


def damages():
    """Ways to spoil a path."""

    def gone(path):
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    def loop(path):
        gone(path)
        os.symlink(path.name, path)

    def endless(path):
        gone(path)
        os.symlink("/dev/zero", path)

    def pipe(path):
        gone(path)
        os.mkfifo(path)

    def folder(path):
        gone(path)
        path.mkdir()

    def nested(path):
        gone(path)
        path.write_bytes(b"[" * 100_000)

    return gone, loop, endless, pipe, folder, nested


COMMANDS = [
    *(("ls",), ("verify",), ("status",), ("explain",), ("stop",), ("save",)),
    *(("export", "--out", "out.ckpt", "--force"), ("pin", "15"), ("rekey", "--no-encrypt")),
]


@pytest.fixture
def run(tmp_path):
    """A run with everything that a run's directory can hold; and the words that name its key."""
    key, path = key_file(tmp_path, "key")
    store = make_run("whole", Sealing("AES-GCM", key), weights=True)
    pins.pin(World().files, store.entries()[1], "0" * 16)
    Path("whole/journal.jsonl").write_text("\n".join(map(json.dumps, LINES)) + "\n")
    Path("whole/lock").write_text(json.dumps({"pid": 1, "boot_id": "another"}))
    for name in ("quarantine/CKP_rank_0-9_9.reason.txt", "logs/attempt_0001/rank_0.log"):
        path_there = Path("whole", name)
        path_there.parent.mkdir(parents=True)
        path_there.write_text("run x\n")
    return path


@pytest.mark.parametrize("spoil", damages(), ids=lambda spoil: spoil.__name__)
def test_a_directory_of_which_a_part_is_spoilt(run, capfd, spoil):
    """Each file and folder in turn: every command says what it has to say, and ends."""
    for place in sorted(path.relative_to("whole") for path in Path("whole").rglob("*")):
        shutil.rmtree("run", ignore_errors=True)
        shutil.copytree("whole", "run")
        spoil(Path("run", place))
        for name, *more in COMMANDS:
            own = "--old-key-file" if name == "rekey" else "--key-file"
            keys = [] if name in ("status", "explain", "stop", "save") else [own, str(run)]
            status = main([name, "run", *more, *keys])
            said = capfd.readouterr()
            assert status in (0, 1, 64), (place, name)
            assert said.out or said.err, (place, name)


@pytest.mark.parametrize("prefix", ["/", "\ud800", "\0", "..", ""])
def test_a_manifest_that_anybody_has_written_names_no_file(tool, prefix):
    """Without encryption its fields may be anything: what is sealed anew keeps the name that it has."""
    store = make_run("run", steps=())
    entry = store.commit(draft(5))
    inner = {**json.loads(entry.manifest_path.read_bytes())["manifest"], "prefix": prefix}
    entry.manifest_path.write_bytes(manifest._file_of(inner, manifest._mac(inner, None).hex()))
    tool("key", "make", "new")
    assert "CKP_rank_0_1-1_5.ckpt  sealed anew" in tool("rekey", "run", "--key-file", "new")
    assert "all ok" in tool("verify", "run", "--key-file", "new")


def test_a_name_that_no_checkpoint_is_given_is_set_aside(tool):
    """Nor does it become the name of anything: it is damage, and goes to the quarantine."""
    store = make_run("run", steps=())
    entry = store.commit(draft(5))
    inner = {**json.loads(entry.manifest_path.read_bytes())["manifest"], "file_name": "mine.ckpt"}
    data = manifest._file_of(inner, manifest._mac(inner, None).hex())
    os.rename(entry.path, entry.path.with_name("mine.ckpt"))
    entry.manifest_path.with_name("mine.manifest").write_bytes(data)
    entry.manifest_path.unlink()
    tool("key", "make", "new")
    assert "mine.ckpt  BAD" in tool("rekey", "run", "--key-file", "new", status=1)
    assert Path("run/quarantine/mine.ckpt").exists()
