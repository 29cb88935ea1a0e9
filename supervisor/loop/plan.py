"""The plan: what a supervisor goes by, and what of the run's record changes as it goes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from resilient.config import Origin, WorkerConfig
from resilient.host.world import World
from resilient.run.rundir import RunDirectory, RunRecord
from resilient.wire.messages import CheckpointSaved, KeepsIn, WorkerNews
from supervisor.verdict.ledger import LedgerOwner, TrialFile
from supervisor.verdict.restart import RestartPolicy
from supervisor.watching.watchman import Limits


@dataclass(frozen=True)
class Plan:
    """What the supervisor goes by: the worker's configuration, when to restart, how long to wait.

    ``hear_saved`` hears each message: it keeps how far the run has come outside of its directory. ``keys``
    seal the records inside; ``proven`` tells that they were sealed before this start. ``has_saved`` tells
    that the run had made attempts and saved checkpoints by then, ``accepts_rollback`` that the user has
    accepted for this start that saved checkpoints are missing.
    """

    worker: WorkerConfig
    restart: RestartPolicy
    grace_s: float
    standby: bool = False
    limits: Limits = Limits()
    hear_saved: Callable[[WorkerNews], None] = lambda message: None
    keys: tuple[bytes, ...] = field(default=(), repr=False)
    proven: bool = True
    has_saved: bool = False
    accepts_rollback: bool = False

    def trials(self, directory: RunDirectory, world: World, complain: Callable[[str], None]) -> TrialFile:
        """The ledger of the run in a directory."""
        run_id, is_command = self.worker.run_id, self.limits.mute
        whose = LedgerOwner(run_id, self.keys, self.proven, self.has_saved, is_command)
        return TrialFile(directory.root, world, complain, directory.keep, whose=whose)

    def for_attempt(self, origin: Origin, record: RunRecord, durable_step: int) -> WorkerConfig:
        """The configuration of the newest attempt's worker; ``record`` is the run's own at that moment.

        ``durable_step`` is the newest step that this start has resumed from or saved; 0 for none. Once there
        is one, nobody has accepted that it goes missing.
        """
        saved_in = record.checkpoints or (str(self.worker.directory),)
        return replace(
            self.worker,
            attempt=record.attempts,
            origin=origin,
            saved_in=saved_in if record.saved else (),
            may_begin_anew=self.accepts_rollback and not durable_step,
        )


def changes(record: RunRecord, message: WorkerNews) -> dict[str, Any]:
    """The fields of the run's record that change with what a worker, or a saver, tells.

    Once a checkpoint is acknowledged, the run starts from zero only if the user accepts that.
    """
    changed: dict[str, Any] = {}
    if isinstance(message, KeepsIn) and message.directory not in record.checkpoints:
        changed["checkpoints"] = (*record.checkpoints, message.directory)
    if isinstance(message, CheckpointSaved) and not record.saved:
        changed["saved"] = True
    return changed
