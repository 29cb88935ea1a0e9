"""resilient adopt: which file of stock's is taken, where it lies in the run, and what is refused."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path

import pytest
from tool_runs import CANARY, every_file, flip, key_file, make_run

from resilient.codec import container
from resilient.codec.tensors import Record, info_record
from resilient.config import Sealing
from resilient.host.world import World
from resilient.run.rundir import ADOPTING, RunDirectory
from resilient.state.snapshot import decode_extra
from resilient.store.opening import open_store
from resilient.store.weights import write_weights

WEIGHT = CANARY * 30


def stock_file(path, step=None, sealing=None, extra=(), global_step=None):
    """A file as stock writes it; ours without sections and an extra are the same (tests/codec)."""
    records = [Record("weight", "Float32", (len(WEIGHT) // 4,), WEIGHT), *extra]
    if global_step is not None:
        records.append(Record("global_step", "Int32", (1,), struct.pack("<i", global_step)))
    if step is not None:
        records += [info_record("epoch_num", 0), info_record("step_num", step)]
    path = Path(path).absolute()
    world = World()
    write_weights(world.files, path, records, sealing or Sealing(), world.entropy)
    return path


def adopted(key=None):
    """The document, the boundary and the records of the adopted run."""
    record = RunDirectory(Path("run"), World()).read()
    sealing = Sealing(record.mode, key) if key else Sealing()
    store = open_store(Path("run"), World(), sealing, record.run_id)
    found = {}

    def sink(name, dtype, dims, size_bytes, section):
        found[name] = bytearray(size_bytes)
        return memoryview(found[name])

    [entry] = store.entries()
    document, progress = decode_extra(store.load(entry, sink))
    return record, entry, document, progress, {name: bytes(data) for name, data in found.items()}


ADOPT = ("adopt", "folder", "--run-dir", "run", "--no-encrypt")


def test_the_newest_of_stock(tool):
    """By epoch and step in the epoch, not by time or by name; nothing in the folder is changed."""
    for name, step in (("CKP-10_1.ckpt", 73), ("CKP-2_3.ckpt", 11), ("CKP-9_8.ckpt", 72)):
        stock_file(f"folder/{name}", step)
    os.utime("folder/CKP-2_3.ckpt")
    (Path("folder") / "CKP-graph.meta").write_bytes(b"graph")
    before = every_file("folder")
    out = tool(*ADOPT)
    assert "adopted CKP-10_1.ckpt: step 73 (step 1 of 8 in epoch 10)" in out
    assert "resilient-run --run-dir run SCRIPT" in out
    assert every_file("folder") == before
    record, entry, document, progress, found = adopted()
    assert (progress.step, progress.epoch, progress.step_in_epoch, progress.steps_per_epoch) == (73, 10, 1, 8)
    assert (progress.epoch_closed, progress.call_finished, progress.call) == (False, False, 0)
    assert document["adopted"] == "CKP-10_1.ckpt"
    assert document["streams"] == {}
    assert found["weight"] == WEIGHT
    assert (entry.manifest.reason, entry.name, record.status) == (
        "adopted",
        "CKP_rank_0-10_1.ckpt",
        "stopped",
    )
    [row] = tool.json("ls", "run")
    assert (row["step"], row["epoch"], row["reason"]) == (73, 10, "adopted")


def test_a_named_file(tool):
    """--file chooses, by name or by path."""
    for step in (1, 2):
        stock_file(f"folder/CKP-2_{step}.ckpt", 8 + step)
    assert "step 9 " in tool(*ADOPT, "--file", "CKP-2_1.ckpt")
    tool("adopt", "folder", "--run-dir", "other", "--no-encrypt", "--file", "folder/CKP-2_1.ckpt")


def test_a_folder_of_mindformers(tool):
    """checkpoint/rank_0 below the folder, names with a rank, weights files beside them."""
    stock_file("folder/checkpoint/rank_0/CKP_rank_0-2_1.ckpt", 9)
    stock_file("folder/checkpoint/rank_0/CKP_rank_0-network-2_2.ckpt")
    (Path("folder") / "checkpoint" / "rank_0" / "meta.json").write_text("{}")
    assert "step 9 " in tool(*ADOPT)
    assert adopted()[1].name == "CKP_rank_0-2_1.ckpt"
    tool("adopt", "folder/checkpoint", "--run-dir", "two", "--no-encrypt")
    tool("adopt", "folder/checkpoint/rank_0", "--run-dir", "three", "--no-encrypt")


def test_more_ranks_are_refused(tool):
    """A run of many processes cannot be adopted by one."""
    for rank in (0, 1):
        stock_file(f"folder/rank_{rank}/CKP-2_1.ckpt", 9)
    tool(*ADOPT, status=64)
    assert "2 ranks" in tool.err


@pytest.mark.parametrize("mode", ["AES-GCM", "AES-CBC", "SM4-CBC"])
def test_an_encrypted_folder(tool, tmp_path, mode):
    """Stock's key opens the file and seals the new run; no plaintext is written."""
    key, path = key_file(tmp_path, "key", 16 if mode == "SM4-CBC" else 32)
    stock_file("folder/CKP-2_1.ckpt", 9, Sealing(mode, key))
    tool("adopt", "folder", "--run-dir", "run", "--key-file", path)
    record, entry, *_, found = adopted(key)
    assert (record.mode, entry.manifest.mode) == (mode, mode)
    assert found["weight"] == WEIGHT
    assert not any(CANARY in content for content in every_file("run").values())


def test_ones_own_key_seals_what_was_plain(tool, tmp_path):
    """A plain folder becomes an encrypted run, as every new run is; the key that is made is told."""
    stock_file("folder/CKP-2_1.ckpt", 9)
    tool("adopt", "folder", "--run-dir", "run")
    assert "made a key for your checkpoints" in tool.err
    assert (tmp_path / "home" / "resilient" / "key").exists()
    assert [row["mode"] for row in tool.json("ls", "run")] == ["AES-GCM"]
    assert not any(CANARY in content for content in every_file("run").values())


def test_a_wrong_key_or_none(tool, tmp_path):
    """An encrypted folder without its key: told as that, and no run is made."""
    key, _ = key_file(tmp_path, "key")
    stock_file("folder/CKP-2_1.ckpt", 9, Sealing("AES-GCM", key))
    _, wrong = key_file(tmp_path, "wrong")
    tool("adopt", "folder", "--run-dir", "run", status=1)
    assert "no key for it was given" in tool.err
    tool("adopt", "folder", "--run-dir", "run", "--key-file", wrong, status=1)
    assert "another one, or damaged" in tool.err
    assert not Path("run").exists()


@pytest.mark.parametrize(
    ("name", "counters", "told", "found"),
    [
        ("CKP-2_3.ckpt", {"step": 11}, None, 8),
        ("CKP-2_3.ckpt", {"global_step": 11}, None, 8),
        ("CKP-2_3.ckpt", {"step": 11, "global_step": 2}, None, 8),
        ("CKP-2_3.ckpt", {}, 8, 8),
        ("CKP-1_3.ckpt", {"step": 3}, 8, 8),
        # Counters that are no count of the whole run do not stand against what the user says.
        ("CKP-2_3.ckpt", {"step": 3}, 8, 8),
        ("CKP-3_3.ckpt", {"step": 12}, 8, 8),
        ("CKP-2_3_breakpoint.ckpt", {"step": 3}, 8, 8),
        ("CKP-2_3.ckpt", {}, None, "does not tell how many steps"),
        ("CKP-1_3.ckpt", {"step": 3}, None, "does not tell how many steps"),
        ("CKP-2_3.ckpt", {"step": 3}, None, "does not tell how many steps"),
        ("CKP-2_3_breakpoint.ckpt", {"step": 11}, None, "does not tell how many steps"),
        ("CKP-2_3.ckpt", {"step": 11}, 9, "by its counters CKP-2_3.ckpt has 8"),
        ("CKP-2_3.ckpt", {}, 2, "has step 3 in an epoch"),
        ("CKP-2_3.ckpt", {}, 0, "has step 3 in an epoch"),
    ],
)
def test_steps_per_epoch(tool, name, counters, told, found):
    """Computed where the file tells, asked for where it does not, refused where the two contradict."""
    stock_file(f"folder/{name}", **counters)
    more = ("--steps-per-epoch", told) if told is not None else ()
    words = (*ADOPT, "--file", name, *more)
    if isinstance(found, int):
        tool(*words)
        assert adopted()[3].steps_per_epoch == found
    else:
        tool(*words, status=64)
        assert found in tool.err
        assert not Path("run").exists()


def test_failure_checkpoints_only_when_named(tool):
    """Stock's own breakpoint files are passed over, and taken with a warning when they are named."""
    stock_file("folder/CKP-2_3_breakpoint.ckpt", 3)
    tool(*ADOPT, status=64)
    assert "--file takes one all the same" in tool.err
    stock_file("folder/CKP-2_1.ckpt", 9)
    assert "adopted CKP-2_1.ckpt" in tool(*ADOPT)
    words = ("adopt", "folder", "--run-dir", "two", "--no-encrypt", "--steps-per-epoch", 8)
    tool(*words, "--file", "CKP-2_3_breakpoint.ckpt")
    assert "was saved on a failure" in tool.err


def test_several_trainings_in_one_folder(tool):
    """Which of them is meant cannot be known."""
    for name in ("CKP-2_1.ckpt", "CKP_1-3_1.ckpt"):
        stock_file(f"folder/{name}", 9)
    tool(*ADOPT, status=64)
    assert "CKP, CKP_1" in tool.err
    assert "--file" in tool.err


@pytest.mark.parametrize(
    "name", ["CKP-2_3.txt", "CKP.ckpt", "CKP-0_3.ckpt", "CKP_rank_0-network-2_3.ckpt", "../x", ""]
)
def test_what_is_no_checkpoint(tool, name):
    """Other files are not taken, and cannot be named."""
    Path("folder").mkdir()
    if "/" not in name and name:
        stock_file(f"folder/{name}", 9)
    tool(*ADOPT, status=64)
    tool(*ADOPT, "--file", name, status=64)
    assert not Path("run").exists()


def test_damaged_and_foreign_files(tool):
    """A cut file, one of ours, one that is no such file at all: told, and no run is made."""
    path = stock_file("folder/CKP-2_3.ckpt", 11)
    whole = path.read_bytes()
    path.write_bytes(whole[:-3])
    tool(*ADOPT, status=1)
    assert "cannot be adopted" in tool.err
    path.write_bytes(
        b"".join(map(bytes, container.encode([Record("w", "Int8", (1,), b"x", section=1)], b"")))
    )
    tool(*ADOPT, status=1)
    assert "written by Resilient" in tool.err
    path.write_bytes(os.urandom(1000))
    tool(*ADOPT, status=1)
    assert not Path("run").exists()


def test_a_run_is_never_replaced(tool):
    """A directory that holds a run, a run as the folder, a folder that is not there: bad usage."""
    stock_file("folder/CKP-2_3.ckpt", 11)
    make_run("run")
    before = every_file("run/checkpoint")
    tool(*ADOPT, status=64)
    assert "holds a run already" in tool.err
    assert every_file("run/checkpoint") == before
    tool("adopt", "run", "--run-dir", "two", status=64)
    assert "is a run already" in tool.err
    tool("adopt", "nowhere", "--run-dir", "two", status=64)
    tool(*ADOPT, "--enc-mode", "AES-CBC", status=64)
    assert not Path("two").exists()


def test_an_adoption_that_was_interrupted(tool):
    """Its run refuses to be trained, and adopting again finishes, with what is asked for then."""
    from supervisor.command.cli import main as supervise

    for step in (1, 2):
        stock_file(f"folder/CKP-2_{step}.ckpt", 8 + step)
    tool(*ADOPT, "--file", "CKP-2_1.ckpt")
    content = json.loads(Path("run/run.json").read_text())
    Path("run/run.json").write_text(json.dumps({**content, "status": ADOPTING}))
    Path("script.py").write_text("print('hello')")
    assert supervise(["--run-dir", "run", "--no-encrypt", "script.py"]) == 64
    tool(*ADOPT)
    assert adopted()[3].step == 10
    assert supervise(["--run-dir", "run", "--no-encrypt", "--quiet", "script.py"]) == 0


@pytest.mark.parametrize("place", range(1, 14))
def test_a_crash_while_adopting(tool, place):
    """Killed before the n-th change of the disk: no run that starts from zero, and a second try finishes."""
    import signal
    import subprocess
    import sys

    stock_file("folder/CKP-2_1.ckpt", 9)
    program = (
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
        "for name in ('create', 'rename', 'sync_directory'):\n"
        "    dying(name)\n"
        "from resilient.tools import main\n"
        "sys.exit(main())\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(place), *ADOPT], capture_output=True)
    assert done.returncode in (0, -signal.SIGKILL)
    directory = RunDirectory(Path("run").absolute(), World())
    record = directory.read() if (Path("run") / "run.json").exists() else None
    assert record is None or record.status == ADOPTING or tool.json("ls", "run")
    if done.returncode != 0:
        tool(*ADOPT)
    assert adopted()[3].step == 9


def test_one_bit_of_an_encrypted_file(tool, tmp_path):
    """AES-GCM authenticates stock's blocks too."""
    key, path = key_file(tmp_path, "key")
    source = stock_file("folder/CKP-2_1.ckpt", 9, Sealing("AES-GCM", key))
    flip(source, 70)
    tool("adopt", "folder", "--run-dir", "run", "--key-file", path, status=1)
    assert not Path("run").exists()
