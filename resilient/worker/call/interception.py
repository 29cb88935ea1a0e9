"""Stands in front of a function of a class or of a module, or in its place, until it is undone."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any


def stand_before(owner: Any, name: str, look: Callable[[Any], None]) -> Callable[[], None]:
    """Has ``look`` see the first argument of each call, before the call; returns how to undo that."""

    def around(original: Callable[..., Any], one: Any, *args: Any, **kwargs: Any) -> Any:
        look(one)
        return original(one, *args, **kwargs)

    return stand_around(owner, name, around)


def stand_around(owner: Any, name: str, around: Callable[..., Any]) -> Callable[[], None]:
    """Has ``around`` make each call: it gets the function, and its arguments; returns how to undo that."""
    original, own = getattr(owner, name), vars(owner).get(name)

    @functools.wraps(original)
    def method(*args: Any, **kwargs: Any) -> Any:
        return around(original, *args, **kwargs)

    setattr(owner, name, method)

    def undo() -> None:
        # Somebody may stand before us by now, and keeps that place.
        if vars(owner).get(name) is method:
            if own is None:
                delattr(owner, name)
            else:
                setattr(owner, name, own)

    return undo
