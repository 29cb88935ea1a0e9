"""The training state as a plain value: what is captured at a step boundary, kept, and put back.

A state is its tensors (records of the checkpoint's plaintext, see ``codec.container``) and one JSON document
that travels beside them as the container's ``extra``:

    {"format": 1,
     "progress":    where in the run the boundary lies (Progress),
     "network":     ordinal of the network that was being trained, among those of the run,
     "not_trained": names in section 0 that are no parameters of it (counters, append_info),
     "streams":     random streams at the boundary (random_streams.py),
     "call_streams":random streams when the training call began (replaying a data pipeline starts there),
     "pipeline_draws": which of Python's and NumPy's global streams the data pipeline was seen to draw from,
     "evaluations": results of the evaluations between training calls, in order (null: run it again),
     "trail":       random streams after each finished call and each evaluation (trail.py),
     "callbacks":   what callbacks hold, in the order of the call's list (side_state.py),
     "things":      what a loop of the user's own was given beside its cells, "clocks" when that was,
     "holdovers":   what objects of finished calls hold in bulk (holdovers.py),
     "ended":       both, as the finished calls have left them: where that lies (finished_calls.py),
     "knobs":       hyperparameters that the script gave, by network (knobs.py),
     "epochs":      how many epochs the script asked of each call so far,
     "loss_scale":  counters of a loss scale manager that lives in Python,
     "context":     settings of MindSpore's context that decide about numbers (execution.py),
     "cell_modes":  which cells train and which predict (cell_modes.py),
     "loss":        the last loss, for what runs at the end of an epoch,
     "adopted":     only in a state of stock MindSpore's: the name of its file (adopted_document)}

Sections of the records: 0 is what stock reads, 1 the parameters of the same network that stock leaves out,
2 + n the parameters of the run's n-th network when another one was being trained, 2**30 the blobs of what
callbacks hold, by number.
"""

from __future__ import annotations

import json
from collections.abc import Container, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from resilient.errors import CorruptError
from resilient.state.finished_calls import FinishedCalls
from resilient.state.holdovers import Holdovers

FORMAT = 1
SECTION_STOCK = 0
SECTION_LEFT_OUT = 1
SECTION_OTHER = 2
SECTION_KEPT = 2**30

# Stock leaves these out of its files: they are scratch space to it. Gradient accumulators are not scratch
# space in the middle of an accumulation, so we carry them in a section of our own.
LEFT_OUT_MARKERS = ("accu_grads", "fi_parameter", "_cache", "expert_load")


@dataclass(frozen=True)
class Progress:
    """A step boundary: between two optimizer updates, or between the last one and an epoch's end.

    ``step`` and ``epoch`` count from 1 over the whole run, ``step_in_epoch`` from 1 within the epoch.
    ``call`` is the ordinal of the training call (from 0) and ``call_step`` counts within it; the
    difference to the run's counters is ``base_step`` and ``base_epoch``. ``epoch_closed`` tells whether the
    end-of-epoch work (evaluation, callbacks) has run, ``call_finished`` whether the call has returned.
    """

    call: int
    call_step: int
    steps_per_epoch: int
    base_step: int = 0
    base_epoch: int = 0
    epoch_closed: bool = False
    call_finished: bool = False

    def __post_init__(self) -> None:
        assert self.steps_per_epoch > 0
        assert self.call_step >= 0

    def at(self, call_step: int, *, epoch_closed: bool) -> Progress:
        """Another boundary of the same call. (``dataclasses.replace`` takes twice as long, at every step.)"""
        return Progress(
            self.call,
            call_step,
            self.steps_per_epoch,
            self.base_step,
            self.base_epoch,
            epoch_closed,
            self.call_finished,
        )

    @property
    def step(self) -> int:
        return self.base_step + self.call_step

    @property
    def call_epoch(self) -> int:
        """The epoch of ``call_step`` within the call, from 1; 0 before the first step."""
        return (self.call_step + self.steps_per_epoch - 1) // self.steps_per_epoch

    @property
    def epoch(self) -> int:
        return self.base_epoch + self.call_epoch

    @property
    def step_in_epoch(self) -> int:
        return (self.call_step - 1) % self.steps_per_epoch + 1 if self.call_step else 0

    @property
    def at_epoch_end(self) -> bool:
        return self.call_step > 0 and self.call_step % self.steps_per_epoch == 0


_FLAGS = ("epoch_closed", "call_finished")


def finished(progress: Progress) -> Progress:
    """The same boundary, with its call over."""
    return replace(progress, call_finished=True, epoch_closed=True)


def encode_extra(document: Mapping[str, Any], progress: Progress) -> bytes:
    """The JSON document of a state as bytes."""
    complete = {**document, "format": FORMAT, "progress": asdict(progress)}
    return json.dumps(complete, separators=(",", ":"), allow_nan=True).encode()


def adopted_document(source: str) -> dict[str, Any]:
    """The document of a state that stock MindSpore has saved in the file ``source``.

    Stock saves no random streams, no counters of callbacks and no results of evaluations. Which of its
    entries are parameters only the network can tell.
    """
    return {
        "adopted": source,
        "network": 0,
        "not_trained": [],
        "streams": {},
        "call_streams": {},
        "pipeline_draws": [],
        "evaluations": [],
        "callbacks": [],
        "loss_scale": {},
        "loss": None,
    }


def decode_extra(data: bytes) -> tuple[dict[str, Any], Progress]:
    """The inverse of :func:`encode_extra`.

    Raises CorruptError for what is no such document. The bytes were authenticated before; this guards
    against a checkpoint of a future format.
    """
    try:
        document = json.loads(data)
        if document["format"] != FORMAT:
            raise CorruptError(f"training state of format {document['format']}; this version reads {FORMAT}")
        return document, _progress(document["progress"])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CorruptError(f"the training state's description makes no sense: {error}") from error


def _progress(fields: Mapping[str, Any]) -> Progress:
    # Held before Progress is made: without encryption this is anybody's JSON.
    for name, value in fields.items():
        kind, least = (bool, False) if name in _FLAGS else (int, 1 if name == "steps_per_epoch" else 0)
        if type(value) is not kind or value < least:
            raise ValueError(f"{name} is {value!r}")
    return Progress(**fields)


def left_out(name: str) -> bool:
    """Whether stock keeps a parameter of this name out of its files."""
    return any(marker in name for marker in LEFT_OUT_MARKERS)


@dataclass(frozen=True)
class TensorValue:
    """A parameter's value outside the framework.

    ``dtype`` is MindSpore's name of it ("Float32"), ``shape`` its dimensions, ``data`` the raw
    little-endian bytes in row-major order.
    """

    dtype: str
    shape: tuple[int, ...]
    data: memoryview


@dataclass(frozen=True)
class Recovered:
    """A state that was read back: its tensors by (section, name), its document, and where it came from."""

    tensors: Mapping[tuple[int, str], TensorValue]
    document: Mapping[str, Any]
    progress: Progress
    source: str

    @property
    def adopted(self) -> str | None:
        """The file of stock MindSpore's that the state comes from; None for one of our own."""
        return self.document.get("adopted")

    @property
    def saved_progress(self) -> Progress:
        """The boundary that was saved; ``progress`` lies a step further where a batch is left out."""
        fields = self.document.get("progress")
        return self.progress if fields is None else _progress(fields)

    def of_network(self, ordinal: int, known: Container[str] = ()) -> dict[str, TensorValue]:
        """The values of one network's parameters by name; empty when the state holds none of them.

        ``known`` are the network's own names: of a state that stock has saved, numbers and texts under
        other names are entries of append_info.
        """
        if ordinal != self.document["network"]:
            return self._section(SECTION_OTHER + ordinal)
        shown = self._section(SECTION_STOCK)
        trained = {name: t for name, t in shown.items() if name not in self.document["not_trained"]}
        if self.adopted is not None:
            trained = {n: t for n, t in trained.items() if n in known or not _is_entry(t)}
        return {**trained, **self._section(SECTION_LEFT_OUT)}

    def blobs(self) -> list[memoryview]:
        """The blobs of what callbacks and things hold, in order."""
        found = self._section(SECTION_KEPT)
        return [found[str(number)].data.cast("B") for number in range(len(found))]

    def ended(self, holdovers: Holdovers | None = None) -> FinishedCalls:
        """What the finished calls have left. ``holdovers`` are those that this process has met already."""
        holdovers = holdovers or Holdovers()
        holdovers.following = max(holdovers.following, _following(self.document))
        place = self.document.get("ended")
        blobs = self.blobs()
        if place is None or place["t"] >= len(blobs):
            return FinishedCalls(b"", holdovers)
        return FinishedCalls(bytes(blobs[place["t"]][: place["length"]]), holdovers)

    def without_side_state(self) -> Recovered:
        """The same without what callbacks and things hold, once they have it."""
        left = {key: tensor for key, tensor in self.tensors.items() if key[0] != SECTION_KEPT}
        return replace(self, tensors=left)

    def after(self, ordinal: int) -> Recovered:
        """What is left once this network has its values: those of the others, in memory of their own.

        The memory they were read from may be a slot of the mirror, which the training writes again.
        """
        own = {SECTION_STOCK, SECTION_LEFT_OUT}
        done = own if ordinal == self.document["network"] else {SECTION_OTHER + ordinal}
        left = {key: tensor for key, tensor in self.tensors.items() if key[0] not in done}
        copies = {key: replace(tensor, data=memoryview(bytes(tensor.data))) for key, tensor in left.items()}
        return replace(self, tensors=copies)

    def _section(self, section: int) -> dict[str, TensorValue]:
        return {name: tensor for (number, name), tensor in self.tensors.items() if number == section}


def _following(document: Mapping[str, Any]) -> int:
    # Without encryption it is anybody's JSON.
    found = document.get("holdovers")
    number = found.get("next") if isinstance(found, dict) else 0
    return number if type(number) is int else 0


def _is_entry(tensor: TensorValue) -> bool:
    """Whether it may be an entry of append_info: one number, or a text."""
    return tensor.dtype == "str" or tensor.shape == ()
