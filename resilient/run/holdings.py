"""Lists the content of a run's folders: its own checkpoints, and traces of those that cannot be used.

It surveys each folder once, for ``presence``, ``belief`` and ``reach``, which decide whether a run may start.
The entries are authentic. Everything else here is the claim of a file that no key at hand vouches for: it may
lead to a refusal or a remark, but the run never resumes from it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path

from resilient.config import Sealing
from resilient.errors import CheckpointError, ForeignError, StorageError, UnprovenError, WrongKeyError
from resilient.host.files import Files
from resilient.host.world import World
from resilient.run.rundir import RunRecord
from resilient.store import layout, manifest
from resilient.store.entry import Entry, FileFailure
from resilient.store.manifest import Owner
from resilient.store.opening import open_store
from resilient.store.patience import patiently
from resilient.store.store import Store
from resilient.store.survey import Survey

PROVEN = "run_sealed"
"""Key in a checkpoint's info: at its commit, the run's record was sealed with the checkpoint's key."""


@dataclass(frozen=True)
class Claim:
    """The unproven content of an unusable manifest, and the digest of its file."""

    name: str
    run_id: str
    generation: int
    step: int
    digest: str


@dataclass(frozen=True)
class Holding:
    """The content of one folder of a run.

    ``locked`` are manifests under other keys, ``plain`` those without a key, ``strange`` those of other runs
    or later versions. ``aside`` are the names in the quarantine; ``read_aside`` tells whether one of them is
    intact, because a person moved it there.
    """

    place: Path
    store: Store
    survey: Survey
    locked: tuple[Claim, ...]
    plain: tuple[Claim, ...]
    strange: tuple[Claim, ...]
    aside: frozenset[str]
    read_aside: Callable[[str], bool] = field(repr=False)

    @property
    def directory(self) -> Path:
        return self.store.directory

    @property
    def entries(self) -> tuple[Entry, ...]:
        return self.survey.entries

    @property
    def has_traces(self) -> bool:
        """Whether the folder holds anything of the run that a worker would use, or refuse to skip."""
        failures = (f for f in self.survey.failures if f.ours and not isinstance(f.error, UnprovenError))
        return bool(self.entries) or any(failures)

    @cached_property
    def newest(self) -> tuple[int, int, str]:
        """Generation, step and name of the newest checkpoint, a locked one included; zeros for none."""
        found = [(entry.generation, entry.step, entry.name) for entry in self.entries[:1]]
        found += [(claim.generation, claim.step, claim.name) for claim in self.locked]
        return max(found, default=(0, 0, ""))

    def is_damaged(self, name: str) -> bool:
        """Whether this file exists but cannot be used, or was set aside rightly."""
        if name in {f.name for f in self.survey.failures if not isinstance(f.error, WrongKeyError)}:
            return True
        copies = [other for other in self.aside if layout.is_set_aside_as(other, name)]
        return bool(copies) and not any(map(self.read_aside, copies))


def take_stock(
    world: World, folders: Iterable[tuple[Path, int]], record: RunRecord, sealing: Sealing
) -> tuple[Holding, ...]:
    """Surveys these places and ranks with the keys of ``sealing``.

    Raises StorageError when a folder cannot be listed.
    """
    return tuple(_hold(world, place, rank, record, sealing) for place, rank in folders)


def _hold(world: World, place: Path, rank: int, record: RunRecord, sealing: Sealing) -> Holding:
    store = open_store(place, world, sealing, record.run_id, rank=rank, accepted=record.accepted)
    survey, files = store.survey(), world.files
    claimed = list(_claims(files, store.directory, survey.failures))

    def of(kind: type[Exception]) -> tuple[Claim, ...]:
        return tuple(claim for error, claim in claimed if type(error) is kind)

    return Holding(
        place,
        store,
        survey,
        locked=of(WrongKeyError),
        plain=of(UnprovenError),
        strange=of(ForeignError),
        aside=_names_aside(files, layout.quarantine_directory(place)),
        read_aside=partial(_is_intact_aside, files, place, store, sealing, Owner(record.run_id, rank)),
    )


def _is_intact_aside(
    files: Files, place: Path, store: Store, sealing: Sealing, owner: Owner, name: str
) -> bool:
    """Whether a checkpoint in the quarantine is intact; reads it in full."""
    folder = layout.quarantine_directory(place)
    keys = tuple(key for key in (sealing.key, *sealing.old_keys) if key is not None)
    try:
        data = files.read(folder / layout.manifest_of(name), manifest.LIMIT_BYTES)
        store.verify(Entry(folder, manifest.decode(data, keys, owner), manifest.digest(data)))
    except (FileNotFoundError, CheckpointError, StorageError):
        return False
    return True


def _names_aside(files: Files, folder: Path) -> frozenset[str]:
    try:
        return frozenset(files.names(folder))
    except StorageError:
        return frozenset()


def _claims(
    files: Files, directory: Path, failures: Iterable[FileFailure]
) -> Iterator[tuple[Exception, Claim]]:
    for failure in failures:
        if not isinstance(failure.error, (WrongKeyError, ForeignError)):
            continue
        try:
            data = patiently(files.read, directory / layout.manifest_of(failure.name), manifest.LIMIT_BYTES)
        except (FileNotFoundError, StorageError):
            continue
        said = manifest.claims(data)
        run_id = said.get("run_id")
        if isinstance(run_id, str):
            counts = _count(said.get("generation")), _count(said.get("step"))
            yield failure.error, Claim(failure.name, run_id, *counts, manifest.digest(data))


def _count(value: object) -> int:
    """A claimed number, 0 if implausible: a forged claim must not exhaust the numbers."""
    return value if isinstance(value, int) and 0 < value < 2**40 else 0
