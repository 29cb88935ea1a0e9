"""Which saved state belongs to which object of the script: callbacks by order and class, others by key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from resilient.state import nest

Things = Sequence[tuple[str, Any]]
"""What a loop was given, by a key that is the same in each attempt."""


def pairs_of(document: Mapping[str, Any], callbacks: Sequence[Any], things: Things) -> list[tuple[Any, Any]]:
    """Pairs of a saved state and the object that it belongs to, or None."""
    return [*_by_class(document["callbacks"], callbacks), *_by_key(document.get("things", []), things)]


def _by_class(saved: Sequence[Any], callbacks: Sequence[Any]) -> list[tuple[Any, Any]]:
    """Pairs of a saved state and the callback that it belongs to: by order and by class."""
    left = list(callbacks)
    pairs = []
    for place, state in enumerate(saved):
        if state is None:
            continue
        if "class" not in state:
            if place < len(callbacks):
                pairs.append((state, callbacks[place]))
            continue
        found = next((c for c in left if nest.name_of(type(c)) == state["class"]), None)
        left = [c for c in left if c is not found]
        pairs.append((state, found))
    return pairs


def _by_key(saved: Sequence[Any], things: Things) -> list[tuple[Any, Any]]:
    pairs = []
    present = dict(things)
    for key, state in saved:
        if state is None:
            continue
        found = present.get(key)
        fits = found is not None and nest.name_of(type(found)) == state["class"]
        pairs.append((state, found if fits else None))
    return pairs


def words_for(saved: Any, one: Any) -> str:
    """The values of an object that are put back, as the beginning of a sentence."""
    name = type(one).__name__
    names = [nest.path_to(name, key) for key in saved.get("values", {"": None})]
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return f"{', '.join(names[:5])}{more} {'has' if len(names) == 1 else 'have'}"
