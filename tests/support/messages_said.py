"""Messages for tests, with values where a test does not mind which."""

from __future__ import annotations

from resilient.wire.messages import CheckpointSaved, ExceptionLeft, Resumed


def saved(step, file="CKP", directory="/run/checkpoint/rank_0", generation=0, **more):
    """A checkpoint is committed."""
    values = {"epoch": 1, "reason": "schedule", "seconds": 0.5, **more}
    return CheckpointSaved(step, file=file, directory=directory, generation=generation, **values)


def resumed(step, file="CKP"):
    """A state was read."""
    return Resumed(step, 1, file, "resumed")


def raised(step=0, exception="ValueError", message="bad", **more):
    """An exception leaves the training."""
    values = {"kind": "exception", "traceback": "", "phase": "step", **more}
    return ExceptionLeft(step, exception=exception, message=message, **values)
