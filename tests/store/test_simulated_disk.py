"""The simulated disk promises no more than a real one: otherwise it would prove nothing."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from chaos.crashes import ends
from chaos.disk_state import BLOCK_BYTES
from chaos.faults import Fail, Kill, Killed, always, at
from chaos.simulated_disk import SimulatedDisk
from resilient.errors import BusyError, StorageError
from resilient.host.files import DiskFiles

FOLDER = Path("/folder")
FILE = FOLDER / "file"


def written(disk, content=b"content", *, sync=True, path=FILE):
    disk.make_directory(path.parent)
    writer = disk.create(path)
    writer.write(content)
    if sync:
        writer.sync()
    writer.close()
    return disk


def outcomes(disk):
    """Every state that a power loss may leave on the disk; the first is that after a mere process death."""
    return set(list(ends(disk.state()))[1:])


def contents(disk, path=FILE):
    """The possible contents of a file after a power loss; None when its name is gone."""
    found = set()
    for state in outcomes(disk):
        after = SimulatedDisk(state)
        found.add(after.content(path) if path in after.paths() else None)
    return found


def test_a_name_needs_its_directory_synced():
    """A synced file is not sure to survive until its directory is synced too."""
    disk = written(SimulatedDisk())
    assert contents(disk) == {None, b"content"}
    disk.sync_directory(FOLDER)
    assert contents(disk) == {b"content"}


def test_unsynced_bytes_may_be_anything():
    """Bytes that were not synced may be all there, cut off, as zeros or as something else, or missing."""
    disk = written(SimulatedDisk(), b"1234", sync=False)
    disk.sync_directory(FOLDER)
    assert contents(disk) == {b"", b"1234", b"12", bytes(4), b"\xa5" * 4}


def test_any_block_that_was_not_synced_may_be_lost():
    """A file of three blocks: cut off at each of them, and each of them as zeros or as something else."""
    blocks = [bytes([n]) * BLOCK_BYTES for n in (1, 2, 3)]
    disk = written(SimulatedDisk(), b"".join(blocks), sync=False)
    disk.sync_directory(FOLDER)
    found = contents(disk)
    assert {b"".join(blocks[:n]) for n in range(4)} <= found
    for other in (bytes(BLOCK_BYTES), b"\xa5" * BLOCK_BYTES):
        for position in range(3):
            assert b"".join([*blocks[:position], other, *blocks[position + 1 :]]) in found


def test_a_rename_in_a_folder_is_one_change():
    """After a rename and a crash the old name or the new one exists, and the target is whole either way."""
    disk = written(written(SimulatedDisk(), b"old"), b"new", path=FOLDER / "temporary")
    disk.sync_directory(FOLDER)
    disk.rename(FOLDER / "temporary", FILE)
    assert contents(disk) == {b"old", b"new"}
    assert contents(disk, FOLDER / "temporary") == {b"new", None}


def test_a_rename_between_folders_is_two_changes():
    """Between folders, a crash may leave both names or none until both folders have been synced."""
    disk = written(SimulatedDisk())
    disk.make_directory(Path("/other"))
    disk.sync_directory(FOLDER)
    disk.rename(FILE, Path("/other/file"))
    counts = {len(SimulatedDisk(state).paths()) for state in outcomes(disk)}
    assert counts == {0, 1, 2}
    disk.sync_directory(Path("/other"))
    assert {len(SimulatedDisk(state).paths()) for state in outcomes(disk)} == {1, 2}


def test_changes_survive_in_any_combination():
    """Unsynced name changes in a folder are independent of each other."""
    disk = written(written(SimulatedDisk(), path=FOLDER / "a"), path=FOLDER / "b")
    names = {tuple(path.name for path in SimulatedDisk(state).paths()) for state in outcomes(disk)}
    assert names == {(), ("a",), ("b",), ("a", "b")}


def test_a_failed_sync_stays_failed():
    """After a sync that failed, a second one succeeds and makes nothing durable."""
    disk = SimulatedDisk(plan=lambda n, o: Fail(errno.EIO) if o.kind == "sync" and not seen else None)
    seen = []
    disk.make_directory(FOLDER)
    writer = disk.create(FILE)
    writer.write(b"1234")
    with pytest.raises(StorageError):
        writer.sync()
    seen.append(True)
    writer.sync()
    disk.sync_directory(FOLDER)
    assert b"" in contents(disk)


def test_the_death_of_a_process_loses_nothing():
    """Without a power loss, the next process sees every change."""
    disk = written(SimulatedDisk(), sync=False)
    assert disk.restart().content(FILE) == b"content"


def test_a_dead_process_does_nothing_more():
    """After its death, every operation of the process raises and changes nothing."""
    disk = written(SimulatedDisk(plan=always("remove", Kill())))
    with pytest.raises(Killed):
        disk.remove(FILE)
    with pytest.raises(Killed):
        disk.names(FOLDER)
    assert disk.restart().content(FILE) == b"content"


def test_a_write_may_stop_in_the_middle():
    """A write that is killed, or fails halfway, has written its first half."""
    for fault, error in ((Kill(partial=True), Killed), (Fail(errno.EIO, partial=True), StorageError)):
        disk = SimulatedDisk(plan=always("write", fault))
        with pytest.raises(error):
            written(disk)
        assert disk.restart().content(FILE) == b"con"


def test_the_disk_can_be_full():
    """A write that does not fit fails with ENOSPC; removing a file frees space."""
    disk = written(SimulatedDisk(capacity_bytes=10))
    with pytest.raises(StorageError) as caught:
        written(disk, path=FOLDER / "second")
    assert caught.value.errno == errno.ENOSPC
    disk.remove(FILE)
    disk.remove(FOLDER / "second")
    assert disk.free_bytes(FOLDER) == 10


def test_states_are_values():
    """Equal disks have equal, hashable states; later changes do not alter a state."""
    one, two = written(SimulatedDisk()), written(SimulatedDisk())
    before = one.state()
    assert (before, hash(before)) == (two.state(), hash(two.state()))
    one.remove(FILE)
    assert before == two.state() != one.state()


def test_locks_die_with_the_process():
    """A lock is exclusive until it is released or its process ends."""
    disk = written(SimulatedDisk())
    lock = disk.lock(FOLDER / "lock")
    with pytest.raises(BusyError):
        disk.lock(FOLDER / "lock")
    lock.release()
    disk.lock(FOLDER / "lock")
    disk.restart().lock(FOLDER / "lock")


def test_each_operation_is_counted():
    """The log lists every attempted operation, so that a test can inject a fault at each."""
    disk = written(SimulatedDisk())
    assert [operation.kind for operation in disk.log] == ["make_directory", "create", "write", "sync"]
    with pytest.raises(StorageError):
        written(SimulatedDisk(plan=at(3, Fail(errno.EIO))))


@pytest.fixture(params=["real", "simulated"])
def anywhere(request, tmp_path):
    """The same folder on a real and on a simulated disk."""
    if request.param == "real":
        return DiskFiles(), tmp_path
    disk = SimulatedDisk()
    disk.make_directory(FOLDER)
    return disk, FOLDER


def test_the_fake_behaves_like_the_real_one(anywhere):
    """Without crashes, the simulated disk and the real one behave the same."""
    files, folder = anywhere
    files.make_directory(folder / "a" / "b")
    path = folder / "a" / "b" / "file"
    writer = files.create(path)
    writer.write(b"12345")
    writer.write(memoryview(b"678"))
    writer.sync()
    writer.close()
    files.sync_directory(path.parent)
    assert files.names(folder / "a") == ["b"]
    assert files.names(path.parent) == ["file"]
    assert files.names(folder / "none") == []
    assert files.read(path, 8) == b"12345678"
    reader, target = files.open(path), bytearray(4)
    assert (reader.size_bytes, reader.read_into(memoryview(target), 6), bytes(target)) == (8, 2, b"78\0\0")
    reader.close()
    before = files.identity(path)
    files.rename(path, folder / "moved")
    assert files.identity(folder / "moved").inode == before.inode
    assert files.names(path.parent) == []
    files.remove(folder / "moved")
    assert files.free_bytes(folder) > 0


@pytest.mark.parametrize(
    ("action", "error"),
    [
        (lambda files, folder: files.create(folder / "there"), FileExistsError),
        (lambda files, folder: files.create(folder / "no" / "file"), StorageError),
        (lambda files, folder: files.open(folder / "missing"), FileNotFoundError),
        (lambda files, folder: files.open(folder / "sub"), StorageError),
        (lambda files, folder: files.read(folder / "there", 3), StorageError),
        (lambda files, folder: files.rename(folder / "missing", folder / "x"), FileNotFoundError),
        (lambda files, folder: files.remove(folder / "missing"), FileNotFoundError),
        (lambda files, folder: files.identity(folder / "missing"), FileNotFoundError),
        (lambda files, folder: files.identity(folder / "sub"), StorageError),
        (lambda files, folder: files.sync_directory(folder / "missing"), StorageError),
        (lambda files, folder: files.make_directory(folder / "there" / "sub"), StorageError),
    ],
)
def test_the_fake_fails_like_the_real_one(anywhere, action, error):
    """The same mistakes raise the same errors."""
    files, folder = anywhere
    files.make_directory(folder / "sub")
    writer = files.create(folder / "there")
    writer.write(b"1234")
    writer.close()
    with pytest.raises(error):
        action(files, folder)
