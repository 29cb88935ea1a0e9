"""Follows one training call from step boundary to step boundary, and saves what is due.

Where the training is decides what a checkpoint made right now may hold:

    BETWEEN    a boundary lies behind us and nothing has changed since: that boundary
    STEP       the parameters are half-done: the last boundary, from its shadow copy
    CALLBACKS  the update is complete, the user's callbacks are looking at it: the live values, one step
    further BUSY       we ourselves are at work: nothing; what comes meanwhile waits until we are done

So a failure is never saved as a half-done step, and a completed step is never run again.
"""

from __future__ import annotations

import enum
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from mindspore import nn

from resilient import entries, schedule
from resilient.codec.record import Record
from resilient.errors import UsageError
from resilient.host.clock import Clock
from resilient.saving import Saver, Snapshot
from resilient.settings import Settings
from resilient.state import capture, counters, streams
from resilient.state.snapshot import SECTION_LEFT_OUT, Progress, encode_extra, finished, left_out
from resilient.store import layout


class Phase(enum.Enum):
    """Where a training call is; see the top of this file."""

    BETWEEN = "between"
    STEP = "step"
    CALLBACKS = "callbacks"
    BUSY = "busy"


@dataclass(frozen=True)
class Boundary:
    """What is captured at a step boundary beside the parameters; cheap enough for every step."""

    progress: Progress
    streams: dict[str, Any]
    callbacks: list[Any] = field(default_factory=list)
    loss_scale: dict[str, Any] = field(default_factory=dict)
    outputs: Any = None


@dataclass(frozen=True)
class Call:
    """One call of ``train`` or ``fit``, or one loop of the user's own.

    ``trained`` is what is being trained, ``network`` the part of it that the weights files hold, ``others``
    further networks of the run by ordinal, ``call_streams`` the random streams when the call began.
    ``evaluations`` are the run's results of evaluations so far: the list itself, because it grows.
    """

    progress: Progress
    ordinal: int
    trained: capture.Cells
    network: nn.Cell
    others: dict[int, capture.Cells] = field(default_factory=dict)
    call_streams: dict[str, Any] = field(default_factory=dict)
    callbacks: list[Any] = field(default_factory=list)
    scale_manager: Any = None
    evaluations: list[Any] = field(default_factory=list)


class Recorder:
    """Keeps the newest boundary of one training call at hand, and hands snapshots to a saver.

    ``shadowed`` tells whether failures are to be saved: it costs one copy of the state per step.
    """

    def __init__(
        self, call: Call, settings: Settings, saver: Saver, clock: Clock, *, shadowed: bool, resumed: bool
    ) -> None:
        self._call = call
        self._settings = settings
        self._saver = saver
        self._clock = clock
        self._layout = capture.Layout(call.trained, settings.saved_network, call.others)
        self._shadow = capture.Shadow(self._layout.parameters) if shadowed else None
        self._phase = Phase.BETWEEN
        self._last_saved_step = call.progress.step
        self._last_saved_s = clock.monotonic()
        # A failure before any new step would only repeat the checkpoint that we have resumed from.
        self._last_failure_step = call.progress.step if resumed else 0
        self._pipeline_draws: set[str] = set()
        self._fingerprint: dict[str, object] = {}
        self._outputs: Any = None
        self._metrics: dict[str, float] = {}
        self._metrics_step = 0
        self._judged_step = 0
        self._update_step = call.progress.call_step
        self.on_idle: Callable[[], None] = lambda: None
        self._boundary = self._observe(call.progress)
        self._check_names()
        self._check_callbacks()

    # What the training tells

    def begin(self) -> None:
        """The boundary before the first step of this process."""
        with self._busy():
            self._settle(self._call.progress)

    def step_begins(self) -> None:
        """The network is about to change its parameters."""
        self.pipeline_ran(self._fingerprint)
        self._fingerprint = {}
        self._phase = Phase.STEP

    def pipeline_ran(self, before: dict[str, object]) -> None:
        """Since this fingerprint nothing but the data pipeline has run: what has changed, it has drawn."""
        now = streams.fingerprint()
        self._pipeline_draws.update(name for name, value in before.items() if now[name] != value)

    def update_done(self, call_step: int, outputs: Any) -> None:
        """A step is complete; callbacks of the user's may follow."""
        self._update_step = call_step
        self._outputs = outputs
        self._phase = Phase.CALLBACKS

    def boundary(self, call_step: int, *, epoch_closed: bool = False) -> None:
        """Everything that belongs to a step, or with ``epoch_closed`` to an epoch, has run."""
        with self._busy():
            self._update_step = call_step
            progress = replace(self.progress, call_step=call_step, epoch_closed=epoch_closed)
            self._settle(progress)
            if self._is_due():
                self._save("schedule")

    def evaluated(self, results: Any) -> None:
        """The state of the newest boundary was evaluated; where the best are kept by it, it is saved.

        Nothing is believed of a network that the script has changed since that boundary.
        """
        metrics = entries.numbers(results)
        if not metrics or self._shadow is None or not self._shadow.matches():
            return
        with self._busy():
            self._metrics, self._metrics_step = metrics, self.progress.step
            best = self._settings.keep.best
            if best is not None and best.by in metrics and self._judged_step != self.progress.step:
                self._judged_step = self.progress.step
                self._save("evaluation")

    def call_finished(self) -> None:
        """The call has returned, or is about to: nothing of it is ever run again."""
        with self._busy():
            self._settle(finished(self.progress))
            # As upstream: what a scheduled checkpoint has just saved is not saved again under another name.
            if self.progress.step > self._last_saved_step or not self._saver.wait():
                self._save("end")
            if self._saver.wait():
                self._last_failure_step = self.progress.step

    def fail(self, reason: str) -> Progress | None:
        """Saves the last completed step, durably; None when there is nothing new to save."""
        with self._busy() as phase:
            if self._shadow is None or phase is Phase.BUSY:
                return None
            live = not self._shadow.whole
            if phase is Phase.CALLBACKS:
                self._boundary, live = self._observe(self._next_progress()), True
            return self._save_failure(reason, live=live)

    def _save_failure(self, reason: str, *, live: bool) -> Progress | None:
        if self.progress.step <= self._last_failure_step:
            return None
        self._saver.wait()
        self._saver.save(self._snapshot(reason, failure=True, live=live))
        if not self._saver.wait():
            return None
        self._last_failure_step = self.progress.step
        return self.progress

    # What others ask

    @property
    def progress(self) -> Progress:
        """The newest boundary."""
        return self._boundary.progress

    @property
    def phase(self) -> Phase:
        return self._phase

    @property
    def ready(self) -> bool:
        """Whether the newest boundary is what the training is at right now."""
        return self._phase is Phase.BETWEEN

    # Inside

    @contextmanager
    def _busy(self) -> Iterator[Phase]:
        phase, self._phase = self._phase, Phase.BUSY
        done = Phase.BETWEEN
        try:
            yield phase
        except BaseException:
            done = phase
            raise
        finally:
            self._phase = done if phase is not Phase.BUSY else phase
        if self._phase is Phase.BETWEEN:
            self.on_idle()

    def _settle(self, progress: Progress) -> None:
        """Makes the present state the newest boundary."""
        if self._shadow is not None:
            # Until the copy is whole, the live values are the boundary, and nobody changes them.
            self._shadow.whole = False
        self._boundary = self._observe(progress)
        if self._shadow is not None:
            self._shadow.refresh()
        self._fingerprint = streams.fingerprint()

    def _next_progress(self) -> Progress:
        return replace(self.progress, call_step=self._update_step, epoch_closed=False)

    def _observe(self, progress: Progress) -> Boundary:
        return Boundary(
            progress=progress,
            streams=streams.capture(),
            callbacks=counters.callback_counters(self._call.callbacks),
            loss_scale=counters.loss_scale_counters(self._call.scale_manager),
            outputs=self._outputs,
        )

    def _is_due(self) -> bool:
        now_s = self._clock.monotonic()
        step = self.progress.step
        return schedule.due(self._settings.save, step, self._last_saved_step, now_s, self._last_saved_s)

    def _save(self, reason: str) -> None:
        self._saver.save(self._snapshot(reason, failure=False, live=True))
        self._last_saved_step = self.progress.step
        self._last_saved_s = self._clock.monotonic()

    def _snapshot(self, reason: str, *, failure: bool, live: bool) -> Snapshot:
        progress = self.progress
        own = list(self._layout.records(None if live else self._shadow))
        # Not on a failure: the other ranks may be gone, and to put parts together takes all of them.
        merged = self._layout.merged() if self._settings.integrated_save and not failure else {}
        shown = {id(p): merged.get(id(p), r) for (_, p), r in zip(self._layout.places, own, strict=True)}
        weights = {} if failure else self._weights(shown)
        records = list(_with_merged(self._layout, own, merged))
        records += entries.records(self._entries())
        return Snapshot(
            prefix=self._settings.prefix,
            step=progress.step,
            epoch=progress.epoch,
            step_in_epoch=progress.step_in_epoch,
            reason=reason,
            failure=failure,
            records=tuple(records),
            extra=encode_extra(self._document(), progress),
            weights=weights,
            info=self._score(),
        )

    def _score(self) -> dict[str, Any]:
        """An evaluation only tells of the state that was evaluated, not of those after it."""
        current = self._metrics_step == self.progress.step
        return entries.score(self._boundary.outputs, self._metrics if current else {})

    def _document(self) -> dict[str, Any]:
        boundary = self._boundary
        return {
            "network": self._call.ordinal,
            "not_trained": [*self._layout.not_trained, *self._entries()],
            "streams": boundary.streams,
            "call_streams": self._call.call_streams,
            "pipeline_draws": sorted(self._pipeline_draws),
            "evaluations": list(self._call.evaluations),
            "callbacks": boundary.callbacks,
            "loss_scale": boundary.loss_scale,
            "loss": entries.loss(boundary.outputs),
        }

    def _weights(self, placed: dict[int, Record]) -> dict[str, tuple[Record, ...]]:
        """The weights files that go with a checkpoint, over the same memory."""
        own = [p for p in capture.parameters([self._call.network]) if not left_out(p.name)]
        chosen = {}
        if self._settings.network_params:
            chosen[layout.NETWORK] = own
        if self._settings.trainable_params:
            chosen[layout.TRAINABLE] = [p for p in own if p.requires_grad]
        return {
            kind: tuple(replace(placed[id(p)], section=0) for p in parameters if id(p) in placed)
            for kind, parameters in chosen.items()
        }

    # The entries that stock reads beside the parameters

    def _entries(self) -> dict[str, Any]:
        return entries.of_boundary(
            self._settings,
            self.progress,
            entries.loss_scale(self._boundary.outputs, self._call.scale_manager),
            self._stock_names(),
        )

    def _stock_names(self) -> set[str]:
        return {p.name for section, p in self._layout.places if section == 0}

    def _check_names(self) -> None:
        taken = self._stock_names() & set(self._entries())
        if taken:
            names = ", ".join(sorted(taken))
            raise UsageError(
                f"append_info names a parameter of the network: {names}", hint="rename the entry"
            )

    def _check_callbacks(self) -> None:
        for callback, state in zip(self._call.callbacks, self._boundary.callbacks, strict=True):
            try:
                json.dumps(state)
            except (TypeError, ValueError) as error:
                raise UsageError(
                    f"state_dict() of {type(callback).__name__} is no JSON: {error}",
                    hint="a callback that is to be resumed gives numbers, strings, lists and dicts",
                ) from error


def _with_merged(covered: capture.Layout, own: list[Record], merged: dict[int, Record]) -> Iterator[Record]:
    """The records; of a split parameter stock gets the whole, and this rank's part travels beside it."""
    for (_, parameter), record in zip(covered.places, own, strict=True):
        if id(parameter) in merged:
            yield merged[id(parameter)]
            yield replace(record, section=SECTION_LEFT_OUT)
        else:
            yield record
