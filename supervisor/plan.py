"""What a supervisor goes by."""

from __future__ import annotations

from dataclasses import dataclass

from resilient.config import WorkerConfig
from supervisor.restart import RestartPolicy
from supervisor.watchman import Limits


@dataclass(frozen=True)
class Plan:
    """What the supervisor goes by: the worker's configuration, when to restart, how long to wait."""

    worker: WorkerConfig
    restart: RestartPolicy
    grace_s: float
    standby: bool = False
    limits: Limits = Limits()
