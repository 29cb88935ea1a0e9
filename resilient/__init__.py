"""Resilient: fault tolerance for MindSpore training.

    CheckpointMonitor   drop-in for mindformers.core.CheckpointMonitor
    training            the same for a training loop of one's own
    errors              every error of ours, and what to do about each

The names are imported when they are first used: ``import resilient`` does not import MindSpore.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from resilient import errors
    from resilient.worker.call.custom_loop import training
    from resilient.worker.call.monitor import CheckpointMonitor

__all__ = ["CheckpointMonitor", "errors", "training"]

_HOMES = {
    "CheckpointMonitor": "resilient.worker.call.monitor",
    "training": "resilient.worker.call.custom_loop",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        value = getattr(import_module(_HOMES[name]), name)

        globals()[name] = value
        return value
    if name == "errors":
        return import_module("resilient.errors")
    raise AttributeError(f"module 'resilient' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
