"""What a run keeps beside the parameters of its networks: the state of callbacks, and of a loop's objects.

It is captured at each boundary that is held, as JSON for the state's document and as blobs (``state.nest``),
and put back before the first resumed step. In the document:

    "callbacks": [a holder, or null, ...]          in the order of the call's list (``stateful_object``)
    "things":    [[key, a holder], ...]            what a loop was given, or what was seen in its script
    "clocks":    [wall clock, monotonic clock]     when it was captured
    "holdovers": objects of finished calls that hold more than that log keeps (``holdovers``)
    "ended":     {"t": 3, "length": 812}           the blob with both, as ``finished_calls`` keeps them
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from mindspore.train import Callback

from resilient.state import counters, nest_reader, stateful_object
from resilient.state.columns import Columns
from resilient.state.finished_calls import FinishedCalls
from resilient.state.holdovers import (
    Holdovers,
    holders_of,
    is_newer,
    large_ones,
    newest,
    only_numbers,
    referred_to,
    split,
    without_blobs,
)
from resilient.state.matching import Things, pairs_of, words_for
from resilient.state.nest_writer import NestWriter, TooMuchError
from resilient.state.snapshot import Recovered
from resilient.state.stateful_object import Clocks, InitialValues
from resilient.state.weak_handle import WeakHandle

_SLOW_S = 0.02
_ENDED_BYTES = 4 * 1024
_OFTEN = 3


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
        self._beginnings: dict[int, tuple[WeakHandle, InitialValues]] = {}
        self._columns = Columns()
        self._told: set[str] = set()
        self._slow: dict[str, int] = {}

    def meet(self, holders: Iterable[Any], trained: Mapping[int, str]) -> None:
        """Notes the values of objects that are new here: until now only the script has changed them."""
        self._beginnings = {n: known for n, known in self._beginnings.items() if known[0].get() is not None}
        for one in holders:
            self._beginning(one, trained)

    def _handle(self, one: Any) -> WeakHandle:
        self._beginning(one, {})
        return self._beginnings[id(one)][0]

    def _beginning(self, one: Any, trained: Mapping[int, str]) -> InitialValues:
        known = self._beginnings.get(id(one))
        if known is not None and known[0].get() is one:
            return known[1]
        beginning = InitialValues()
        if not stateful_object.keeps_state(one):
            # The script's own objects: whatever they do when they are looked at, the training begins.
            with contextlib.suppress(Exception):
                beginning = InitialValues.of(one, trained)
        self._beginnings[id(one)] = WeakHandle(one), beginning
        return beginning

    # Capturing

    def capture(
        self, callbacks: Sequence[Any], things: Things, trained: Mapping[int, str], ended: FinishedCalls
    ) -> CapturedSideState:
        """What these hold now, and what holdovers of finished calls do. ``trained`` are the names of the
        parameters that the checkpoint has anyway."""
        if not callbacks and not things and not ended.length:
            return CapturedSideState()
        writer = NestWriter(trained, self._columns)
        running = [*callbacks, *(thing for _, thing in things)]
        present = ended.holdovers.present(self._columns.references)
        held = [one for _, one in present if not any(one is thing for thing in running)]
        document = self._document(writer, callbacks, things, trained, ended.holdovers, held)
        self._tell_left(writer.left)
        if ended.length:
            document["ended"] = {"t": len(writer.blobs), "length": ended.length}
            writer.blobs.append(np.frombuffer(ended.blob, np.uint8))
        return CapturedSideState(document, tuple(writer.blobs))

    def _document(
        self,
        writer: NestWriter,
        callbacks: Sequence[Any],
        things: Things,
        trained: Mapping[int, str],
        holdovers: Holdovers,
        held: Sequence[Any] = (),
    ) -> dict[str, Any]:
        for one in (*callbacks, *(thing for _, thing in things), *held):
            writer.know(one)

        def write(one: Any) -> Any:
            saved, serial = self._write(writer, one, trained), holdovers.serial_of(one)
            if saved is None or serial is None:
                return saved
            return {**saved, "o": serial, "call": holdovers.last_call(serial)}

        document: dict[str, Any] = {
            "callbacks": [write(one) for one in callbacks],
            "things": [[key, write(thing)] for key, thing in things],
            "clocks": [time.time(), time.monotonic()],
        }
        if holdovers.following:
            saved = [write(one) for one in held]
            document["holdovers"] = {"next": holdovers.following, "held": [one for one in saved if one]}
        return document

    def end_call(
        self,
        call: int,
        callbacks: Sequence[Any],
        things: Things,
        trained: Mapping[int, str],
        log: FinishedCalls,
    ) -> None:
        """A call is over: what they hold is kept for those that come by it without running it.

        Large values are left out of the log, which would have them for each call: their holders become
        holdovers.
        """
        writer = NestWriter(trained, inline_bytes=_ENDED_BYTES)
        document = self._document(writer, callbacks, things, trained, Holdovers())
        objects = [*callbacks, *(thing for _, thing in things)]
        self._number(call, document, objects, large_ones(document), log.holdovers)
        if log.add(call, without_blobs(document)):
            return
        self._number(call, document, objects, [True] * len(objects), log.holdovers)
        if log.add(call, only_numbers(document), only_numbers=True):
            self.tell(_TOO_LONG)
        else:
            self.tell(_FULL)

    def _number(
        self,
        call: int,
        document: Any,
        objects: Sequence[Any],
        are_large: Sequence[bool],
        holdovers: Holdovers,
    ) -> None:
        for saved, one, is_large in zip(holders_of(document), objects, are_large, strict=True):
            known = holdovers.serial_of(one)
            if saved is not None and (is_large or known is not None):
                saved["o"] = holdovers.add(self._handle(one)) if known is None else known
                holdovers.note_end(saved["o"], call)

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
        self,
        recovered: Recovered,
        callbacks: Sequence[Any],
        things: Things,
        trained: Mapping[str, Any],
        log: FinishedCalls,
    ) -> None:
        """Puts back what was held at the boundary that the run resumes from, by holdovers too."""
        document = recovered.document
        with self._telling_nonsense():
            source = self._source(document, recovered.blobs(), trained)
            pairs = pairs_of(document, callbacks, things)
            self._recognize(pairs, log.holdovers)
            for saved in newest(document).values():
                one = log.holdovers.get(saved["o"])
                if one is None:
                    self._offer([saved], source)
                elif not any(one is other for _, other in pairs):
                    # In place: another object may hold the parts of this one since its call was skipped.
                    pairs.append(({**saved, "moved": []}, one))
            self._fill(pairs, source)

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
            self.restore(recovered, callbacks, things, {}, log)
            self.end_call(call, callbacks, things, trained, log)
            return
        with self._telling_nonsense():
            document = log.of_call(call)
            if document is not None:
                self._pass_by(call, pairs_of(document, callbacks, things), document, recovered, log)

    def _pass_by(
        self,
        call: int,
        pairs: list[tuple[Any, Any]],
        document: Mapping[str, Any],
        recovered: Recovered,
        log: FinishedCalls,
    ) -> None:
        late = newest(recovered.document)
        known = [(saved, one) for saved, one in pairs if one is not None and saved.get("o") in late]
        self._recognize(known, log.holdovers)
        source = self._late_source(recovered, late, log.holdovers)
        halves = [(split(saved, late[saved["o"]])[1], one) for saved, one in known]
        large = [(saved, one) for saved, one in halves if saved is not None]
        self._fill(large, source)
        # Of an object that only others refer to now, these have the values.
        held = referred_to(document)
        # The log's values in the order in which they were written: they refer to each other.
        small = [
            (split(saved, late[saved["o"]])[0] if saved.get("o") in late else saved, one)
            for saved, one in pairs
            if one is not None or saved["n"] not in held
        ]
        self._fill([pair for pair in small if pair[0] is not None], self._source(document, [], {}))
        for saved, _ in known:
            log.holdovers.note_end(saved["o"], call)
        for saved, one in large:
            if is_newer(late[saved["o"]], recovered.document, call):
                self.tell(
                    f"{words_for(saved, one)} the values of the resumed step behind a training call that is "
                    "over: those that it had there are not kept, because a later call was given it too"
                )

    def _late_source(
        self, recovered: Recovered, late: Mapping[int, Any], holdovers: Holdovers
    ) -> stateful_object.NestSource:
        source = self._source(recovered.document, recovered.blobs(), {})
        self._offer([*holders_of(recovered.document), *late.values()], source)
        for serial, saved in late.items():
            # Those that were passed by before, to which others may refer.
            if holdovers.get(serial) is not None:
                source.reader.know(saved["n"], holdovers.get(serial))
        return source

    def _recognize(self, pairs: Sequence[tuple[Any, Any]], holdovers: Holdovers) -> None:
        for saved, one in pairs:
            if one is not None and "o" in saved:
                holdovers.know(saved["o"], self._handle(one))

    @contextlib.contextmanager
    def _telling_nonsense(self) -> Iterator[None]:
        try:
            yield
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            # Without encryption it is anybody's JSON.
            self.tell(
                f"the saved state of callbacks and objects makes no sense: {type(error).__name__}: {error}"
            )

    def _source(
        self, document: Mapping[str, Any], blobs: Sequence[memoryview], trained: Mapping[str, Any]
    ) -> stateful_object.NestSource:
        reader = nest_reader.NestReader(blobs, trained)
        return stateful_object.NestSource(reader, blobs, Clocks(*document.get("clocks", (0.0, 0.0))))

    def _fill(self, pairs: Sequence[tuple[Any, Any]], source: stateful_object.NestSource) -> None:
        for saved, one in pairs:
            if one is not None and "n" in saved:
                source.reader.know(saved["n"], one)
        missing = [saved for saved, one in pairs if one is None]
        self._offer(missing, source)
        for saved, one in pairs:
            if one is not None:
                self._put_back(source, one, saved)
        for saved in missing:
            if not source.reader.found_place_for(saved["n"]):
                self.tell(
                    f"the state of {saved['class'].rpartition(':')[2]} is not used: the script has none"
                )
        for path, why in source.reader.lost.items():
            self.tell(f"{path} cannot be put back: {why}")

    def _offer(self, holders: Sequence[Any], source: stateful_object.NestSource) -> None:
        """Others may refer to these, or to what they hold: a variable that a loop has left behind is one."""
        for saved in holders:
            if saved is not None and "class" in saved:
                for number, node in stateful_object.numbered(saved):
                    source.reader.offer(number, node)

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


_TOO_LONG = (
    "what callbacks and objects hold at the end of a training call is too much to be kept for each call: a "
    "script that is restarted behind such a call finds there what they hold at the resumed step"
)
_FULL = (
    "so many training calls are over that what their callbacks and objects hold is not kept any more: a "
    "script that is restarted behind such a call finds them there as it made them"
)
