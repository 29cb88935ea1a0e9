"""Which checkpoints of a run the given keys open, in all its places and of all its ranks.

A script may seal with its own key (``enc_key``), which only it has. Checkpoints under a key that the run was
never configured with are the script's concern and are left out here.

Two things must never happen: a run resumes from an older state because the newest one is under a missing key;
and run.json names a key as the run's while another one is still needed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from resilient.config import Sealing
from resilient.errors import StorageError, WrongKeyError
from resilient.host.files import Files
from resilient.host.world import World
from resilient.run.holdings import Holding
from resilient.run.places import Places
from resilient.run.rundir import RunRecord
from resilient.store.opening import open_store
from resilient.store.store import Store
from resilient.store.survey import Survey, claims

_UNKNOWN = "?"


@dataclass(frozen=True)
class LockedCheckpoint:
    """A checkpoint of the run that no key opens. ``ahead``: it is newer than all opened ones beside it."""

    name: str
    key_id: str
    ahead: bool


@dataclass(frozen=True)
class Reach:
    """The checkpoints that the keys open, and those that they do not.

    ``key_ids`` are all that checkpoints of the run are sealed with (None: not sealed). ``sure`` is False when
    a place is missing or a manifest cannot be read: it may be sealed with any key.
    """

    key_ids: frozenset[str | None]
    locked: tuple[LockedCheckpoint, ...]
    sure: bool

    @property
    def ahead(self) -> LockedCheckpoint | None:
        """A checkpoint that a run with these keys would wrongly skip."""
        return next((locked for locked in self.locked if locked.ahead), None)

    @property
    def whole(self) -> bool:
        """Whether everything opens."""
        return self.sure and not self.locked

    def opens_with(self, named: str | None) -> bool:
        """Whether this key alone opens everything; with None, whether everything opens without a key."""
        return self.whole and self.key_ids <= {named, None}


def look(
    world: World,
    places: Places,
    record: RunRecord,
    sealing: Sealing,
    holdings: Iterable[Holding] | None = None,
) -> Reach:
    """Surveys all places with the keys of ``sealing``, or uses the ``holdings`` of an earlier survey.

    Raises StorageError when a folder cannot be listed.
    """
    if holdings is not None:
        seen = [(holding.store, holding.survey) for holding in holdings]
    else:
        stores = [
            open_store(place, world, sealing, record.run_id, rank=rank, accepted=record.accepted)
            for place in places.own
            for rank in places.ranks(world.files, record.world_size)
        ]
        seen = [(store, store.survey()) for store in stores]
    opened = {entry.manifest.key_id for _, found in seen for entry in found.entries}
    told = {_UNKNOWN, record.key_id, *record.key_ids}
    locked = [
        one for store, found in seen for one in _locked(world.files, store, found) if one.key_id in told
    ]
    unread = any(isinstance(failure.error, StorageError) for _, found in seen for failure in found.failures)
    key_ids = frozenset({*opened, *(one.key_id for one in locked)})
    return Reach(key_ids, tuple(locked), sure=not unread and not places.missing)


def _locked(files: Files, store: Store, found: Survey) -> Iterator[LockedCheckpoint]:
    newest = max((entry.generation for entry in found.entries), default=-1)
    for failure in found.failures:
        if not isinstance(failure.error, WrongKeyError):
            continue
        said = claims(files, store.directory, failure.name)
        # A manifest that has vanished needs no key. Nor does an unencrypted one while encryption is on: it
        # may be anybody's, and the run does not use it.
        if said is not None and said.get("key_id", _UNKNOWN) is not None:
            yield LockedCheckpoint(
                failure.name, str(said.get("key_id", _UNKNOWN)), _generation(said) > newest
            )


def _generation(said: Mapping[str, Any]) -> float:
    """The claimed generation; infinite for nonsense, because the checkpoint may be the newest."""
    generation = said.get("generation")
    return generation if isinstance(generation, int) else math.inf
