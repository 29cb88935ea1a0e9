"""The locks of a run. A tool that changes a run's checkpoints takes all of them:

    lock             of the run: its supervisor has it, or a process that trains without one
    .rank_N.lock     of each rank, in each place: the process that commits there has it. A worker, or the
                     saver of a training without a supervisor, may outlive the holder of the run's lock
    lock             of a shared place: a process without a supervisor, whose own run is there, has it

``RunDirectory.lock`` takes the first; this module takes the others.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from resilient.errors import BusyError
from resilient.host.files import FileLock, Files
from resilient.host.world import World
from resilient.run.lock_owner import rank_owner
from resilient.run.places import Places
from resilient.run.rundir import RunDirectory
from resilient.store import layout
from resilient.store.patience import locked_soon


@contextmanager
def held(world: World, places: Places, world_size: int) -> Iterator[None]:
    """Holds all locks in a run's places except the run's own, which the caller holds.

    Raises BusyError, which names the process that has one.
    """
    with ExitStack() as stack:
        for place in dict.fromkeys((places.root, *places.own)):
            if place in places.shared:
                stack.callback(RunDirectory(place, world).lock().release)
            for rank in _ranks(world.files, place, world_size):
                stack.callback(_lock_rank(world.files, place, rank).release)
        yield


def _ranks(files: Files, place: Path, world_size: int) -> list[int]:
    """The ranks of the run, and those from when its world was larger."""
    found = map(layout.rank_of_lock, files.names(place))
    return sorted({*range(world_size), *(rank for rank in found if rank is not None)})


def _lock_rank(files: Files, place: Path, rank: int) -> FileLock:
    path = layout.rank_lock(place, rank)
    try:
        return locked_soon(files, path)
    except BusyError:
        pid = rank_owner(files, path)
        who = f"process {pid}" if pid else "another process"
        raise BusyError(
            f"{who}, a worker or a saver, still holds the checkpoints of rank {rank} in {place}",
            pid=pid,
            hint="wait until it has saved, or end it",
        ) from None
