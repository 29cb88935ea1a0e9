"""The training state as a plain value: what is captured at a step boundary, kept, and put back.

A state is its tensors (records of the checkpoint's plaintext, see ``codec.container``) and one JSON document
that travels beside them as the container's ``extra``:

    {"format": 1,
     "progress":    where in the run the boundary lies (Progress),
     "network":     ordinal of the network that was being trained, among those of the run,
     "not_trained": names in section 0 that are no parameters of it (counters, append_info),
     "streams":     random streams at the boundary (streams.py),
     "call_streams":random streams when the training call began (replaying a data pipeline starts there),
     "pipeline_draws": which of Python's and NumPy's global streams the data pipeline was seen to draw from,
     "evaluations": results of the evaluations between training calls, in order (null: run it again),
     "callbacks":   counters of MindSpore's own stateful callbacks, in the order of the call's list,
     "loss_scale":  counters of a loss scale manager that lives in Python,
     "loss":        the last loss, for what runs at the end of an epoch}

Sections of the records: 0 is what stock reads, 1 the parameters of the same network that stock leaves out,
2 + n the parameters of the run's n-th network when another one was being trained.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from resilient.errors import CorruptError

FORMAT = 1
SECTION_STOCK = 0
SECTION_LEFT_OUT = 1
SECTION_OTHER = 2

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
        return self.call_step > 0 and self.step_in_epoch == self.steps_per_epoch


def finished(progress: Progress) -> Progress:
    """The same boundary, with its call over."""
    return replace(progress, call_finished=True, epoch_closed=True)


def encode_extra(document: Mapping[str, Any], progress: Progress) -> bytes:
    """The JSON document of a state as bytes."""
    complete = {**document, "format": FORMAT, "progress": asdict(progress)}
    return json.dumps(complete, separators=(",", ":"), allow_nan=True).encode()


def decode_extra(data: bytes) -> tuple[dict[str, Any], Progress]:
    """The inverse of :func:`encode_extra`.

    Raises CorruptError for what is no such document. The bytes were authenticated before; this guards
    against a checkpoint of a future format.
    """
    try:
        document = json.loads(data)
        if document["format"] != FORMAT:
            raise CorruptError(f"training state of format {document['format']}; this version reads {FORMAT}")
        return document, Progress(**document["progress"])
    except (ValueError, KeyError, TypeError, AssertionError, RecursionError) as error:
        raise CorruptError(f"the training state's description makes no sense: {error}") from error


def left_out(name: str) -> bool:
    """Whether stock keeps a parameter of this name out of its files."""
    return any(marker in name for marker in LEFT_OUT_MARKERS)


@dataclass(frozen=True)
class Tensor:
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

    tensors: Mapping[tuple[int, str], Tensor]
    document: Mapping[str, Any]
    progress: Progress
    source: str

    def of_network(self, ordinal: int) -> dict[str, Tensor]:
        """The values of one network's parameters by name; empty when the state holds none of them."""
        if ordinal != self.document["network"]:
            return self._section(SECTION_OTHER + ordinal)
        shown = self._section(SECTION_STOCK)
        trained = {name: t for name, t in shown.items() if name not in self.document["not_trained"]}
        return {**trained, **self._section(SECTION_LEFT_OUT)}

    def after(self, ordinal: int) -> Recovered:
        """What is left once this network has its values: those of the others, in memory of their own.

        The memory they were read from may be a slot of the mirror, which the training writes again.
        """
        own = {SECTION_STOCK, SECTION_LEFT_OUT}
        done = own if ordinal == self.document["network"] else {SECTION_OTHER + ordinal}
        left = {key: tensor for key, tensor in self.tensors.items() if key[0] not in done}
        copies = {key: replace(tensor, data=memoryview(bytes(tensor.data))) for key, tensor in left.items()}
        return replace(self, tensors=copies)

    def _section(self, section: int) -> dict[str, Tensor]:
        return {name: tensor for (number, name), tensor in self.tensors.items() if number == section}
