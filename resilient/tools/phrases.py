"""Times, durations and paragraphs, as people read them."""

from __future__ import annotations

import textwrap
import time

WIDTH = 88


def clock(time_s: float | None) -> str:
    """A point in time for people, in their own time zone."""
    try:
        return (
            time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(time_s)) if time_s is not None else "some time"
        )
    except (OverflowError, OSError, ValueError):
        return "some time"


def length(seconds: float) -> str:
    """A duration, in its two largest units."""
    minutes, rest_s = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = [(days, "d"), (hours, "h"), (minutes, "min"), (rest_s, "s")]
    largest = next((i for i, (number, _) in enumerate(parts) if number), 3)
    return " ".join(f"{number} {unit}" for number, unit in parts[largest : largest + 2] if number) or "0 s"


def stop(text: str) -> str:
    """A sentence's end."""
    text = text.strip() or "no reason is given"
    return text if text.endswith((".", "!", "?")) else f"{text}."


def paragraph(text: str, indent: str = "  ") -> str:
    """A text in lines that a terminal holds."""
    return "\n".join(
        textwrap.fill(line, WIDTH, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False)
        for line in text.splitlines()
    )


def item(text: str) -> str:
    """A text as an entry of a list below a paragraph."""
    lines = " ".join(text.split())
    return textwrap.fill(
        lines,
        WIDTH,
        initial_indent="  ",
        subsequent_indent="    ",
        break_long_words=False,
        break_on_hyphens=False,
    )
