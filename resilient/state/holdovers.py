"""Objects of finished training calls that hold more than the log of those calls keeps (``finished_calls``).

The log keeps small values, those of each call. An object with large ones (an average of weights, an
accumulator, a long history) is captured at each later boundary instead, as it is then, for as long as the
script holds it: one copy, however many calls it was given to. It has a serial number in its run, and the log
names that:

    "holdovers": {"next": 4, "held": [a holder with its serial number "o" and "call", ...]}    in the document

An attempt that passes by a call gives the object its small values of that call, and the large ones of the
boundary that the run resumes from, as networks have theirs from their first use on. When the resumed call
begins the object is put back once more, whole: whatever the script has done to it on the way there is part of
that state already. Where a later call was given it too ("call" is the last one that is over), the script sees
newer values on that way than it saw then; a warning names them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from resilient.state import nest
from resilient.state.weak_handle import WeakHandle

LOST = {"k": "lost"}


class Holdovers:
    """The objects of one run that have a serial number, as long as they exist. ``following`` is the next."""

    def __init__(self, following: int = 0) -> None:
        self.following = following
        self._handles: dict[int, WeakHandle] = {}
        self._serials: dict[int, int] = {}
        self._calls: dict[int, int] = {}

    def add(self, handle: WeakHandle) -> int:
        """The object's serial number; a new one for an object that has none."""
        known = self.serial_of(handle.get())
        if known is not None:
            return known
        self.know(self.following, handle)
        return self.following - 1

    def know(self, serial: int, handle: WeakHandle) -> None:
        """The object that has this serial number in the run, in this process."""
        self._handles[serial] = handle
        self._serials[id(handle.get())] = serial
        self.following = max(self.following, serial + 1)

    def serial_of(self, one: Any) -> int | None:
        """The object's serial number; None where it has none."""
        serial = self._serials.get(id(one), -1)
        # Another object may have its identity by now.
        return serial if serial in self._handles and self.get(serial) is one else None

    def note_end(self, serial: int, call: int) -> None:
        """A call that was given the object is over."""
        self._calls[serial] = max(call, self.last_call(serial))

    def last_call(self, serial: int) -> int:
        """The last call that is over and was given the object."""
        return self._calls.get(serial, -1)

    def get(self, serial: int) -> Any:
        """The object that has this serial number; None where it is not there."""
        handle = self._handles.get(serial)
        return handle.get() if handle is not None else None

    def present(self, held_by_us: Callable[[Any], int]) -> Iterator[tuple[int, Any]]:
        """Those that the script still holds. ``held_by_us`` counts references of ours beside the handle's."""
        for serial, handle in list(self._handles.items()):
            one = handle.get()
            others = 0 if one is None else held_by_us(one) + 1
            if handle.get(others) is None:
                del self._handles[serial]
            else:
                yield serial, one


def newest(document: Mapping[str, Any]) -> dict[int, Any]:
    """What the numbered objects held at a boundary, by serial number."""
    holders = [*holders_of(document), *document.get("holdovers", {"held": []})["held"]]
    return {saved["o"]: saved for saved in holders if saved is not None and "o" in saved}


def is_newer(late: Any, document: Mapping[str, Any], call: int) -> bool:
    """Whether a later call than this was given the object too, which is ``late`` in a state's document."""
    return late.get("call", -1) > call or any(late is running for running in holders_of(document))


def large_ones(document: Mapping[str, Any]) -> list[bool]:
    """Of each holder of a call, callbacks first, whether it has values in blobs, its own or another's."""
    large = _LargeNodes()
    return [saved is not None and large.has_any(_nodes(saved)) for saved in holders_of(document)]


def holders_of(document: Mapping[str, Any]) -> list[Any]:
    """The holders of a call, callbacks first."""
    return [*document["callbacks"], *(saved for _, saved in document.get("things", []))]


def referred_to(document: Mapping[str, Any]) -> set[int]:
    """The numbers of the objects that a call's holders refer to."""
    holders = [saved for saved in holders_of(document) if saved is not None]
    return {number for saved in holders for number in nest.references(_nodes(saved))}


def _nodes(saved: Any) -> list[Any]:
    return [saved["state"]] if "state" in saved else list(saved["values"].values())


class _LargeNodes:
    """Finds nodes with values in blobs, and those that refer to them by number."""

    def __init__(self) -> None:
        self._numbers: set[int] = set()

    def has_any(self, nodes: list[Any]) -> bool:
        # Not until the first one: what refers to the others comes later.
        return True in [self._is_large(node) for node in nodes]

    def _is_large(self, node: Any) -> bool:
        if isinstance(node, list):
            return self.has_any(node)
        if not isinstance(node, dict):
            return False
        if node["k"] == "same":
            return node["v"] in self._numbers
        large = self.has_any(nest.parts_of(node)) or "t" in node
        if large and "n" in node:
            self._numbers.add(node["n"])
        return large


def without_blobs(document: Mapping[str, Any]) -> dict[str, Any]:
    """A call's document without the values in blobs; a reader finds a note in their place."""
    return {
        **document,
        "callbacks": [_small(saved) for saved in document["callbacks"]],
        "things": [[key, _small(saved)] for key, saved in document["things"]],
    }


def _small(saved: Any) -> Any:
    if saved is None:
        return None
    if "state" in saved:
        return {**saved, "state": _small_node(saved["state"])}
    return {**saved, "values": {key: _small_node(node) for key, node in saved["values"].items()}}


def _small_node(node: Any) -> Any:
    if isinstance(node, list):
        return [_small_node(part) for part in node]
    if not isinstance(node, dict) or "v" not in node:
        return LOST if isinstance(node, dict) and "t" in node else node
    if node["k"] == "object":
        return {**node, "v": {name: _small_node(part) for name, part in node["v"].items()}}
    return {**node, "v": _small_node(node["v"])}


def only_numbers(document: Mapping[str, Any]) -> dict[str, Any]:
    """A call's document with nothing but the serial numbers, for a log that takes no more."""
    return {
        **document,
        "callbacks": [_stub(saved) for saved in document["callbacks"]],
        "things": [[key, _stub(saved)] for key, saved in document["things"]],
    }


def _stub(saved: Any) -> Any:
    return None if saved is None else {**{name: saved[name] for name in ("class", "n", "o")}, "state": LOST}


def split(saved: Any, late: Any) -> tuple[Any, Any]:
    """Of a holder in the log, and the same one at the newest boundary: what is put back of each.

    The log's own values, and for those that it has lost the newest. Either may be None.
    """
    if "state" in saved:
        return (None, late) if _is_lost(saved["state"]) else (saved, None)
    lost = {key for key, node in saved["values"].items() if _is_lost(node)}
    if not lost:
        return saved, None
    small = {key: node for key, node in saved["values"].items() if key not in lost}
    large = {key: node for key, node in late["values"].items() if key in lost}
    return {**saved, "values": small}, {**late, "values": large}


def _is_lost(node: Any) -> bool:
    if not isinstance(node, (dict, list)):
        return False
    if isinstance(node, dict) and node["k"] == "lost":
        return True
    return any(_is_lost(part) for part in (node if isinstance(node, list) else nest.parts_of(node)))
