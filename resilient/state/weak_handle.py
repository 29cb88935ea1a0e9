"""Refers to an object of the script's without keeping it alive.

Python has no weak references to lists, dictionaries, sets and tuples. Such an object is held here, and counts
as gone once nobody else refers to it.
"""

from __future__ import annotations

import sys
import weakref
from typing import Any


class WeakHandle:
    """Refers to one object. Of an object without weak references there must be one handle only."""

    __slots__ = ("_own", "_weak")

    def __init__(self, one: Any) -> None:
        self._own: Any = None
        self._weak: weakref.ref[Any] | None = None
        try:
            self._weak = weakref.ref(one)
        except TypeError:
            self._own = one

    def get(self, others: int = 0) -> Any:
        """The object; None once it is gone. So many ``others`` of ours hold it as well."""
        if self._weak is not None:
            return self._weak()
        return self._own if self._references() > _OWN_REFERENCES + others else None

    def _references(self) -> int:
        return sys.getrefcount(self._own)


def _own_references() -> int:
    handle = WeakHandle(None)
    handle._weak, handle._own = None, []
    return handle._references()


_OWN_REFERENCES = _own_references()
"""As many as Python counts of an object that a handle alone refers to."""
