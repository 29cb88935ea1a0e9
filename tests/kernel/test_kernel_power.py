"""The power goes on a real file system: its page cache is lost, what was reported as saved is not."""

from __future__ import annotations

import ctypes
import os
from itertools import count
from pathlib import Path

import pytest
from kernel_faults import CHANGES, SYNCS, KernelFault, OperationKind, StrikeAction
from kernel_inspection import inspect
from kernel_life import CYCLES
from kernel_mounts import Image

from chaos.invariants import ViolationError
from resilient.store import layout

STRICT = "commit=300,noauto_da_alloc"  # nothing is written that nobody has asked for
META = Path("checkpoint", "rank_0", layout.META_NAME)
FILE_SYSTEMS = {
    "ext4": ("ext4", STRICT),
    "ext4-writeback": ("ext4", f"{STRICT},data=writeback"),
    "xfs": ("xfs", ""),
    # No journal: a sync makes durable what it is asked for, and nothing beside.
    "ext2": ("ext2", ""),
}


@pytest.fixture(params=FILE_SYSTEMS)
def disk(request, in_memory):
    """A mounted image with a folder for the life, and where the copy of it comes to be mounted."""
    place = in_memory.fresh()
    image = Image.make(place / "image", *FILE_SYSTEMS[request.param])
    with image.mounted(place / "disk") as point:
        yield Disk(image, point)


class Disk:
    """A disk whose power can go."""

    def __init__(self, image, point):
        self._image = image
        self._point = point

    def fresh(self, name):
        """A folder that is there whatever happens."""
        root = self._point / name
        root.mkdir()
        self.sync()
        return root

    def sync(self):
        """Makes all of it durable; sync(2) would do so for every disk of the machine."""
        descriptor = os.open(self._point, os.O_RDONLY)
        assert ctypes.CDLL(None).syncfs(descriptor) == 0
        os.close(descriptor)

    def inspect_cut_off(self, root, cycle, saved):
        """Holds what is left when the power goes now against the invariants."""
        place = self._image.path.parent
        copy = self._image.cut_off(self._point, place / "copy")
        with copy.mounted(place / "left") as left:
            inspect(left / root.relative_to(self._point), cycle, saved)


@pytest.mark.parametrize("cycle", ["small", "large"])
def test_the_power_goes(cycle, disk, nursery, everything, record_property):
    """After each report that a checkpoint is saved, and between operations, the power may go: the checkpoint
    is there, whole, and the next process goes on."""
    stride = 1 if everything else {"small": 5, "large": 7}[cycle]
    seen = []
    root = disk.fresh("run")

    def look(process, so_far):
        number = so_far.struck[-1].number
        if number % stride == 0 or so_far.saved not in seen:
            seen.append(so_far.saved)
            disk.inspect_cut_off(root, CYCLES[cycle], so_far.saved)

    kinds = CHANGES | OperationKind.HINT
    lived = nursery.live(cycle, root, KernelFault(StrikeAction.STOP, kinds), at_stop=look)
    assert lived.saved == tuple(CYCLES[cycle].steps)
    disk.inspect_cut_off(root, CYCLES[cycle], lived.saved)
    assert len(seen) >= len(lived.counted) // stride
    record_property("kernel_faults", len(seen) + 1)


@pytest.fixture
def broken_promise(disk, nursery):
    """What a save without these syncs turns out to break when the power goes right after it; or nothing.

    With meta.json as it is to be, the commit's own syncs are the last ones: a sync of another file in the
    same file system would write the journal, and hide that a folder was not synced.
    """
    meta = (nursery.live("single", disk.fresh("rehearsal")).root / META).read_bytes()
    numbers = count()

    def find(kinds):
        root = disk.fresh(f"life {next(numbers)}")
        (root / META).parent.mkdir(parents=True)
        (root / META).write_bytes(meta)
        disk.sync()
        lived = nursery.live("single", root, KernelFault(StrikeAction.LIE, kinds))
        assert (lived.saved, lived.troubles) == ((1,), [])
        try:
            disk.inspect_cut_off(root, CYCLES["single"], lived.saved)
        except ViolationError as violation:
            return violation.invariant
        return ""

    return find


@pytest.mark.parametrize(
    "kinds", [SYNCS, OperationKind.SYNC, OperationKind.SYNC_DIRECTORY], ids=["all", "files", "folders"]
)
def test_a_store_that_does_not_sync_is_found_out(kinds, broken_promise):
    """When no sync is done, or none of a file, or none of a folder, a checkpoint that was reported as saved
    is lost with the power: these tests can fail."""
    # A sync(2) of somebody else on this machine may save a store that does not deserve it; not ten times.
    found = (broken_promise(kinds | OperationKind.HINT) for _ in range(10))
    assert any(invariant == "AckDurability" for invariant in found)


def test_a_store_that_syncs_keeps_its_promise(broken_promise):
    """The same save with its syncs is there; nothing but they has made it durable."""
    assert broken_promise(OperationKind.HINT) == ""
