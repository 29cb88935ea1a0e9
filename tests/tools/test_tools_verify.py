"""resilient verify: every byte, and what each bad file suffers from."""

from __future__ import annotations

from pathlib import Path

import pytest
from tool_runs import CANARY, STEPS, every_file, flip, key_file, make_run

from resilient.config import Sealing

pytestmark = pytest.mark.usefixtures("small_blocks")


def weights_file(root="run"):
    return sorted(Path(root, "checkpoint_network", "rank_0").iterdir())[0]


def sealing(folder, mode):
    if mode == "plain":
        return Sealing(), ()
    key, path = key_file(folder, "key", 16 if mode == "SM4-CBC" else 32)
    return Sealing(mode, key), ("--key-file", path)


@pytest.mark.parametrize("quick", [(), ("--quick",)])
@pytest.mark.parametrize("mode", ["plain", "AES-GCM", "AES-CBC", "SM4-CBC"])
def test_a_sound_run(tool, tmp_path, mode, quick):
    """Every file is named with ok, in every mode; nothing is changed by it."""
    how, key = sealing(tmp_path, mode)
    make_run("run", how, weights=True)
    before = every_file("run")
    out = tool("verify", "run", *key, *quick)
    assert out.count("  ok") == len(STEPS) * (1 if quick else 2)
    assert out.splitlines()[-1].endswith("all ok")
    lines = tool.json("verify", "run", *key, *quick)
    assert {line["ok"] for line in lines} == {True}
    assert {line["kind"] for line in lines} == {"checkpoint"} | (set() if quick else {"weights"})
    assert every_file("run") == before


@pytest.mark.parametrize("mode", ["plain", "AES-GCM", "AES-CBC", "SM4-CBC"])
def test_every_flipped_bit_is_named(tool, tmp_path, mode):
    """One bit anywhere in a data file or a manifest: exit 1, the file is named, and no other one."""
    how, key = sealing(tmp_path, mode)
    store = make_run("run", how)
    entry = store.entries()[1]
    for path in (entry.path, entry.manifest_path):
        size = path.stat().st_size
        for place in {0, 5, size // 3, size // 2, size - 2, *range(0, size, 97)}:
            flip(path, place)
            lines = tool.json("verify", "run", *key, status=1)
            assert [line["file"] for line in lines if not line["ok"]] == [entry.name], (path, place)
            assert next(line["error"] for line in lines if not line["ok"])
            flip(path, place)
    out = tool("verify", "run", *key)
    assert "BAD" not in out


def test_quick_finds_what_it_can(tool, tmp_path):
    """Without decrypting: a cut file, a swapped block; and of AES-GCM not a bit inside of a block."""
    how, key = sealing(tmp_path, "AES-GCM")
    store = make_run("run", how)
    path = store.entries()[0].path
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    assert "BAD" in tool("verify", "run", "--quick", *key, status=1)
    block = 48 + 64
    path.write_bytes(whole[block : 2 * block] + whole[:block] + whole[2 * block :])
    assert "block 0 is not the one that was written" in tool("verify", "run", "--quick", *key, status=1)
    path.write_bytes(whole)
    flip(path, 60)
    tool("verify", "run", "--quick", *key)
    assert "block 0 is not the one that was written" in tool("verify", "run", *key, status=1)


@pytest.mark.parametrize("mode", ["AES-CBC", "plain"])
def test_quick_reads_the_other_modes_in_full(tool, tmp_path, mode):
    """A flipped bit in a block of another mode is found without decrypting."""
    how, key = sealing(tmp_path, mode)
    store = make_run("run", how)
    flip(store.entries()[2].path, 70)
    lines = tool.json("verify", "run", "--quick", *key, status=1)
    assert [line["ok"] for line in lines] == [True, True, False]


@pytest.mark.parametrize("mode", ["plain", "AES-GCM", "AES-CBC"])
def test_weights_are_opened_and_parsed(tool, tmp_path, mode):
    """A weights file that is cut off is named; --quick leaves weights files out."""
    how, key = sealing(tmp_path, mode)
    make_run("run", how, weights=True)
    path = weights_file()
    path.write_bytes(path.read_bytes()[:-7])
    lines = tool.json("verify", "run", *key, status=1)
    assert [line["file"] for line in lines if not line["ok"]] == [path.name]
    tool("verify", "run", "--quick", *key)


def test_a_wrong_key_is_no_damage(tool, tmp_path):
    """With another key nothing can be verified: exit 1, and it is the key that is asked for."""
    how, _ = sealing(tmp_path, "AES-GCM")
    make_run("run", how)
    _, wrong = key_file(tmp_path, "wrong")
    out = tool("verify", "run", "--key-file", wrong, status=1)
    assert out.count("sealed with another key (give the key it was made with)") == 3


def test_an_empty_run(tool):
    """Nothing to verify is no error, and is said."""
    make_run("run", steps=())
    assert "no checkpoints yet" in tool("verify", "run")


def test_no_plaintext_and_no_key_is_said(tool, tmp_path):
    """Whatever is wrong, neither the content nor the key appears in what is said."""
    how, key = sealing(tmp_path, "AES-GCM")
    store = make_run("run", how, weights=True)
    flip(store.entries()[0].path, 60)
    flip(weights_file(), 60)
    tool("verify", "run", *key, status=1)
    said = tool.out + tool.err
    assert CANARY.decode() not in said
    assert how.key.hex() not in said
