"""A script that replaces its own process (``os.execv`` and all that lead to it) says so before it does.

Nothing of ours is in the program that comes then: no step of it is seen, and nothing is saved.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import Any

NOTHING_IS_SAVED = (
    "NOTHING IS SAVED from here on: the script replaces its own process by {program}, which resilient-run "
    "does not look into; start resilient-run with that program, or set what it needs before"
)
_MOST_CHARACTERS = 200


def install(tell: Callable[[str], None]) -> None:
    """Has ``tell`` hear the name of the program; "" where it could not be started after all."""
    for name in ("execv", "execve"):
        setattr(os, name, _telling(getattr(os, name), os.getpid(), tell))


def _telling(original: Callable[..., Any], ours: int, tell: Callable[[str], None]) -> Callable[..., Any]:
    @functools.wraps(original)
    def execute(path: Any, argv: Any, *environment: Any) -> Any:
        if os.getpid() != ours or not _can_begin(path):
            # A forked child becomes another program, as it should; a search tries many a place.
            return original(path, argv, *environment)
        tell(_name(path, argv))
        try:
            return original(path, argv, *environment)
        except BaseException:
            tell("")
            raise

    return execute


def _can_begin(path: Any) -> bool:
    try:
        return isinstance(path, int) or os.access(path, os.X_OK)
    except (TypeError, ValueError):
        return False


def _name(path: Any, argv: Any) -> str:
    """The program and its first argument: by that a person knows it. More may be secret."""
    try:
        return " ".join(os.fsdecode(word) for word in (path, *tuple(argv)[1:2]))[:_MOST_CHARACTERS]
    except (TypeError, ValueError):
        return "another program"
