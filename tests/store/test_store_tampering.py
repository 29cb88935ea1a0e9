"""Tampering: only committed content loads, and recovery finds an older checkpoint."""

from __future__ import annotations

import json
import os

import pytest
from store_world import (
    DIRECTORY,
    GCM,
    QUARANTINE,
    SEALINGS,
    Sinks,
    draft,
    filled,
    make_store,
    names,
    read_back,
    steps,
)

from chaos.simulated_disk import SimulatedDisk
from chaos.stepped_clock import SteppedClock
from resilient.errors import CorruptError, ForeignError, StorageError, UnusableError, WrongKeyError
from resilient.host.entropy import SystemEntropy
from resilient.host.files import DiskFiles
from resilient.store import manifest
from resilient.store.store import Store

both_ends = pytest.mark.parametrize("sealing", SEALINGS.values(), ids=SEALINGS)


def falls_back_to(disk, step, sealing, error=CorruptError):
    """Recovery loads ``step`` exactly, after refusing something newer with this error."""
    store = make_store(disk, sealing=sealing)
    recovery = store.recover()
    sinks = Sinks()
    loaded = store.load_newest(sinks)
    assert read_back(store, loaded.entry) == step
    refused = [*recovery.quarantined, *recovery.failures, *loaded.failures]
    assert refused, "nothing was refused"
    assert all(isinstance(failure.error, error) for failure in refused)
    return store


@both_ends
def test_any_flipped_bit_of_the_data_is_refused(sealing):
    """A flip in any byte of the data file is detected, the file set aside, and the one before loads."""
    disk, store = filled(2, sealing=sealing)
    path = store.entries()[0].path
    good = disk.content(path)
    for position in range(len(good)):
        again = SimulatedDisk(disk.state())
        again.put(path, flipped(good, position, 1 << position % 8))
        falls_back_to(again, 1, sealing)
        assert path.name in names(again, QUARANTINE)


@both_ends
def test_any_flipped_bit_of_the_manifest_is_refused(sealing):
    """A flip in any byte of the manifest is detected."""
    disk, store = filled(2, sealing=sealing)
    path = store.entries()[0].manifest_path
    good = disk.content(path)
    for position in range(len(good)):
        again = SimulatedDisk(disk.state())
        again.put(path, flipped(good, position, 1 << position % 7))
        falls_back_to(again, 1, sealing)


@both_ends
def test_any_other_length_is_refused(sealing):
    """A data file or a manifest that was truncated anywhere or has grown is rejected."""
    disk, store = filled(2, sealing=sealing)
    for path in (store.entries()[0].path, store.entries()[0].manifest_path):
        good = disk.content(path)
        for content in [*(good[:end] for end in range(len(good))), good + b"\0", good + b"\n", good + good]:
            again = SimulatedDisk(disk.state())
            again.put(path, content)
            falls_back_to(again, 1, sealing)


@both_ends
def test_data_of_another_step_is_refused(sealing):
    """The data file of one checkpoint under the manifest of another, of the same size and key, is refused."""
    disk, store = filled(3, sealing=sealing)
    newest, older, _ = store.entries()
    assert newest.manifest.file_bytes == older.manifest.file_bytes
    disk.put(newest.path, disk.content(older.path))
    falls_back_to(disk, 2, sealing)


@both_ends
def test_spliced_blocks_are_refused(sealing):
    """A block of another checkpoint of the same key, at the same place, is refused."""
    disk, store = filled(2, sealing=sealing)
    newest, older = store.entries()
    size = {"AES-GCM": 48 + 64, None: 64}.get(sealing.mode, 32 + 80)
    data, other = disk.content(newest.path), disk.content(older.path)
    for start in range(0, len(data) - size, size):
        again = SimulatedDisk(disk.state())
        again.put(newest.path, data[:start] + other[start : start + size] + data[start + size :])
        falls_back_to(again, 1, sealing)


@both_ends
def test_a_manifest_of_another_step_is_refused(sealing):
    """The manifest of one checkpoint beside the data of another is not that checkpoint."""
    disk, store = filled(2, sealing=sealing)
    newest, older = store.entries()
    disk.put(newest.manifest_path, disk.content(older.manifest_path))
    falls_back_to(disk, 1, sealing, ForeignError)


@pytest.mark.parametrize(
    "field", ["step", "epoch", "generation", "file_name", "parent", "run_id", "tags", "info"]
)
def test_an_edited_manifest_is_refused(field):
    """Nobody can change a field without the key, not even by writing canonical JSON."""
    disk, store = filled(2)
    path = store.entries()[0].manifest_path
    outer = json.loads(disk.content(path))
    value = outer["manifest"][field]
    outer["manifest"][field] = {"x": 1} if field == "info" else value[::-1] if isinstance(value, str) else 99
    disk.put(path, manifest._canonical(outer) + b"\n")
    falls_back_to(disk, 1, GCM)


@pytest.mark.parametrize(
    "spelling",
    [
        lambda text: text.replace(",", ", "),
        lambda text: text.rstrip("\n"),
        lambda text: text.replace('"failure":false', '"failure":true,"failure":false'),
        lambda text: text.replace('"step":2', '"step":2.0'),
        lambda text: "[" * 100_000,
        lambda text: "null\n",
        lambda text: '{"mac":1,"manifest":2}\n',
    ],
)
def test_a_manifest_has_one_spelling(spelling):
    """The same content written differently, or no content at all, is refused."""
    disk, store = filled(2)
    path = store.entries()[0].manifest_path
    disk.put(path, spelling(disk.content(path).decode()).encode())
    falls_back_to(disk, 1, GCM)


def test_a_forged_unencrypted_manifest_is_not_trusted():
    """Somebody without the key cannot plant a state of their own without encryption."""
    disk, _ = filled(2)
    forger = make_store(disk, sealing=SEALINGS["plain"])
    forger.commit(draft(1000))
    falls_back_to(disk, 2, GCM, WrongKeyError)


def test_removing_the_key_id_does_not_unlock():
    """A manifest rewritten to claim that it was never encrypted is refused."""
    disk, store = filled(2)
    entry = store.entries()[0]
    inner = {**json.loads(disk.content(entry.manifest_path))["manifest"], "key_id": None, "mode": None}
    disk.put(entry.manifest_path, manifest._file_of(inner, manifest._mac(inner, None).hex()))
    falls_back_to(disk, 1, GCM, WrongKeyError)


def rename(disk, old, new):
    disk.rename(DIRECTORY / old, DIRECTORY / new)


def test_a_renamed_data_file_is_missing():
    """When only the data file was renamed, its manifest is set aside and the renamed file left alone."""
    disk, _ = filled(2)
    rename(disk, "CKP_rank_0-1_2.ckpt", "best.ckpt")
    falls_back_to(disk, 1, GCM)
    assert "best.ckpt" in names(disk)


@pytest.mark.parametrize("stem", ["best", "CKP_rank_0-9_9", "CKP_rank_0_1-1_2"])
def test_a_renamed_checkpoint_is_left_alone(stem):
    """When both files were renamed, they are no longer that checkpoint, and stay where they are."""
    disk, _ = filled(2)
    rename(disk, "CKP_rank_0-1_2.ckpt", f"{stem}.ckpt")
    rename(disk, "CKP_rank_0-1_2.manifest", f"{stem}.manifest")
    falls_back_to(disk, 1, GCM, ForeignError)
    assert {f"{stem}.ckpt", f"{stem}.manifest"} <= set(names(disk))


def test_a_run_of_renamed_checkpoints_does_not_start_over():
    """When only renamed checkpoints are left, an error says so, and the run does not start from zero."""
    disk, _ = filled(1)
    rename(disk, "CKP_rank_0-1_1.ckpt", "best.ckpt")
    rename(disk, "CKP_rank_0-1_1.manifest", "best.manifest")
    with pytest.raises(UnusableError, match="rename it back"):
        make_store(disk).load_newest(Sinks())


def test_an_old_checkpoint_put_back_is_not_the_newest():
    """A removed checkpoint that somebody restores is valid and old: the newest stays the newest."""
    disk, store = filled(3)
    old = store.entries()[-1]
    saved = {path: disk.content(path) for path in (old.path, old.manifest_path)}
    store.prune(lambda entries: {entries[0].generation})
    for path, content in saved.items():
        disk.put(path, content)
    assert steps(make_store(disk)) == [3, 1]


@pytest.fixture
def real(tmp_path):
    """A store with two checkpoints on a real disk."""
    store = Store(
        tmp_path / "checkpoint",
        quarantine=tmp_path / "quarantine",
        files=DiskFiles(),
        clock=SteppedClock(),
        entropy=SystemEntropy(),
        sealing=GCM,
        run_id="run-1",
    )
    store.commit(draft(1))
    store.commit(draft(2))
    return store


def test_a_link_to_other_content_is_refused(real):
    """A symbolic link in place of a data file, to another checkpoint's data, is rejected."""
    newest, older = real.entries()
    newest.path.unlink()
    newest.path.symlink_to(older.path)
    loaded = real.load_newest(Sinks())
    assert loaded.entry.step == 1
    assert isinstance(loaded.failures[0].error, CorruptError)
    assert older.path.exists()


def test_a_dangling_link_is_a_missing_file(real):
    """A link that leads nowhere is a missing data file."""
    newest = real.entries()[0]
    newest.path.unlink()
    newest.path.symlink_to("/nowhere/at/all")
    assert real.load_newest(Sinks()).entry.step == 1


@pytest.mark.parametrize("suffix", [".ckpt", ".manifest"])
@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_what_is_no_file_is_no_checkpoint(real, suffix, make):
    """A FIFO or a folder in place of a file does not block the reader, and is reported."""
    path = real.entries()[0].path.with_suffix(suffix)
    path.unlink()
    make(path)
    real.recover()
    loaded = real.load_newest(Sinks())
    assert loaded.entry.step == 1
    assert isinstance(loaded.failures[0].error, StorageError)


def test_links_are_not_followed_when_writing(real, tmp_path):
    """A link planted under the next name redirects nothing: the name counts as taken."""
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    (real.directory / "CKP_rank_0-1_3.ckpt").symlink_to(victim)
    (real.directory / "meta.json").unlink()
    (real.directory / "meta.json").symlink_to(victim)
    entry = real.commit(draft(3))
    assert entry.name == "CKP_rank_0_1-1_3.ckpt"
    assert victim.read_bytes() == b"precious"


def flipped(data, position, bits):
    return data[:position] + bytes([data[position] ^ bits]) + data[position + 1 :]
