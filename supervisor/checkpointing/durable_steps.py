"""Which steps of a run are safe on disk, read from the disk itself.

Messages may never have come, and files may have gone since: the last line names what lies there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from resilient.config import Origin, WorkerConfig
from resilient.errors import CorruptError, ResilientError
from resilient.host.world import World
from resilient.store.opening import open_store
from resilient.store.store import Store
from supervisor.edges.question import Question

_PATIENCE_S = 2.0


class DurableSteps:
    """Looks for the checkpoints of one rank of a run.

    ``where`` gives the places beside the run's own directory, and what of them may be used.
    """

    def __init__(
        self, config: WorkerConfig, world: World, where: Callable[[], tuple[Sequence[str], Origin]]
    ) -> None:
        self._where = where
        self._config = config
        self._world = world

    def newest_step(self) -> int | None:
        """The step that the run would resume from, 0 for none; None where nobody can tell.

        The keys of a script are not known here, and it does not wait for a disk that does not answer.
        """
        places, origin = self._where()
        asked = Question(partial(self._look, [self._config.directory, *map(Path, places)], origin))
        asked.wait(_PATIENCE_S)
        return asked.answer if asked.is_answered else None

    def _look(self, places: Sequence[Path], origin: Origin) -> int | None:
        newest, certain = 0, True
        for place in dict.fromkeys(places):
            try:
                survey = self._store(place).survey()
            except (ResilientError, OSError):
                certain = False
                continue
            certain &= all(isinstance(failure.error, CorruptError) for failure in survey.failures)
            usable = (entry.step for entry in survey.entries if origin.allows(entry.step, entry.info))
            newest = max(newest, next(usable, 0))
        return newest if newest or certain else None

    def _store(self, place: Path) -> Store:
        config = self._config
        return open_store(
            place,
            self._world,
            config.sealing,
            config.run_id,
            rank=config.rank,
            world_size=config.world_size,
            accepted=config.accepted,
        )
