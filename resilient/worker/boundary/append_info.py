"""What stands in a checkpoint beside the parameters, for stock to read: counters, loss scale, append_info.

``epoch_num`` (Int64), ``step_num`` (Int64, over the whole run), ``loss_scale`` (Float32), ``global_step`` (a
parameter of the optimizer's where it has one), ``global_batch_size`` where given, and what the user's
``append_info`` names. Names and types are upstream's.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

import numpy as np

from resilient.codec.tensors import Record, info_record
from resilient.config import LOSS
from resilient.errors import ResilientError
from resilient.policy.settings import OFFSETS, Settings
from resilient.state import capture, counters
from resilient.state.snapshot import Progress


def of_boundary(
    settings: Settings, progress: Progress, scale: float, parameter_names: Collection[str]
) -> dict[str, Any]:
    """The entries of a step boundary, by name; ``parameter_names`` are taken."""
    append = dict(settings.append)
    offsets = {name: _offset(append.pop(name, 0)) for name in OFFSETS}
    found: dict[str, Any] = {
        "epoch_num": progress.epoch + offsets["epoch_num"],
        "step_num": progress.step + offsets["step_num"],
        "loss_scale": scale,
    }
    if "global_step" not in parameter_names:
        found["global_step"] = progress.step
    if settings.global_batch_size is not None:
        found["global_batch_size"] = settings.global_batch_size
    return {**found, **append}


def records(entries: Mapping[str, Any]) -> Iterator[Record]:
    """The entries as records of the container."""
    for name, value in entries.items():
        if isinstance(value, (bool, int, float, str)):
            yield info_record(name, value)
        else:
            yield capture.tensor_record(name, np.array(value.asnumpy()), str(value.dtype))


def loss(outputs: Any) -> Any:
    """The loss out of what a training step returned, exactly; None when it returned none that we know."""
    first = outputs[0] if isinstance(outputs, (list, tuple)) and outputs else outputs
    if not callable(getattr(first, "asnumpy", None)):
        return counters.to_json(first) if isinstance(first, (int, float)) else None
    array = np.asarray(first.asnumpy())
    # A whole batch of outputs is no loss: nothing that runs at the end of an epoch takes it for one.
    return counters.to_json(array) if array.size == 1 and array.dtype.kind == "f" else None


def score(outputs: Any, metrics: Mapping[str, float]) -> dict[str, Any]:
    """What retention may judge a checkpoint by: the loss of its step and the metrics of its evaluation."""
    found: dict[str, Any] = {}
    value = counters.from_json(loss(outputs))
    if value is not None:
        found[LOSS] = float(value)
    if metrics:
        found["metrics"] = dict(metrics)
    return found


def numbers(results: Any) -> dict[str, float]:
    """Those results of an evaluation that are one number each, by name; none for what is no dict."""
    if not isinstance(results, Mapping):
        return {}
    found = {}
    for name, value in results.items():
        array = np.asarray(value) if isinstance(value, (int, float, np.generic, np.ndarray)) else None
        if isinstance(name, str) and array is not None and array.size == 1 and array.dtype.kind in "fiub":
            found[name] = float(array.reshape(()))
    return found


def loss_scale(outputs: Any, scale_manager: Any) -> float:
    """The loss scale in force: what the step returned as its third output, or the manager's, or none."""
    if isinstance(outputs, (list, tuple)) and len(outputs) >= 3:
        try:
            return float(outputs[2].asnumpy())
        except (AttributeError, TypeError, ValueError):
            return 1.0
    try:
        return float(scale_manager.get_loss_scale()) if scale_manager is not None else 1.0
    except (AttributeError, TypeError, ValueError, ResilientError):
        return 1.0


def _offset(value: Any) -> int:
    return int(value) if isinstance(value, (int, float)) else 0
