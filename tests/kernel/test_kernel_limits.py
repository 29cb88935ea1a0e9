"""The limits of a real system: a full disk, no descriptors, no file that large, read-only, undeletable."""

from __future__ import annotations

import errno
import os
import resource
import shutil

import pytest
from kernel_faults import CHANGES, EVERYTHING, SYNCS, KernelFault, OperationKind, StrikeAction
from kernel_inspection import inspect, valid_steps
from kernel_life import CYCLES
from kernel_mounts import demand_mounts, mounted, run, try_to_run

MODIFIES = CHANGES & ~SYNCS
MOMENTS = CHANGES | OperationKind.LIST
EVERY_STOP = KernelFault(StrikeAction.STOP, EVERYTHING)


@pytest.fixture
def may_mount(tmp_path):
    demand_mounts(tmp_path, "-t", "tmpfs", "none")


def folder_in(point):
    root = point / "run"
    root.mkdir()
    return root


# A full disk


@pytest.mark.parametrize("limit", ["size", "nr_inodes"])
def test_a_full_disk(limit, may_mount, tmp_path, nursery, record_property):
    """A disk with room for so many pages or files and no more: what does not fit is a failed save that says
    so; what was saved is whole, and once there is room it goes on."""
    full = 0
    for number in range(4, 24):
        amount = f"{number * resource.getpagesize()}" if limit == "size" else f"{number}"
        with mounted(tmp_path / "disk", "-t", "tmpfs", "-o", f"{limit}={amount}", "none") as point:
            lived = nursery.live("small", folder_in(point))
            assert lived.status == 0
            assert lived.errors <= {errno.ENOSPC}
            assert len(lived.saved + lived.failed) == 3
            full += bool(lived.failed or lived.troubles)
            run("mount", "-o", "remount,size=16m,nr_inodes=1000", point)
            inspect(lived.root, CYCLES["small"], lived.saved)
    assert full > 3
    record_property("kernel_faults", full)


def test_a_disk_that_fills_up_in_the_middle_of_a_block(may_mount, tmp_path, nursery):
    """The save that does not fit fails while a thread writes its blocks; nothing of it is left, even before
    anybody recovers."""
    with mounted(tmp_path / "disk", "-t", "tmpfs", "-o", "size=4m", "none") as point:
        lived = nursery.live("large", folder_in(point))
        assert (lived.saved, lived.failed, lived.errors) == ((1,), (2,), {errno.ENOSPC})
        names = sorted(path.name for path in (lived.root / "checkpoint" / "rank_0").iterdir())
        assert names == ["CKP_rank_0-1_1.ckpt", "CKP_rank_0-1_1.manifest", "meta.json"]
        run("mount", "-o", "remount,size=32m", point)
        inspect(lived.root, CYCLES["large"], lived.saved)


# Limits of the process


def test_a_file_that_may_not_be_so_large(nursery, on_disk):
    """A limit on the size of files (RLIMIT_FSIZE) is a failed save that says so, and no death by SIGXFSZ."""

    def limit(process, so_far):
        if so_far.saved:
            resource.prlimit(process, resource.RLIMIT_FSIZE, (1_500_000, resource.RLIM_INFINITY))

    lived = nursery.live("large", on_disk.fresh(), EVERY_STOP, at_stop=limit)
    assert lived.status == 0
    assert (lived.saved, lived.failed, lived.errors) == ((1,), (2,), {errno.EFBIG})
    inspect(lived.root, CYCLES["large"], lived.saved)


def test_no_descriptor_is_left(nursery, on_disk):
    """Without a free descriptor a save fails and says so; when there are some again, the next one works."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)

    def limit(process, so_far):
        if so_far.saved == (1,) and not so_far.failed:
            inside = [int(number) for number in os.listdir(f"/proc/{process}/fd")]
            free = next(number for number in range(len(inside) + 1) if number not in inside)
            resource.prlimit(process, resource.RLIMIT_NOFILE, (free, before[1]))
        else:
            resource.prlimit(process, resource.RLIMIT_NOFILE, before)

    lived = nursery.live("long", on_disk.fresh(), EVERY_STOP, at_stop=limit)
    assert (lived.saved, lived.failed, lived.errors) == ((1, 3, 4, 5), (2,), {errno.EMFILE})
    inspect(lived.root, CYCLES["long"], lived.saved)


# A disk that becomes read-only


def test_a_disk_becomes_read_only(may_mount, tmp_path, nursery, everything, record_property):
    """From any moment on at which the kernel lets it, the disk is read-only: saves and retention fail and say
    so, what was saved can be read meanwhile, and when it can be written again it goes on."""
    rehearsal = nursery.live("long", tmp_path / "rehearsal", KernelFault(kinds=MOMENTS))
    numbers = range(0, len(rehearsal.counted), 1 if everything else 14)
    read_only = 0
    for number in numbers:
        with mounted(tmp_path / "disk", "-t", "tmpfs", "none") as point:
            read_only += _become_read_only(number, folder_in(point), nursery)
    assert read_only > len(numbers) * 0.8
    record_property("kernel_faults", read_only)


def _become_read_only(number, root, nursery):
    """Whether it became so; near the end the files that are open for writing may leave no moment for it."""
    modes, done = ["rw"], []

    def remount(process, so_far):
        if modes == ["rw"]:
            # Not while a file is open for writing; then at the next stop.
            if try_to_run("mount", "-o", "remount,ro", root.parent):
                modes.append("ro")
                done.extend(so_far.struck[:-1])
                assert set(so_far.saved[-2:]) <= set(valid_steps(root, CYCLES["long"]))
        elif modes == ["rw", "ro"] and len(so_far.failed) == 2:
            run("mount", "-o", "remount,rw", root.parent)
            modes.append("rw")

    lived = nursery.live("long", root, KernelFault(StrikeAction.STOP, MOMENTS, number), at_stop=remount)
    assert lived.status == 0
    assert sorted(lived.saved + lived.failed) == CYCLES["long"].steps
    assert lived.errors <= {errno.EROFS}
    failed = "ro" in modes and any(operation.kind & MODIFIES for operation in lived.struck[len(done) :])
    assert bool(lived.failed or lived.troubles) == failed, f"from moment {number} on, nothing was told"
    run("mount", "-o", "remount,rw", root.parent)
    inspect(root, CYCLES["long"], lived.saved)
    return "ro" in modes


# A file that cannot be removed


@pytest.fixture
def immutable(on_disk):
    """Makes files undeletable (chattr +i), and deletable again at the end; or skips, with the reason."""
    changed = []

    def make(path, sign="+"):
        run("chattr", f"{sign}i", path)
        changed.append(path)

    trial = on_disk.fresh() / "trial"
    trial.touch()
    if shutil.which("chattr") is None:
        pytest.skip("there is no chattr")
    try:
        make(trial)
        run("chattr", "-i", trial)
    except AssertionError as error:
        pytest.skip(f"files cannot be made immutable here: {str(error).split(' while')[0]}")
    yield make
    for path in changed:
        if path.exists():
            run("chattr", "-i", path)


@pytest.mark.parametrize("ending", ["ckpt", "manifest"])
def test_an_old_checkpoint_that_cannot_be_removed(ending, nursery, on_disk, immutable):
    """Retention says what it cannot remove and removes the others; when it can be removed, it is."""
    cycle = CYCLES["long"]
    root = on_disk.fresh()
    stuck = root / "checkpoint" / "rank_0" / f"CKP_rank_0-1_1.{ending}"

    def stick(process, so_far):
        if so_far.saved == (1,) and stuck.exists():
            immutable(stuck)

    lived = nursery.live("long", root, EVERY_STOP, at_stop=stick)
    assert (lived.saved, lived.failed) == (tuple(cycle.steps), ())
    assert any("CKP_rank_0-1_1" in trouble and "not permitted" in trouble for trouble in lived.troubles)
    # Behind its back the others have gone as they should, and the one that is stuck takes nobody's place.
    assert valid_steps(root, cycle)[:2] == [5, 4]
    assert set(valid_steps(root, cycle)) <= {5, 4, 1}
    store = cycle.open(root)
    troubles = [*store.recover().failures, *cycle.prune(store).failures]
    assert any("CKP_rank_0-1_1" in str(trouble) for trouble in troubles)
    assert valid_steps(root, cycle)[:2] == [5, 4]
    immutable(stuck, "-")
    inspect(root, cycle, lived.saved)


def test_a_folder_that_cannot_be_changed(nursery, on_disk, immutable):
    """Saves into an immutable folder fail and say so; what is there can be read, and later it goes on."""
    root = on_disk.fresh()
    folder = root / "checkpoint" / "rank_0"

    def freeze(process, so_far):
        if so_far.saved == (1, 2) and not so_far.failed:
            immutable(folder)
        elif so_far.failed == (3,):
            immutable(folder, "-")

    lived = nursery.live("long", root, EVERY_STOP, at_stop=freeze)
    assert (lived.saved, lived.failed, lived.errors) == ((1, 2, 4, 5), (3,), {errno.EPERM})
    inspect(root, CYCLES["long"], lived.saved)
