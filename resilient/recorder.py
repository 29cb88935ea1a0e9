"""Follows one training call from step boundary to step boundary, and saves what is due.

Where the training is decides what a checkpoint made right now may hold:

    BETWEEN    a boundary lies behind us and nothing has changed since: that boundary
    STEP       the parameters are half-done: the newest boundary that the keeper holds
    CALLBACKS  the update is complete, the user's callbacks are looking at it: the live values, one step
    further BUSY       we ourselves are at work: nothing; what comes meanwhile waits until we are done

So a failure is never saved as a half-done step, and a completed step is never run again.

What it tells the heartbeat is finer (``heartbeat.Phase``) and meant for others: nothing here depends on it.
Our own work belongs to the phase it is done in, except for a checkpoint that the training waits for.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable
from typing import Any

from resilient import entries, schedule
from resilient.composition import Boundary, Call, Composer
from resilient.config import LOSS
from resilient.heartbeat import Heartbeat
from resilient.heartbeat import Phase as Beating
from resilient.host.clock import Clock
from resilient.keeping import Keeper
from resilient.settings import Settings
from resilient.state import streams
from resilient.state.snapshot import Progress, finished


class Phase(enum.Enum):
    """Where a training call is; see the top of this file."""

    BETWEEN = "between"
    STEP = "step"
    CALLBACKS = "callbacks"
    BUSY = "busy"


class Recorder:
    """Keeps the newest boundary of one training call at hand, and hands what is due to a keeper.

    ``on_idle`` is called when what came while it was busy can be dealt with, ``on_saved_already`` with the
    step when a checkpoint was asked for and there is nothing new, ``on_bad_loss`` with that of a state that
    was saved although its loss is not finite.
    """

    def __init__(
        self,
        call: Call,
        settings: Settings,
        composer: Composer,
        keeper: Keeper,
        clock: Clock,
        heartbeat: Heartbeat,
        *,
        resumed: bool,
    ) -> None:
        self._settings = settings
        self._composer = composer
        self._keeper = keeper
        self._clock = clock
        self._heartbeat = heartbeat
        self._phase = Phase.BETWEEN
        self._last_saved_step = call.progress.step
        self._last_saved_s = clock.monotonic()
        # A failure before any new step would only repeat the checkpoint that we have resumed from.
        self._last_failure_step = call.progress.step if resumed else 0
        self._fingerprint: dict[str, object] = {}
        self._outputs: Any = None
        self._judged_step = 0
        self._update_step = call.progress.call_step
        self._start = call.progress
        self.progress = call.progress
        self.on_idle: Callable[[], None] = lambda: None
        self.on_saved_already: Callable[[int], None] = lambda step: None
        self.on_bad_loss: Callable[[int], None] = lambda step: None
        # The first step of a call builds the network's graph, which may take long.
        self._computing = Beating.COMPILING
        self._requested = False
        self._held: Boundary | None = None
        self._boundary: Boundary | None = self._observe()
        composer.demand_savable(self._boundary)

    # What the training tells

    def begin(self) -> None:
        """The boundary before the first step of this process."""
        with self._busy():
            self._settle(self._start, due=False, must=True)
        self._beat_between()

    def step_begins(self) -> None:
        """The network is about to change its parameters."""
        self.pipeline_ran(self._fingerprint)
        self._fingerprint = {}
        self._phase = Phase.STEP
        self._heartbeat.beat(self._computing)

    def pipeline_ran(self, before: dict[str, object]) -> None:
        """Since this fingerprint nothing but the data pipeline has run: what has changed, it has drawn."""
        now = streams.fingerprint()
        if now != before:
            draws = (name for name, value in before.items() if now[name] != value)
            self._composer.pipeline_draws.update(draws)

    def update_done(self, call_step: int, outputs: Any) -> None:
        """A step is complete; callbacks of the user's may follow."""
        self._update_step = call_step
        self._outputs = outputs
        self._computing = Beating.STEP
        self._phase = Phase.CALLBACKS
        self._heartbeat.beat(Beating.CALLBACKS)

    def boundary(self, call_step: int, *, epoch_closed: bool = False, judged: bool = False) -> None:
        """Everything that belongs to a step, or with ``epoch_closed`` to an epoch, has run.

        ``judged`` tells that its evaluation follows.
        """
        with self._busy():
            self._update_step = call_step
            progress = self.progress.at(call_step, epoch_closed=epoch_closed)
            reason = self._reason_to_save(progress.step)
            # An evaluation that the best are kept by must find its boundary held.
            must = self._settings.keep.best is not None and (judged or progress.at_epoch_end)
            self._settle(progress, due=bool(reason), must=must)
            if reason:
                self._save(reason)
        self._beat_between()

    def evaluated(self, results: Any) -> None:
        """The state of the newest boundary was evaluated; where the best are kept by it, it is saved.

        Nothing is believed of a network that the script has changed since that boundary.
        """
        metrics = entries.numbers(results)
        boundary = self._boundary
        if not metrics or boundary is None or not self._keeper.matches(boundary):
            return
        with self._busy():
            self._composer.metrics = self.progress.step, metrics
            best = self._settings.keep.best
            if best is not None and best.by in metrics and self._judged_step != self.progress.step:
                self._judged_step = self.progress.step
                # Once more, now that there is a result to go with it.
                self._keeper.hold(boundary)
                self._save("evaluation")

    def call_finished(self) -> None:
        """The call has returned, or is about to: nothing of it is ever run again."""
        with self._busy():
            self._settle(finished(self.progress), due=True)
            # As upstream: what a scheduled checkpoint has just saved is not saved again under another name.
            with self._heartbeat.during(Beating.SAVING):
                if self.progress.step > self._last_saved_step or not self._keeper.wait():
                    self._save("end")
                if self._keeper.wait():
                    self._last_failure_step = self.progress.step

    def fail(self, reason: str) -> bool:
        """Saves the last completed step, durably; False when there is nothing new to save."""
        with self._busy() as phase:
            if not self._keeper.guards or phase is Phase.BUSY:
                return False
            if phase is Phase.CALLBACKS:
                self.progress = self.progress.at(self._update_step, epoch_closed=False)
                self._boundary = None
            if self.progress.step <= self._last_failure_step:
                return False
            return self._save_failure(reason, self._held if phase is Phase.STEP else self._present())

    def _present(self) -> Boundary:
        """The boundary that the live values are, observed when it was reached, or now."""
        if self._boundary is None:
            self._boundary = self._observe()
        return self._boundary

    def _save_failure(self, reason: str, boundary: Boundary | None) -> bool:
        if boundary is None:
            return False
        with self._heartbeat.during(Beating.SAVING):
            saved_step = self._keeper.commit_failure(boundary, reason, live=boundary is not self._held)
        # What could not be saved has been told.
        self._last_failure_step = saved_step or self._last_failure_step
        return True

    # What others ask

    def request_save(self) -> None:
        """A checkpoint is to be made at the next step boundary. May be called at any time."""
        self._requested = True

    @property
    def phase(self) -> Phase:
        return self._phase

    @property
    def ready(self) -> bool:
        """Whether the newest boundary is what the training is at right now."""
        return self._phase is Phase.BETWEEN

    @property
    def loss_is_finite(self) -> bool | None:
        """Whether the newest loss is a number; None where it is unknown."""
        loss = entries.score(self._outputs, {}).get(LOSS)
        return None if loss is None else math.isfinite(loss)

    # Inside

    def _busy(self) -> _Busy:
        return _Busy(self)

    def _beat_between(self) -> None:
        """What follows a boundary: the next batch; at an epoch's end whatever the script does there."""
        at_end = self.progress.at_epoch_end and not self.progress.epoch_closed
        self._heartbeat.beat(Beating.SCRIPT if at_end else Beating.DATA, self.progress.step)

    def _settle(self, progress: Progress, *, due: bool, must: bool = False) -> None:
        """The present state is a boundary; it is held if the keeper wants it, or it is about to be saved.

        So is that before an epoch's end, always: whatever runs then (an evaluation with other weights, a
        schedule) may change the parameters, and may fail, or take longer than a stop can wait.
        """
        self.progress = progress
        self._boundary = None
        wanted = self._keeper.wants(is_step=not progress.epoch_closed)
        if due or must or wanted or (progress.at_epoch_end and not progress.epoch_closed):
            self._boundary = self._observe()
            self._keeper.hold(self._boundary)
            self._held = self._boundary
        elif progress.at_epoch_end:
            # The epoch's own work is done; the next one's begins with what the counters are now.
            self._boundary = self._observe()
        self._fingerprint = streams.fingerprint()

    def _observe(self) -> Boundary:
        return self._composer.observe(self.progress, self._outputs)

    def _reason_to_save(self, step: int) -> str:
        """Why the boundary after ``step`` is to be saved; empty where it is not."""
        if self._requested and step <= self._last_saved_step:
            self._answer_request(step)
        if not (self._requested or self._is_due(step)) or not self._keeper.accepts():
            return ""
        reason, self._requested = "request" if self._requested else "schedule", False
        return reason

    def _answer_request(self, step: int) -> None:
        """Nothing is new since the last checkpoint; it is asked for again only where it could not be made."""
        with self._heartbeat.during(Beating.SAVING):
            saved = self._keeper.wait()
        if saved:
            self._requested = False
            self.on_saved_already(step)

    def _is_due(self, step: int) -> bool:
        now_s = self._clock.monotonic()
        return schedule.due(self._settings.save, step, self._last_saved_step, now_s, self._last_saved_s)

    def _save(self, reason: str) -> None:
        assert self._boundary is not None
        with self._heartbeat.during(Beating.SAVING):
            self._keeper.commit(self._boundary, reason)
        if self.loss_is_finite is False:
            self.on_bad_loss(self.progress.step)
        self._last_saved_step = self.progress.step
        self._last_saved_s = self._clock.monotonic()


class _Busy:
    """We are at work; afterwards the newest boundary is what the training is at, unless that has failed.

    A class, because ``contextlib``'s generators take several times as long, at every step.
    """

    __slots__ = ("_before", "_recorder")

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._before = recorder._phase

    def __enter__(self) -> Phase:
        self._recorder._phase = Phase.BUSY
        return self._before

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        succeeded = error is None and self._before is not Phase.BUSY
        self._recorder._phase = Phase.BETWEEN if succeeded else self._before
        if succeeded:
            self._recorder.on_idle()
