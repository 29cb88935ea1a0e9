"""What a run keeps beside the parameters of its networks: the state of callbacks, and of a loop's objects.

It is captured at each boundary that is held, as JSON for the state's document and as blobs (``state.nest``),
and put back before the first resumed step. In the document:

    "callbacks": [a holder, or null, ...]          in the order of the call's list (``state.holder``)
    "things":    [[key, a holder], ...]            what a loop was given, or what was seen in its script
    "clocks":    [wall clock, monotonic clock]     when it was captured
    "ended":     {"t": 3, "length": 812}           the blob with both, as ``finished_calls`` keeps them
"""

from __future__ import annotations

import contextlib
import time
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from mindspore.train import Callback

from resilient.state import counters, nest, nest_reader, stateful_object
from resilient.state.columns import Columns
from resilient.state.finished_calls import FinishedCalls
from resilient.state.nest_writer import NestWriter, TooMuchError
from resilient.state.snapshot import Recovered
from resilient.state.stateful_object import Clocks, InitialValues

_SLOW_S = 0.02
_ENDED_BYTES = 4 * 1024
_OFTEN = 3

Things = Sequence[tuple[str, Any]]
"""What a loop was given, by a key that is the same in each attempt."""


@dataclass(frozen=True)
class CapturedSideState:
    """What was held at one boundary: JSON, and blobs over memory that changes with the next step."""

    document: dict[str, Any] = field(default_factory=lambda: {"callbacks": [], "things": []})
    blobs: tuple[np.ndarray[Any, Any], ...] = ()


class SideState:
    """Captures and puts back, and remembers how each object was when it was first seen.

    ``complain`` hears, once each, of what cannot be carried.
    """

    def __init__(self, complain: Callable[[str], None]) -> None:
        self._complain = complain
        self._beginnings: dict[int, tuple[Any, InitialValues]] = {}
        self._columns = Columns()
        self._told: set[str] = set()
        self._slow: dict[str, int] = {}

    def meet(self, holders: Iterable[Any], trained: Mapping[int, str]) -> None:
        """Notes the values of objects that are new here: until now only the script has changed them."""
        for one in holders:
            self._beginning(one, trained)

    def _beginning(self, one: Any, trained: Mapping[int, str]) -> InitialValues:
        known = self._beginnings.get(id(one))
        if known is not None and known[0]() is one:
            return known[1]
        beginning = InitialValues()
        if not stateful_object.keeps_state(one):
            # The script's own objects: whatever they do when they are looked at, the training begins.
            with contextlib.suppress(Exception):
                beginning = InitialValues.of(one, trained)
        self._beginnings[id(one)] = _reference(one), beginning
        return beginning

    # Capturing

    def capture(
        self, callbacks: Sequence[Any], things: Things, trained: Mapping[int, str], ended: FinishedCalls
    ) -> CapturedSideState:
        """What these hold now. ``trained`` are the names of the parameters that the checkpoint has anyway."""
        if not callbacks and not things and not ended.length:
            return CapturedSideState()
        writer = NestWriter(trained, self._columns)
        document = self._document(writer, callbacks, things, trained)
        self._tell_left(writer.left)
        if ended.length:
            document["ended"] = {"t": len(writer.blobs), "length": ended.length}
            writer.blobs.append(np.frombuffer(ended.blob, np.uint8))
        return CapturedSideState(document, tuple(writer.blobs))

    def _document(
        self, writer: NestWriter, callbacks: Sequence[Any], things: Things, trained: Mapping[int, str]
    ) -> dict[str, Any]:
        for one in (*callbacks, *(thing for _, thing in things)):
            writer.know(one)
        return {
            "callbacks": [self._write(writer, one, trained) for one in callbacks],
            "things": [[key, self._write(writer, thing, trained)] for key, thing in things],
            "clocks": [time.time(), time.monotonic()],
        }

    def at_end(self, callbacks: Sequence[Any], things: Things, trained: Mapping[int, str]) -> dict[str, Any]:
        """What they hold when their call is over, for those that come by it without running it.

        Large arrays are left out: they would have to be kept for each call.
        """
        writer = NestWriter(trained, inline_bytes=_ENDED_BYTES)
        return dict(stateful_object.without_blobs(self._document(writer, callbacks, things, trained)))

    def _write(self, writer: NestWriter, one: Any, trained: Mapping[int, str]) -> Any:
        began_s = time.perf_counter()
        name = type(one).__name__
        try:
            return stateful_object.write(writer, one, self._beginning(one, trained))
        except TooMuchError:
            self.tell(f"{name} holds too much to be kept at each step: {_LOST}")
        except Exception as error:  # noqa: BLE001 - the script's own code: the training does not end by our asking
            what = "the callback " if isinstance(one, Callback) else ""
            self.tell(f"the state of {what}{name} cannot be saved: {type(error).__name__}: {error}")
        finally:
            self._note_time(name, time.perf_counter() - began_s)
        return None

    def _tell_left(self, left: Mapping[str, str]) -> None:
        found: dict[str, list[str]] = {}
        for path, kind in left.items():
            if path not in self._told:
                self._told.add(path)
                owner, _, name = path.partition(".")
                found.setdefault(owner, []).append(f"{name} ({kind})" if name else kind)
        for owner, names in found.items():
            more = f" and {len(names) - 5} more" if len(names) > 5 else ""
            self.tell(f"{owner} holds what no checkpoint can keep: {', '.join(names[:5])}{more}. {_LOST}")

    def _note_time(self, name: str, seconds: float) -> None:
        if seconds > _SLOW_S:
            self._slow[name] = self._slow.get(name, 0) + 1
            if self._slow[name] == _OFTEN:
                self.tell(
                    f"{name} holds so much that looking at it takes {seconds * 1000:.0f} ms at each step "
                    "that is kept; a state_dict() that returns less takes less"
                )

    def tell(self, text: str) -> None:
        """Tells something once."""
        if text not in self._told:
            self._told.add(text)
            self._complain(text)

    # Putting back

    def restore(
        self, recovered: Recovered, callbacks: Sequence[Any], things: Things, trained: Mapping[str, Any]
    ) -> None:
        """Puts back what was held at the boundary that the run resumes from."""
        blobs = recovered.blobs()
        self._restore(recovered.document, blobs, callbacks, things, trained)

    def restore_ended(
        self,
        recovered: Recovered,
        call: int,
        callbacks: Sequence[Any],
        things: Things,
        trained: Mapping[int, str],
        log: FinishedCalls,
    ) -> None:
        """Puts back what they held when a call was over that is not run again.

        The state from the very end of a call has it as its own, and not yet in its ``log``, where the states
        of the calls that follow now must have it.
        """
        if call == recovered.progress.call:
            self.restore(recovered, callbacks, things, {})
            log.add(call, self.at_end(callbacks, things, trained), self.tell)
        else:
            ended = recovered.ended().of_call(call)
            if ended is not None:
                self._restore(ended, [], callbacks, things, {})

    def _restore(
        self,
        document: Mapping[str, Any],
        blobs: Sequence[memoryview],
        callbacks: Sequence[Any],
        things: Things,
        trained: Mapping[str, Any],
    ) -> None:
        try:
            self._match(document, blobs, callbacks, things, trained)
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            # Without encryption it is anybody's JSON.
            self.tell(
                f"the saved state of callbacks and objects makes no sense: {type(error).__name__}: {error}"
            )

    def _match(
        self,
        document: Mapping[str, Any],
        blobs: Sequence[memoryview],
        callbacks: Sequence[Any],
        things: Things,
        trained: Mapping[str, Any],
    ) -> None:
        matched = [*_by_class(document["callbacks"], callbacks), *_by_key(document.get("things", []), things)]
        reader = nest_reader.NestReader(blobs, trained)
        source = stateful_object.NestSource(reader, blobs, Clocks(*document.get("clocks", (0.0, 0.0))))
        for saved, one in matched:
            if one is not None and "n" in saved:
                reader.know(saved["n"], one)
        for saved, one in matched:
            if one is None:
                self.tell(
                    f"the state of {saved['class'].rpartition(':')[2]} is not used: the script has none"
                )
            else:
                self._put_back(source, one, saved)
        for path, why in reader.lost.items():
            self.tell(f"{path} cannot be put back: {why}")

    def _put_back(self, source: stateful_object.NestSource, one: Any, saved: Any) -> None:
        if "class" not in saved:
            # As it was written before everything was carried.
            counters.restore_callback(one, saved)
            return
        beginning = self._beginning(one, {})
        try:
            for remark in stateful_object.restore(source, one, saved, beginning):
                self.tell(remark)
        except Exception as error:  # noqa: BLE001 - the script's own code, or a class that has changed
            self.tell(
                f"the state of {type(one).__name__} cannot be put back: {type(error).__name__}: {error}"
            )


_LOST = (
    "A restart begins with the script's own value; to have it saved, define state_dict() and "
    "load_state_dict(state)"
)


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


def _reference(one: Any) -> Callable[[], Any]:
    try:
        return weakref.ref(one)
    except TypeError:
        return lambda: one
