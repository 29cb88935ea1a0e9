"""Counters of loss scales outside the network, and numbers as JSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import mindspore
import numpy as np

# The callbacks whose counters earlier versions have saved.
_CALLBACK_COUNTERS = ("EarlyStopping", "ReduceLROnPlateau", "History", "LossMonitor")
_DOUBLE_BYTES = 8
# Under this name what a callback says of itself.
_STATE = "state_dict"
_LOSS_SCALE_COUNTERS = ("loss_scale", "cur_iter", "last_overflow_iter", "increase_ratio", "decrease_ratio")


def restore_callback(callback: Any, state: Mapping[str, Any]) -> None:
    """Puts back what earlier versions have saved of a callback: its own state, or some counters."""
    if _STATE in state:
        if all(callable(getattr(callback, name, None)) for name in (_STATE, "load_state_dict")):
            callback.load_state_dict(from_json(state[_STATE]))
    elif type(callback).__name__ in _CALLBACK_COUNTERS:
        for name, value in state.items():
            setattr(callback, name, from_json(value))


def loss_scale_counters(scale_manager: Any) -> dict[str, Any]:
    """The counters of a loss scale manager that lives in Python; empty without one."""
    found = {name: getattr(scale_manager, name, None) for name in _LOSS_SCALE_COUNTERS}
    return {name: value for name, value in found.items() if isinstance(value, (int, float))}


def restore_loss_scale(scale_manager: Any, counters: Mapping[str, Any]) -> None:
    """The inverse of :func:`loss_scale_counters`."""
    for name, value in counters.items():
        if hasattr(scale_manager, name):
            setattr(scale_manager, name, value)


def to_json(value: Any) -> Any:
    """A number, text, array, Tensor or nest of them, as JSON that :func:`from_json` turns back into the same
    types and bits.

    Raises TypeError for anything else.
    """
    if isinstance(value, (np.generic, np.ndarray)) and not _is_plain(value.dtype):
        raise TypeError(f"no JSON form for NumPy's {value.dtype}")
    if isinstance(value, np.generic):
        return {"numpy": str(value.dtype), "value": value.item()}
    if isinstance(value, np.ndarray):
        return {"array": str(value.dtype), "value": value.tolist()}
    if isinstance(value, mindspore.Tensor):
        return {"tensor": to_json(value.asnumpy())}
    if isinstance(value, dict):
        return {"dict": [[to_json(k), to_json(v)] for k, v in value.items()]}
    if isinstance(value, (list, tuple)):
        return {type(value).__name__: [to_json(item) for item in value]}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"no JSON form for {type(value).__name__}")


def _is_plain(dtype: np.dtype[Any]) -> bool:
    """Whether Python's own numbers and texts hold its values exactly."""
    return dtype.kind in "biuU" or (dtype.kind == "f" and dtype.itemsize <= _DOUBLE_BYTES)


def from_json(value: Any) -> Any:
    """The inverse of :func:`to_json`."""
    if not isinstance(value, dict):
        return value
    readers: Mapping[str, Callable[[], Any]] = {
        "numpy": lambda: np.dtype(value["numpy"]).type(value["value"]),
        "array": lambda: np.array(value["value"], dtype=value["array"]),
        "tensor": lambda: mindspore.Tensor(from_json(value["tensor"])),
        "dict": lambda: {from_json(k): from_json(v) for k, v in value["dict"]},
        "list": lambda: [from_json(item) for item in value["list"]],
        "tuple": lambda: tuple(from_json(item) for item in value["tuple"]),
    }
    return next(readers[kind]() for kind in readers if kind in value)
