"""Where this process keeps checkpoints: a place for each directory that the script names, opened once.

Under ``resilient-run`` they all belong to the one run. Without a supervisor each directory is a run of its
own, and this process has its lock.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from resilient.config import Sealing, WorkerConfig
from resilient.errors import ForeignError, StorageError, UsageError
from resilient.host.files import FileLock
from resilient.host.world import World
from resilient.policy.settings import Settings
from resilient.run.belief import is_proven
from resilient.run.presence import StartFromZero
from resilient.run.rundir import RunDirectory, RunRecord, has_manifests
from resilient.saving import saver_process
from resilient.store import layout
from resilient.store.opening import open_store
from resilient.store.store import Store
from resilient.store.weights import remove_temporaries

PLAIN_DIRECTORY = Path("output")
# A tool that looks who has a lock holds it itself meanwhile.
_INSTANT_S = 0.2


@dataclass(frozen=True)
class OpenPlace:
    """Where checkpoints of one run go, opened."""

    root: Path
    store: Store
    sealing: Sealing
    run_id: str


class OpenPlaces:
    """The places of one process, and their locks. ``warn`` hears what was found there and set aside.

    ``saver_works`` tells that the run's saver is at work: it holds the rank's lock, and has cleaned up.
    """

    def __init__(
        self,
        config: WorkerConfig | None,
        world: World,
        warn: Callable[[str], None],
        saver_works: Callable[[], bool],
    ) -> None:
        self._config = config
        self._world = world
        self._warn = warn
        self._saver_works = saver_works
        # By their real paths: a directory may have several names.
        self._opened: dict[str, OpenPlace] = {}
        self._run_locks: dict[Path, FileLock] = {}
        self._rank_locks: dict[Path, FileLock] = {}
        self._records: dict[Path, tuple[RunDirectory, RunRecord]] = {}

    def open(self, settings: Settings) -> OpenPlace:
        """The place that these settings name.

        Raises UsageError where the directory is in use with another key, BusyError where another process
        uses it, and what opening a run raises.
        """
        root, sealing = self._root(settings), self._sealing(settings)
        place = self._opened.get(os.path.realpath(root))
        if place is None:
            place = self._open(root, sealing)
            self._opened[os.path.realpath(root)] = place
        elif (sealing.mode, sealing.key) != (place.sealing.mode, place.sealing.key):
            raise UsageError(
                f"{place.root} is in use with another key or mode of encryption",
                hint="a directory has one key: give both the same one, or a directory each",
            )
        return place

    def demand_fresh(self, place: OpenPlace) -> None:
        """Tells what there is to say where the run is about to begin from zero; see ``run.presence``.

        Raises LostError where that would silently lose what it has saved.
        """
        files, config = self._world.files, self._config
        saved_in = config.saved_in if config is not None else self._saved_alone(place.root)
        own = config is not None and config.directory == place.root
        others = [Path(name) for name in saved_in if os.path.realpath(name) not in self._opened]
        unseen = tuple(other for other in others if has_manifests(files, other))
        known = any(os.path.realpath(name) == os.path.realpath(place.root) for name in saved_in)
        strange = sum(type(failure.error) is ForeignError for failure in place.store.survey().failures)
        beginning = StartFromZero(place.root, strange, unseen, bool(saved_in), known, own)
        if remark := beginning.demand():
            self._warn(remark)

    def _saved_alone(self, root: Path) -> tuple[str, ...]:
        _, record = self._records.get(root, (None, None))
        return (str(root),) if record is not None and record.saved else ()

    def _root(self, settings: Settings) -> Path:
        if settings.directory is not None:
            return settings.directory.absolute()
        return self._config.directory if self._config else PLAIN_DIRECTORY.absolute()

    def _sealing(self, settings: Settings) -> Sealing:
        return settings.sealing or (self._config.sealing if self._config else Sealing())

    def _open(self, root: Path, sealing: Sealing) -> OpenPlace:
        config = self._config
        try:
            run_id = self._claim(root, sealing)
            rank, world_size = (config.rank, config.world_size) if config else (0, 1)
            store = open_store(
                root,
                self._world,
                sealing,
                run_id,
                rank=rank,
                world_size=world_size,
                accepted=config.accepted if config is not None else (),
            )
            if not self._saver_works():
                self._clean(root, rank, store)
        except BaseException:
            # Who mends what is wrong, and tries again in the same process, must not find us in the way.
            self._release(root)
            raise
        return OpenPlace(root, store, sealing, run_id)

    def _claim(self, root: Path, sealing: Sealing) -> str:
        """Locks what no supervisor has locked for us; the run that the directory belongs to."""
        if self._config is not None:
            if not self._saver_works():
                self.lock_rank(root)
            return self._config.run_id
        return self._claim_alone(root, sealing)

    def _claim_alone(self, root: Path, sealing: Sealing) -> str:
        """Without a supervisor: the directory's lock, and its record, which tells the run's id and no more.

        Anybody may have changed it: each checkpoint is authenticated with that id under the script's key.
        """
        sealed_with = [sealing.key] if sealing.key is not None else []
        run = RunDirectory(root, self._world, keys=sealed_with)
        self._run_locks[root] = run.lock()
        # Somebody else's run may keep checkpoints here as well.
        lock = layout.rank_lock(root, 0)
        self._rank_locks[root] = saver_process.take_lock(self._world.files, lock, _INSTANT_S)
        found = run.look(sealed_with)
        record = found.record if found is not None else run.open()
        if found is None or is_proven(found, sealed_with):
            self._records[root] = run, record
        return record.run_id

    def acknowledge(self, path: Path) -> None:
        """A checkpoint was saved: without a supervisor the record says so from then on."""
        for root, (run, record) in list(self._records.items()):
            if path.is_relative_to(root) and not record.saved:
                with contextlib.suppress(StorageError):
                    self._records[root] = run, run.write(replace(record, saved=True))

    def _clean(self, root: Path, rank: int, store: Store) -> None:
        """Clears away what writers that died have left."""
        recovery = store.recover()
        for failure in recovery.quarantined:
            self._warn(f"set aside in {layout.quarantine_directory(root)}: {failure}")
        for folder in (layout.network_directory(root, rank), layout.trainable_directory(root, rank)):
            remove_temporaries(self._world.files, folder)

    # Locks

    def lock_rank(self, root: Path) -> None:
        """Whoever commits a rank's checkpoints in a place holds its lock: this process from now on."""
        assert self._config is not None
        if root not in self._rank_locks:
            self._world.files.make_directory(root)
            path = layout.rank_lock(root, self._config.rank)
            self._rank_locks[root] = saver_process.take_lock(self._world.files, path)

    def unlock_rank(self) -> None:
        """The saver is about to commit, wherever that will be."""
        for lock in self._rank_locks.values():
            lock.release()
        self._rank_locks.clear()

    def close(self, place: OpenPlace | None = None) -> list[Path]:
        """Lets go of a place, or of all; the directories that are free now."""
        closed = [found for found in self._opened.values() if place is None or found is place]
        self._opened = {path: found for path, found in self._opened.items() if found not in closed}
        for found in closed:
            self._release(found.root)
        return [found.root for found in closed]

    def _release(self, root: Path) -> None:
        self._records.pop(root, None)
        for locks in (self._rank_locks, self._run_locks):
            lock = locks.pop(root, None)
            if lock is not None:
                lock.release()
