"""The book of a run: its record in run.json, kept up to date, and the configuration of each attempt."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from resilient.config import Origin, WorkerConfig
from resilient.errors import StorageError
from resilient.run import rundir
from resilient.run.rundir import RunDirectory
from resilient.wire.messages import WorkerNews
from supervisor.loop.plan import Plan, changes


class RunBook:
    """Keeps one run's record. ``complain`` hears of a disk that is full: that must not end the run."""

    def __init__(self, directory: RunDirectory, plan: Plan, complain: Callable[[str], None]) -> None:
        self._directory = directory
        self._plan = plan
        self._complain = complain
        self._record = directory.open()

    @property
    def attempts(self) -> int:
        """How many attempts were begun, over the whole run."""
        return self._record.attempts

    @property
    def places(self) -> tuple[str, ...]:
        """The directories beside the run's own that it has checkpoints in."""
        return self._record.checkpoints

    def begin_attempt(self) -> int:
        """Another attempt begins: its number."""
        self._update(attempts=self.attempts + 1, status=rundir.RUNNING)
        return self.attempts

    def config(self, origin: Origin, durable_step: int) -> WorkerConfig:
        """The configuration of the newest attempt's worker (see ``Plan.for_attempt``)."""
        return self._plan.for_attempt(origin, self._record, durable_step)

    @property
    def standby_config(self) -> WorkerConfig | None:
        """The configuration that a standby starts with; None where the run has none."""
        return self._plan.worker if self._plan.standby else None

    def note(self, message: WorkerNews) -> None:
        """Takes note of what a worker, or a saver, tells; so does who keeps it outside of the directory."""
        if changed := changes(self._record, message):
            self._update(**changed)
        self._plan.hear_saved(message)

    def end(self, status: str) -> None:
        """This supervisor is through with the run."""
        self._update(status=status)

    def _update(self, **changed: Any) -> None:
        self._record = replace(self._record, **changed)
        try:
            self._directory.write(self._record)
        except StorageError as error:
            self._complain(f"run.json cannot be written: {error}")
