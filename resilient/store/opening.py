"""Opens the store of one rank below a directory."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from resilient.config import Sealing
from resilient.host import inside
from resilient.host.world import World
from resilient.store import layout
from resilient.store.store import Store


def open_store(
    root: Path,
    world: World,
    sealing: Sealing,
    run_id: str,
    *,
    rank: int = 0,
    world_size: int = 1,
    allow_plain: bool = False,
    only_proven: bool = False,
    accepted: Collection[str] = (),
) -> Store:
    """The store of one run and rank below ``root``; see :class:`~resilient.store.store.Store`."""
    inside.confine(root)
    return Store(
        layout.checkpoint_directory(root, rank),
        quarantine=layout.quarantine_directory(root),
        files=world.files,
        clock=world.clock,
        entropy=world.entropy,
        sealing=sealing,
        run_id=run_id,
        rank=rank,
        world_size=world_size,
        allow_plain=allow_plain,
        only_proven=only_proven,
        accepted=accepted,
    )
