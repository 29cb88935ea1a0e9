"""resilient verify: every byte, and what each bad file suffers from."""

from __future__ import annotations

from pathlib import Path

import pytest
from tool_runs import CANARY, STEPS, every_file, flip, key_file, make_run

from resilient.codec import keys
from resilient.config import Sealing
from resilient.host.files import DiskFiles

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
    """With another key nothing can be verified: locked, and not BAD; exit 1, and it is the key that is
    asked for."""
    how, _ = sealing(tmp_path, "AES-GCM")
    make_run("run", how, weights=True)
    _, wrong = key_file(tmp_path, "wrong")
    out = tool("verify", "run", "--key-file", wrong, status=1)
    key_id = keys.key_id(how.key)
    assert out.count(f"locked with another key (id {key_id})") == 3
    assert out.count("locked: it does not open with the key that was given") == 3
    assert "6 files read in full: 6 locked" in out
    assert "BAD" not in out
    assert f"3 checkpoints are sealed with the key {key_id}, which was not given" in tool.err
    lines = tool.json("verify", "run", "--key-file", wrong, status=1)
    assert {(line["ok"], line["state"]) for line in lines} == {(False, "locked")}


@pytest.mark.parametrize("quick", [(), ("--quick",)])
def test_without_a_key_an_encrypted_run_is_locked(tool, tmp_path, quick):
    """It needs a key, and says which; that is no damage either, and exit 1."""
    how, _ = sealing(tmp_path, "AES-CBC")
    make_run("run", how, weights=True)
    out = tool("verify", "run", *quick, status=1)
    assert out.count(f"locked and needs a key (id {keys.key_id(how.key)})") == 3
    assert out.count("locked: it is encrypted, and no key for it was given") == (0 if quick else 3)
    assert "BAD" not in out


def test_damage_is_told_beside_what_is_locked(tool, tmp_path):
    """A file that is cut off is BAD with any key; the weights of a run without encryption too."""
    how, _ = sealing(tmp_path, "AES-GCM")
    store = make_run("run", how)
    make_run("plain", weights=True)
    store.entries()[0].manifest_path.write_bytes(b"{")
    weights_file("plain").write_bytes(b"\x0a\xff")
    _, wrong = key_file(tmp_path, "wrong")
    out = tool("verify", "run", "--key-file", wrong, status=1)
    assert "CKP_rank_0-2_7.ckpt  BAD: the manifest is not readable" in out
    assert out.splitlines()[-1] == "3 files read in full: 1 BAD, 2 locked"
    assert "5 ok, 1 BAD" in tool("verify", "plain", "--key-file", wrong, status=1)


@pytest.mark.parametrize("before", ["identity", "open"])
def test_weights_that_go_meanwhile_are_not_bad(tool, monkeypatch, before):
    """Retention removes a weights file while everything is read: it is no damage, and no concern."""
    make_run("run", weights=True)
    gone = weights_file().absolute()
    original = getattr(DiskFiles, before)

    def late(files, path):
        if path == gone:
            gone.unlink(missing_ok=True)
        return original(files, path)

    monkeypatch.setattr(DiskFiles, before, late)
    assert len(tool.json("verify", "run")) == 5


def test_what_is_no_file_is_told_by_its_name(tool):
    """A directory under a weights file's name: unreadable, which is no damage; the others are read."""
    make_run("run", weights=True)
    path = weights_file()
    path.unlink()
    path.mkdir()
    out = tool("verify", "run", status=1)
    assert f"{path.name}  unreadable: cannot open" in out
    assert "5 ok, 1 unreadable" in out


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
