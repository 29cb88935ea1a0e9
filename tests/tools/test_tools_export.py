"""resilient export: plain files with what stock would have saved, whole or not there."""

from __future__ import annotations

import errno
import json
import os
import signal
import stat
import struct
import subprocess
import sys
import tracemalloc

import pytest
from safetensors import deserialize, safe_open
from tool_runs import CANARY, draft, every_file, flip, key_file, make_run, records, tensor

from resilient.codec import container
from resilient.codec.tensors import Record, info_record
from resilient.config import Sealing
from resilient.host.world import World
from resilient.store.bare_file import read_stock


def read_ckpt(path):
    """The tensors of a plain file by name, and nothing of ours in it."""
    found = {}

    def sink(name, dtype, dims, size_bytes, section):
        assert section == 0
        found[name] = (dtype, dims, bytearray(size_bytes))
        return memoryview(found[name][2])

    read_stock(World().files, path, [], sink)
    return {name: (dtype, dims, bytes(data)) for name, (dtype, dims, data) in found.items()}


@pytest.fixture
def sealed(tmp_path):
    """An encrypted run, and the option that opens it."""
    key, path = key_file(tmp_path, "key")
    return make_run("run", Sealing("AES-GCM", key)), ("--key-file", path)


def test_a_plain_ckpt(tool, tmp_path, sealed):
    """The newest by default: stock's part byte by byte, mode 0600, and words that it is not encrypted."""
    before = every_file("run")
    out = tool("export", "run", "--out", "out.ckpt", *sealed[1])
    assert "step 15 (epoch 2) is in out.ckpt" in out
    stock = [r for r in records(15) if r.section == 0 and r.name not in ("void", "wave")]
    assert (tmp_path / "out.ckpt").read_bytes() == b"".join(map(bytes, container.encode(stock, b"")))
    assert stat.S_IMODE(os.stat("out.ckpt").st_mode) == 0o600
    assert "NOT encrypted" in tool.err
    assert "left out, .ckpt files cannot hold their kind: void, wave" in tool.err
    assert every_file("run") == before


def test_a_step_of_ones_own(tool, tmp_path):
    """--step chooses; of an unencrypted run nothing is said about encryption."""
    make_run("run")
    [facts] = tool.json("export", "run", "--step", 5, "--out", tmp_path / "five.ckpt")
    assert (facts["step"], facts["left_out"]) == (5, ["void", "wave"])
    assert read_ckpt(tmp_path / "five.ckpt")["weight"][2] == tensor(5)
    assert "NOT encrypted" not in tool.err


def test_safetensors(tool, tmp_path, sealed):
    """The library reads every tensor back: larger elements first, aligned; texts are in the metadata."""
    store, key = sealed
    mixed = [
        Record("b", "Bool", (3,), b"\1\0\1"),
        Record("half", "Float16", (2, 2), bytes(range(8))),
        Record("brain", "BFloat16", (3,), bytes(range(6))),
        Record("f8", "Float8E4M3FN", (1,), b"\x38"),
        Record("double", "Float64", (1,), struct.pack("<d", 2.5)),
        Record("héllo", "Int8", (), b"\x07"),
    ]
    store.commit(draft(16, records=[*mixed, *records(16)]))
    tool("export", "run", "--out", "out.safetensors", *key)
    data = (tmp_path / "out.safetensors").read_bytes()
    found = dict(deserialize(data))
    wanted = {
        r.name: r for r in [*mixed, *records(16)] if r.section == 0 and r.dtype not in ("str", "Complex128")
    }
    assert {name: (tuple(t["shape"]), bytes(t["data"])) for name, t in found.items()} == {
        name: (r.dims, bytes(r.data)) for name, r in wanted.items()
    }
    assert [found[name]["dtype"] for name in ("b", "half", "brain", "f8")] == [
        "BOOL",
        "F16",
        "BF16",
        "F8_E4M3",
    ]
    with safe_open("out.safetensors", "numpy") as file:
        assert file.metadata() == {"note": "héllo"}
        assert int(file.get_tensor("step_num")) == 16
    assert "left out, .safetensors files cannot hold their kind: wave" in tool.err
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    begins = {n: t["data_offsets"][0] for n, t in header.items() if n != "__metadata__"}
    assert all(begins[n] % max(len(r.data) // max(1, _count(r)), 1) == 0 for n, r in wanted.items())


def _count(record):
    number = 1
    for dim in record.dims:
        number *= dim
    return number


def test_an_empty_text_and_an_odd_one(tool, tmp_path):
    """Texts of append_info that JSON cannot spell are still a file that the library reads."""
    store = make_run("run", steps=())
    store.commit(draft(1, records=[info_record("empty", ""), info_record("odd", "a\ud800b")]))
    tool("export", "run", "--out", "out.safetensors")
    with safe_open("out.safetensors", "numpy") as file:
        assert file.metadata()["empty"] == ""


@pytest.mark.parametrize("suffix", ["ckpt", "safetensors"])
def test_what_is_there_is_not_replaced(tool, tmp_path, suffix):
    """A file, or a link, under that name stays; --force replaces it, and not what a link points to."""
    make_run("run")
    path = tmp_path / f"out.{suffix}"
    target = tmp_path / "precious"
    target.write_bytes(b"precious")
    os.symlink(target, path)
    tool("export", "run", "--out", path, status=64)
    assert "--force" in tool.err
    tool("export", "run", "--out", path, "--force")
    assert target.read_bytes() == b"precious"
    assert not path.is_symlink()
    assert path.stat().st_size > 100


@pytest.mark.parametrize(
    "words",
    [
        ("--out", "out.npz"),
        ("--out", ".ckpt"),
        ("--out", "missing/out.ckpt"),
        ("--out", "folder.ckpt"),
        ("--out", "out.ckpt", "--step", "6"),
        ("--out", "out.ckpt", "--rank", "1"),
        ("--out", "out.ckpt", "--rank", "-1"),
    ],
)
def test_bad_usage(tool, tmp_path, words):
    """Another ending, a folder that is not there, a directory, a step or rank that is not there."""
    make_run("run")
    os.mkdir("folder.ckpt")
    tool("export", "run", *words, status=64)
    assert not (tmp_path / "out.ckpt").exists()


def test_nothing_to_export(tool, tmp_path):
    """An empty run, and one whose key was not given: bad usage, in different words."""
    make_run("empty", steps=())
    tool("export", "empty", "--out", "out.ckpt", status=64)
    assert "there is no checkpoint in empty yet" in tool.err
    key, _ = key_file(tmp_path, "key")
    make_run("run", Sealing("AES-GCM", key))
    tool("export", "run", "--out", "out.ckpt", status=64)
    assert "can be used" in tool.err


@pytest.mark.parametrize("suffix", ["ckpt", "safetensors"])
def test_a_damaged_checkpoint_gives_no_file(tool, tmp_path, sealed, suffix):
    """One bit wrong at its end: exit 1, no file, no temporary, and the others can still be exported."""
    store, key = sealed
    flip(store.entries()[0].path)
    tool("export", "run", "--out", f"out.{suffix}", *key, status=1)
    assert "not the one that was written" in tool.err
    assert sorted(os.listdir(tmp_path)) == ["key", "run"]
    tool("export", "run", "--step", 10, "--out", f"out.{suffix}", *key)


def test_a_full_disk_gives_no_file(tool, tmp_path, monkeypatch):
    """What cannot be written to its end leaves nothing behind."""
    import resource

    make_run("run", steps=())
    store = make_run("big", steps=())
    store.commit(draft(1, records=[Record("w", "Int8", (200_000,), bytes(200_000))]))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        tool("export", "big", "--out", "out.ckpt", status=1)
    finally:
        signal.signal(signal.SIGXFSZ, before)
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert os.strerror(errno.EFBIG) in tool.err
    assert not [name for name in os.listdir(tmp_path) if "out" in name]


def test_a_stopped_export_clears_up(tmp_path):
    """SIGTERM in the middle: no file and no temporary with plaintext in it."""
    store = make_run("run", steps=())
    size = 64 * 1024 * 1024
    store.commit(draft(1, records=[Record("w", "Int8", (size,), CANARY * (size // 16))]))
    # Tells when the first block is on its way, and then waits to be stopped.
    program = (
        "import sys, time\n"
        "from resilient.host.files import DiskWriter\n"
        "original = DiskWriter.write\n"
        "def write(self, data):\n"
        "    original(self, data)\n"
        "    print('writing', flush=True)\n"
        "    time.sleep(60)\n"
        "DiskWriter.write = write\n"
        "from resilient.tools import main\n"
        "sys.exit(main())\n"
    )
    command = [sys.executable, "-c", program, "export", "run", "--out", "out.ckpt"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"writing\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 128 + signal.SIGTERM
    assert sorted(os.listdir(tmp_path)) == ["run"]


def test_memory_is_bounded(tool, tmp_path, sealed):
    """A .ckpt is streamed: a tensor of 64 MiB passes through a few blocks of 4."""
    store, key = sealed
    size = 64 * 1024 * 1024
    store.commit(draft(20, records=[Record("w", "Int8", (size,), bytes(size))]))
    tracemalloc.start()
    try:
        tool("export", "run", "--out", "out.ckpt", *key)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (tmp_path / "out.ckpt").stat().st_size > size
    assert peak < 40 * 1024 * 1024
