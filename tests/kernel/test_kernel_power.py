"""The power goes on a real file system: its page cache is lost, what was reported as saved is not."""

from __future__ import annotations

import os

import pytest
from kernel_faults import CHANGES, SYNCS, Action, Fault, Kind
from kernel_inspection import inspect
from kernel_life import CYCLES
from kernel_mounts import Image

from chaos.invariants import ViolationError

STRICT = "commit=300,noauto_da_alloc"  # nothing is written that nobody has asked for
FILE_SYSTEMS = {
    "ext4": ("ext4", STRICT),
    "ext4-writeback": ("ext4", f"{STRICT},data=writeback"),
    "xfs": ("xfs", ""),
}


@pytest.fixture(params=FILE_SYSTEMS)
def disk(request, in_memory):
    """A mounted image with a folder for the life, and where the copy of it comes to be mounted."""
    place = in_memory.fresh()
    image = Image.make(place / "image", *FILE_SYSTEMS[request.param])
    with image.mounted(place / "disk") as point:
        root = point / "run"
        root.mkdir()
        sync(point)
        yield Disk(image, root)


def sync(folder):
    descriptor = os.open(folder, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


class Disk:
    """A disk whose power can go."""

    def __init__(self, image, root):
        self.root = root
        self._image = image

    def inspect_cut_off(self, root, cycle, saved):
        """Holds what is left when the power goes now against the invariants."""
        place = self._image.path.parent
        copy = self._image.cut_off(self.root.parent, place / "copy")
        with copy.mounted(place / "left") as left:
            inspect(left / root.relative_to(self.root.parent), cycle, saved)


@pytest.mark.parametrize("cycle", ["small", "large"])
def test_the_power_goes(cycle, disk, nursery, everything, record_property):
    """After each report that a checkpoint is saved, and between operations, the power may go: the checkpoint
    is there, whole, and the next process goes on."""
    stride = 1 if everything else {"small": 3, "large": 4}[cycle]
    seen = []

    def look(process, so_far):
        number = so_far.struck[-1].number
        if number % stride == 0 or so_far.saved not in seen:
            seen.append(so_far.saved)
            disk.inspect_cut_off(disk.root, CYCLES[cycle], so_far.saved)

    kinds = CHANGES | Kind.HINT
    lived = nursery.live(cycle, disk.root, Fault(Action.STOP, kinds), at_stop=look)
    assert lived.saved == tuple(CYCLES[cycle].steps)
    disk.inspect_cut_off(disk.root, CYCLES[cycle], lived.saved)
    assert len(seen) >= len(lived.counted) // stride
    record_property("kernel_faults", len(seen) + 1)


@pytest.mark.parametrize("kinds", [SYNCS | Kind.HINT, Kind.SYNC | Kind.HINT], ids=["all", "files"])
def test_a_store_that_does_not_sync_is_found_out(kinds, disk, nursery):
    """When no sync, or none of a file, is done, a checkpoint that was reported as saved is lost with the
    power: the test above can fail."""

    def is_found_out(number):
        root = disk.root / str(number)
        root.mkdir()
        sync(disk.root)
        lived = nursery.live("small", root, Fault(Action.LIE, kinds))
        assert lived.saved == tuple(CYCLES["small"].steps)
        try:
            disk.inspect_cut_off(root, CYCLES["small"], lived.saved)
        except ViolationError as violation:
            return violation.invariant == "AckDurability"
        return False

    # A sync(2) of somebody else on this machine may save a store that does not deserve it; not ten times.
    assert any(map(is_found_out, range(10)))
