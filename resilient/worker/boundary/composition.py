"""What a step boundary of one training call is made of, and how it becomes a snapshot."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from mindspore import nn

from resilient.codec.tensors import Record
from resilient.config import LOSS, WorkerConfig
from resilient.errors import UsageError
from resilient.policy.settings import Settings
from resilient.run.holdings import PROVEN
from resilient.saving.in_process import Snapshot
from resilient.saving.slots import Header
from resilient.state import capture, counters, execution, random_streams
from resilient.state.cell_attributes import CellAttributes
from resilient.state.cell_modes import CellModes
from resilient.state.copying import Bytes
from resilient.state.finished_calls import FinishedCalls
from resilient.state.side_state import CapturedSideState, SideState
from resilient.state.snapshot import (
    SECTION_KEPT,
    SECTION_LEFT_OUT,
    SECTION_STOCK,
    Progress,
    Recovered,
    encode_extra,
    left_out,
)
from resilient.state.trail import Trail
from resilient.store import layout
from resilient.wire.mirror import MirrorLayout, place
from resilient.worker.boundary import append_info


@dataclass(frozen=True)
class Boundary:
    """What is captured at a step boundary beside the parameters; cheap enough for every step."""

    progress: Progress
    streams: dict[str, Any]
    kept: CapturedSideState = field(default_factory=CapturedSideState)
    loss_scale: dict[str, Any] = field(default_factory=dict)
    context: dict[str, Any] = field(default_factory=dict)
    cell_modes: dict[str, str] = field(default_factory=dict)
    cell_attributes: dict[str, dict[str, Any]] = field(default_factory=dict)
    outputs: Any = None


@dataclass(frozen=True)
class Call:
    """One call of ``train`` or ``fit``, or one loop of the user's own.

    ``trained`` is what ``model`` trains (None in a loop of one's own), ``network`` the part of it that the
    weights files hold, ``others`` further networks of the run by ordinal, ``call_streams`` the random streams
    when the call began.
    ``evaluations`` are the run's results of evaluations so far, ``trail`` the random streams behind what is
    over, ``ended`` what finished calls have left, ``knobs`` the hyperparameters and ``epochs`` the epochs
    that the script has given: they themselves, because they grow. ``things`` are objects outside the network
    that hold state, by key.
    """

    progress: Progress
    ordinal: int
    trained: capture.Cells
    network: nn.Cell
    others: dict[int, capture.Cells] = field(default_factory=dict)
    call_streams: dict[str, Any] = field(default_factory=dict)
    callbacks: list[Any] = field(default_factory=list)
    scale_manager: Any = None
    model: Any = None
    evaluations: list[Any] = field(default_factory=list)
    knobs: dict[str, Any] = field(default_factory=dict)
    epochs: list[int] = field(default_factory=list)
    trail: Trail = field(default_factory=Trail)
    things: list[tuple[str, Any]] = field(default_factory=list)
    ended: FinishedCalls = field(default_factory=FinishedCalls)


class Composer:
    """Observes boundaries of one call, and composes what is saved of them.

    ``pipeline_draws`` are the random streams that the data pipeline was seen to draw from, so far;
    ``metrics`` the results of the newest evaluation, and the step whose state was evaluated. ``marks`` stand
    in the info of each checkpoint. ``side_state`` know what lies beside the network.
    """

    def __init__(
        self, call: Call, settings: Settings, marks: Mapping[str, Any], side_state: SideState
    ) -> None:
        self._call = call
        self._side_state = side_state
        self._settings = settings
        self._marks = marks
        self.layout = capture.Layout(call.trained, settings.saved_network, call.others)
        networks = {**call.others, call.ordinal: call.trained}
        self._modes = CellModes(networks, call.model)
        self._attributes = CellAttributes(networks)
        self.pipeline_draws: set[str] = set()
        self.metrics: tuple[int, dict[str, float]] = (0, {})
        self._stock_names = {place.name for place in self.layout.places if place.section == SECTION_STOCK}
        # Those of several networks may have one name; the section tells them apart.
        self._trained = {f"{place.section}:{place.name}": place.parameter for place in self.layout.places}
        self._trained_names = {id(parameter): name for name, parameter in self._trained.items()}
        self.carries_blobs = True
        side_state.meet(self._holders(), self._trained_names)

    def observe(self, progress: Progress, outputs: Any) -> Boundary:
        """The present state, as the boundary at ``progress``."""
        return Boundary(
            progress=progress,
            streams=random_streams.capture(),
            kept=self._side_state.capture(
                self._call.callbacks, self._call.things, self._trained_names, self._call.ended
            ),
            loss_scale=counters.loss_scale_counters(self._call.scale_manager),
            context=execution.capture(),
            cell_modes=self._modes.capture(),
            cell_attributes=self._attributes.capture(),
            outputs=outputs,
        )

    def fingerprint(self) -> dict[str, object]:
        """What changes when somebody draws from a global random stream."""
        return random_streams.fingerprint()

    def loss_in(self, outputs: Any) -> float | None:
        """The loss out of what a training step returned."""
        return append_info.score(outputs, {}).get(LOSS)

    def metrics_in(self, results: Any) -> dict[str, float]:
        """Those results of an evaluation that are one number each."""
        return append_info.numbers(results)

    def shadow(self) -> capture.Shadow:
        """Memory for a second copy of all that is saved."""
        return capture.Shadow(self.layout.parameters)

    def live(self) -> capture.Live:
        """All that is saved, as it is now."""
        return capture.Live(self.layout.parameters)

    def restore(self, recovered: Recovered) -> None:
        """Puts back what callbacks and things held at the boundary that the run resumes from, which cells
        trained, and the attributes of cells that the training had changed."""
        self._modes.restore(recovered.document.get("cell_modes", {}))
        self._attributes.restore(recovered.document.get("cell_attributes", {}), self._side_state.tell)
        call = self._call
        self._side_state.restore(recovered, call.callbacks, call.things, self._trained, call.ended)

    def note_end(self, progress: Progress) -> None:
        """The call is over: what it leaves is kept for attempts that do not run it again."""
        if progress.call_finished:
            call = self._call
            self._side_state.end_call(
                progress.call, call.callbacks, call.things, self._trained_names, call.ended
            )

    def _holders(self) -> list[Any]:
        return [*self._call.callbacks, *(thing for _, thing in self._call.things)]

    def demand_savable(self, boundary: Boundary) -> None:
        """Raises UsageError, before any training, for what could not be saved later."""
        taken = self._stock_names & set(self._entries(boundary))
        if taken:
            names = ", ".join(sorted(taken))
            raise UsageError(
                f"append_info names a parameter of the network: {names}", hint="rename the entry"
            )

    def header(self, boundary: Boundary) -> Header:
        """What the boundary is beside its tensors."""
        progress = boundary.progress
        found = self._entries(boundary)
        return Header(
            step=progress.step,
            epoch=progress.epoch,
            step_in_epoch=progress.step_in_epoch,
            entries=tuple(append_info.records(found)),
            extra=encode_extra(self._document(boundary, list(found)), progress),
            info=self._score(boundary),
        )

    def snapshot(
        self, boundary: Boundary, reason: str, *, failure: bool, shadow: capture.Shadow | None
    ) -> Snapshot:
        """The boundary as a snapshot, over the shadow's memory, or the live values' without one."""
        own = list(self.layout.records(shadow))
        # Not on a failure: the other ranks may be gone, and to put parts together takes all of them.
        merged = {} if failure else self.merged()
        header = self.header(boundary)
        return Snapshot(
            prefix=self._settings.prefix,
            step=header.step,
            epoch=header.epoch,
            step_in_epoch=header.step_in_epoch,
            reason=reason,
            failure=failure,
            records=(
                *self._with_merged(own, merged),
                *self._blob_records(boundary.kept.blobs if shadow is None else shadow.blobs),
                *header.entries,
            ),
            extra=header.extra,
            weights={} if failure else self._weights(own, merged),
            info=header.info,
        )

    def merged(self) -> dict[int, Record]:
        """The whole of each parameter that automatic parallel has split, where the settings ask for it."""
        return self.layout.merged() if self._settings.integrated_save else {}

    def blobs(self, boundary: Boundary) -> Sequence[Bytes]:
        """What callbacks and things hold in bulk, as long as there is memory for it."""
        return boundary.kept.blobs if self.carries_blobs else ()

    def mirror_layout(self, run_id: str, rank: int, blob_bytes: Sequence[int] = ()) -> MirrorLayout:
        """What lies where in the slots of a mirror of this call, with blobs of these sizes."""
        tensors = [
            (r.name, r.dtype, r.dims, r.section, memoryview(r.data).nbytes) for r in self.layout.records(None)
        ]
        tensors += [(str(n), "UInt8", (size,), SECTION_KEPT, size) for n, size in enumerate(blob_bytes)]
        number = {id(place.parameter): n for n, place in enumerate(self.layout.places)}
        weights = {
            kind: tuple(number[id(p)] for p in parameters if id(p) in number)
            for kind, parameters in self._chosen_weights().items()
        }
        return MirrorLayout(run_id, rank, self._settings.prefix, place(tensors), weights)

    def _weights(self, own: list[Record], merged: dict[int, Record]) -> dict[str, tuple[Record, ...]]:
        """The weights files that go with a checkpoint, over the same memory."""
        places = zip(self.layout.parameters, own, strict=True)
        shown = {id(p): merged.get(id(p), record) for p, record in places}
        return {
            kind: tuple(replace(shown[id(p)], section=0) for p in parameters if id(p) in shown)
            for kind, parameters in self._chosen_weights().items()
        }

    def _chosen_weights(self) -> dict[str, list[Any]]:
        own = [p for p in capture.parameters([self._call.network]) if not left_out(p.name)]
        chosen = {}
        if self._settings.network_params:
            chosen[layout.NETWORK] = own
        if self._settings.trainable_params:
            chosen[layout.TRAINABLE] = [p for p in own if p.requires_grad]
        return chosen

    def _with_merged(self, own: list[Record], merged: dict[int, Record]) -> Iterator[Record]:
        """The records; of a split parameter stock gets the whole, and this rank's part travels beside it."""
        for parameter, record in zip(self.layout.parameters, own, strict=True):
            if id(parameter) in merged:
                yield merged[id(parameter)]
                yield replace(record, section=SECTION_LEFT_OUT)
            else:
                yield record

    def _blob_records(self, blobs: Sequence[Bytes]) -> Iterator[Record]:
        for number, blob in enumerate(blobs):
            yield capture.tensor_record(str(number), blob, "UInt8", SECTION_KEPT)

    def _score(self, boundary: Boundary) -> dict[str, Any]:
        """An evaluation only tells of the state that was evaluated, not of those after it."""
        step, metrics = self.metrics
        score = append_info.score(boundary.outputs, metrics if step == boundary.progress.step else {})
        return {**score, **self._marks}

    def _document(self, boundary: Boundary, entry_names: list[str]) -> dict[str, Any]:
        return {
            "network": self._call.ordinal,
            "not_trained": [*self.layout.not_trained, *entry_names],
            "streams": boundary.streams,
            "call_streams": self._call.call_streams,
            "pipeline_draws": sorted(self.pipeline_draws),
            "evaluations": list(self._call.evaluations),
            "trail": self._call.trail.to_json(),
            **boundary.kept.document,
            "knobs": self._call.knobs,
            "epochs": list(self._call.epochs),
            "loss_scale": boundary.loss_scale,
            "context": boundary.context,
            "cell_modes": boundary.cell_modes,
            "cell_attributes": boundary.cell_attributes,
            "loss": append_info.loss(boundary.outputs),
        }

    def _entries(self, boundary: Boundary) -> dict[str, Any]:
        """What stock reads beside the parameters."""
        return append_info.of_boundary(
            self._settings,
            boundary.progress,
            append_info.loss_scale(boundary.outputs, self._call.scale_manager),
            self._stock_names,
        )


def marks(config: WorkerConfig | None, settings: Settings) -> dict[str, Any]:
    """What stands in the info of each checkpoint, under a supervisor.

    Which attempt made it, so that it can be told from the same step made again. And that the run's record was
    sealed with the key it is made with, so that a seal that is gone is missed (``run.belief``).
    """
    if config is None:
        return {}
    key = config.sealing.key
    proven = key is not None and (settings.sealing is None or settings.sealing.key == key)
    return {"attempt": config.attempt, **({PROVEN: True} if proven else {})}
