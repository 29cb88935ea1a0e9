"""Texts and messages that are too long, cut in their middle, with a mark that says how much is missing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

_LEAST = 64


def shortened(text: str, most: int) -> str:
    """A text of about ``most`` characters at most: its beginning and its end."""
    if len(text) <= most:
        return text
    tail = most // 2
    head = most - tail
    return f"{text[:head]} [... {len(text) - most} characters left out ...] {text[-tail:]}"


def text_of(error: BaseException) -> str:
    """The text of an exception; a class of the script's may fail to give one."""
    try:
        return str(error)
    except Exception as failure:  # noqa: BLE001 - the exception itself is what must be told
        return f"<its text cannot be had: {type(failure).__name__}>"


def fitting(message: Mapping[str, Any], limit_bytes: int) -> dict[str, Any]:
    """A message whose JSON has ``limit_bytes`` at most: its longest texts and lists are cut, equally.

    Raises ValueError for one that is not large because of its texts and lists.
    """
    most = limit_bytes
    while most >= _LEAST:
        cut = {name: _cut(value, most) for name, value in message.items()}
        if len(json.dumps(cut)) <= limit_bytes:
            return cut
        most //= 2
    raise ValueError(f"a {message.get('type')} message cannot be cut to {limit_bytes} bytes")


def _cut(value: Any, most: int) -> Any:
    if isinstance(value, str):
        return shortened(value, most)
    if isinstance(value, Mapping):
        return {name: _cut(one, most) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        # A list costs what its entries cost: it has fewer of them than a text has characters.
        entries = max(2, most // _LEAST)
        kept = [_cut(one, most) for one in value[:entries]]
        return kept if len(value) <= entries else [*kept, f"[... {len(value) - entries} more left out ...]"]
    return value
