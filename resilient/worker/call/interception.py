"""Stands in front of a function of a class or of a module, until it is undone."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any


def stand_before(owner: Any, name: str, look: Callable[[Any], None]) -> Callable[[], None]:
    """Has ``look`` see the first argument of each call, before the call; returns how to undo that."""
    original, own = getattr(owner, name), vars(owner).get(name)

    @functools.wraps(original)
    def method(one: Any, *args: Any, **kwargs: Any) -> Any:
        look(one)
        return original(one, *args, **kwargs)

    setattr(owner, name, method)

    def undo() -> None:
        # Somebody may stand before us by now, and keeps that place.
        if vars(owner).get(name) is method:
            if own is None:
                delattr(owner, name)
            else:
                setattr(owner, name, own)

    return undo
