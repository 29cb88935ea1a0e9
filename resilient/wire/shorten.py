"""Texts that are too long, cut in their middle, with a mark that says how much is missing."""

from __future__ import annotations


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
