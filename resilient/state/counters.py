"""Counters outside the network that decide how training goes on: those of callbacks and loss scales."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import mindspore
import numpy as np

# Counters of MindSpore's own callbacks that decide how training goes on.
_CALLBACK_COUNTERS: Mapping[str, tuple[str, ...]] = {
    "EarlyStopping": ("wait", "best", "stopped_epoch"),
    "ReduceLROnPlateau": ("wait", "best", "cooldown_counter"),
    "History": ("history", "epoch"),
    "LossMonitor": ("_last_print_time",),
}
_DOUBLE_BYTES = 8
# Under this name what a callback says of itself.
_STATE = "state_dict"
_LOSS_SCALE_COUNTERS = ("loss_scale", "cur_iter", "last_overflow_iter", "increase_ratio", "decrease_ratio")


def callback_counters(callbacks: list[Any], complain: Callable[[str], None]) -> list[Any]:
    """The counters of each callback, in order, as JSON; null for those that keep none that we know.

    A callback of the user's takes part by having ``state_dict()`` and ``load_state_dict(state)``: nests of
    numbers, strings, arrays and Tensors. ``complain`` hears of one whose state cannot be taken: it is null.
    """
    return [_counters(callback, complain) for callback in callbacks]


def _counters(callback: Any, complain: Callable[[str], None]) -> Any:
    try:
        if keeps_state(callback):
            return {_STATE: to_json(callback.state_dict())}
        names = _CALLBACK_COUNTERS.get(type(callback).__name__, ())
        return {name: to_json(getattr(callback, name)) for name in names if hasattr(callback, name)} or None
    except Exception as error:  # noqa: BLE001 - the script's own code: the training does not end by our asking
        name = type(callback).__name__
        complain(f"the state of the callback {name} cannot be saved: {type(error).__name__}: {error}")
        return None


def keeps_state(callback: Any) -> bool:
    """Whether a callback takes part with a state of its own."""
    return all(callable(getattr(callback, name, None)) for name in ("state_dict", "load_state_dict"))


def restore_callbacks(callbacks: list[Any], counters: list[Any]) -> None:
    """The inverse of :func:`callback_counters`; a list that changed is matched as far as it goes."""
    for callback, state in zip(callbacks, counters, strict=False):
        if state is None:
            continue
        if _STATE in state:
            if keeps_state(callback):
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
