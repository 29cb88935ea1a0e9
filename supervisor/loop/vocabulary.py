"""The fields of each message of a worker, and their types: looked at once, before anybody acts on a message.

A message of a type that is not here passes: it is journalled, and nobody reads more of it than its type. A
field that is not named here passes too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

_Check = Callable[[object], bool]


def _count(value: object) -> bool:
    return type(value) is int and 0 <= value < 2**63


def _whole(value: object) -> bool:
    return type(value) is int and abs(value) < 2**63


def _text(value: object) -> bool:
    return isinstance(value, str)


def _number(value: object) -> bool:
    return type(value) in (int, float)


def _flag(value: object) -> bool:
    return isinstance(value, bool)


_REFUSAL: dict[str, _Check] = {"error": _text}

_NEEDED: Mapping[str, Mapping[str, _Check]] = {
    "place": {"directory": _text},
    "keeps_in": {"directory": _text},
    "progress": {"step": _count},
    "replaced": {"program": _text},
    "resuming": {"step": _count},
    "resumed": {"step": _count},
    "saved": {"step": _count},
    "save_failed": {"step": _count},
    "finished": {"complete": _flag},
    "incident": {"kind": _text},
    "unusable": _REFUSAL,
    "nothing_older": _REFUSAL,
    "mismatch": _REFUSAL,
    "usage": _REFUSAL,
    "busy": _REFUSAL,
}
"""What is missing makes a message useless."""

_TYPES: Mapping[str, _Check] = {
    "step": _count,
    "epoch": _count,
    "generation": _count,
    "status": _whole,
    "pid": _count,
    "memory_bytes": _count,
    "seconds": _number,
    "complete": _flag,
    "loss_finite": _flag,
    "left_behind": _flag,
    **dict.fromkeys(("directory", "file", "reason", "message", "text", "error", "hint"), _text),
    **dict.fromkeys(("kind", "exception", "traceback", "phase", "how"), _text),
}
"""A field that is there is of its type, or null."""


_OTHERS = ("hello", "fresh", "skipped", "warning", "remark", "data_worker", "standing_by")
_KNOWN: Mapping[str, Mapping[str, _Check]] = {**{kind: {} for kind in _OTHERS}, **_NEEDED}


def flaw(message: Mapping[str, Any]) -> str:
    """The fault of a message; "" for none. It repeats no value: there may be a key in it."""
    kind = message["type"]
    if kind not in _KNOWN:
        return ""
    for name, check in _KNOWN[kind].items():
        if name not in message:
            return f"{kind} has no {name}"
        if not check(message[name]):
            return f"{kind} has a {name} of a wrong type"
    for name, check in _TYPES.items():
        if message.get(name) is not None and not check(message[name]):
            return f"{kind} has a {name} of a wrong type"
    return ""
