"""Follows one training call from step boundary to step boundary, and saves what is due.

Which checkpoint can be made right now follows from where the training is: ``phases`` has that as a table. So
a failure is never saved as a half-done step, and a completed step that can be saved is never run again.

Our own work (copying, saving) is no phase: it is done beside one. Signals that come meanwhile wait until it
is done. An exception in it leaves the phase as it was.

The heartbeat hears finer phases (``heartbeat.Phase``), for others: nothing here depends on them. Our own work
belongs to the phase it is done in, except for a checkpoint that the training waits for. This file imports no
MindSpore, so that random events can drive it in a test.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from resilient.host.clock import Clock
from resilient.policy import schedule
from resilient.state.snapshot import Progress, finished
from resilient.wire.heartbeat import Heartbeat
from resilient.wire.heartbeat import Phase as Beating
from resilient.worker.boundary.phases import JUDGEABLE, SIGNALS_WAIT, CallEvent, CallState, Phases, Savable

if TYPE_CHECKING:
    # They import MindSpore; the recorder itself is tested without it.
    from resilient.policy.settings import Settings
    from resilient.worker.boundary.composition import Boundary, Call, Composer
    from resilient.worker.boundary.keeper import Keeper


class Recorder:
    """Keeps the newest boundary of one training call at hand, and hands what is due to a keeper.

    ``on_idle`` is called when what came while it was busy can be dealt with, ``on_saved_already`` with the
    step when a checkpoint was asked for and there is nothing new, ``on_bad_loss`` with that of a state that
    was saved although its loss is not finite. ``resumes_hooks`` tells that a later attempt calls the script's
    callbacks too: a step is complete once all of them have run.
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
        resumes_hooks: bool,
    ) -> None:
        self._resumes_hooks = resumes_hooks
        self._settings = settings
        self._composer = composer
        self._keeper = keeper
        self._clock = clock
        self._heartbeat = heartbeat
        self._phases = Phases()
        self._working = 0
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
        # The newest boundary, where it was observed.
        self._boundary: Boundary | None = None
        composer.demand_savable(self._observe(call.progress))

    # What the training tells

    def begin(self) -> None:
        """The boundary before the first step of this process."""
        with self._work():
            self._settle(self._start, due=False, must=True)
        self._beat_between()

    def epoch_opens(self) -> None:
        """The begin hooks of an epoch are about to run; since the boundary only the pipeline has."""
        self.pipeline_ran(self._fingerprint)
        self._fingerprint = {}
        self._phases.feed(CallEvent.EPOCH_OPENS)

    def epoch_is_open(self) -> None:
        """The begin hooks of an epoch have run; until the next step only the pipeline does."""
        self._fingerprint = self._composer.fingerprint()
        self._phases.feed(CallEvent.EPOCH_IS_OPEN)

    def step_begins(self) -> None:
        """The parameters are about to change, by hooks of the script's or by the network."""
        self.pipeline_ran(self._fingerprint)
        self._fingerprint = {}
        self._phases.feed(CallEvent.STEP_BEGINS)
        self._heartbeat.beat(self._computing)

    def pipeline_ran(self, before: dict[str, object]) -> None:
        """Since this fingerprint nothing but the data pipeline has run: what has changed, it has drawn."""
        now = self._composer.fingerprint()
        if now != before:
            draws = (name for name, value in before.items() if now[name] != value)
            self._composer.pipeline_draws.update(draws)

    def update_done(self, call_step: int, outputs: Any) -> None:
        """A step is complete; callbacks of the user's may follow."""
        self._update_step = call_step
        self._outputs = outputs
        self._computing = Beating.STEP
        self._phases.feed(CallEvent.UPDATE_DONE)
        self._heartbeat.beat(Beating.CALLBACKS)

    def boundary(
        self, call_step: int, *, epoch_closed: bool = False, judged: bool = False, cut: bool = False
    ) -> None:
        """Everything that belongs to a step, or with ``epoch_closed`` to an epoch, has run.

        ``judged`` tells that its evaluation follows, ``cut`` that the epoch is left after this step: its end
        hooks follow although it has more steps.
        """
        if self._phases.is_over:
            return
        with self._work():
            self._update_step = call_step
            progress = self.progress.at(call_step, epoch_closed=epoch_closed)
            reason = self._reason_to_save(progress.step)
            # An evaluation that the best are kept by must find its boundary held.
            must = self._settings.keep.best is not None and (judged or progress.at_epoch_end)
            self._settle(progress, due=bool(reason), must=must, cut=cut)
            if reason and not self._save(reason):
                self._requested = self._requested or reason == "request"
        self._beat_between()

    def evaluated(self, results: Any) -> None:
        """The state of the newest boundary was evaluated; where the best are kept by it, it is saved.

        Nothing is believed of a network that the script has changed since that boundary.
        """
        metrics = self._composer.metrics_in(results)
        boundary = self._boundary
        if not metrics or boundary is None or self._phases.state not in JUDGEABLE:
            return
        if not self._keeper.matches(boundary):
            return
        with self._work():
            self._composer.metrics = self.progress.step, metrics
            best = self._settings.keep.best
            if best is not None and best.by in metrics and self._judged_step != self.progress.step:
                self._judged_step = self.progress.step
                # Once more, now that there is a result to go with it.
                self._keeper.hold(boundary)
                self._save("evaluation")

    def call_ends(self) -> None:
        """The call's end hooks are about to run, and may change the parameters: the boundary is held."""
        with self._work():
            if self._keeper.guards and self._phases.savable is Savable.LIVE:
                present = self._present()
                if self._keeper.held is not present:
                    self._keeper.hold(present)
            self._phases.feed(CallEvent.CALL_ENDS)

    def call_finished(self) -> None:
        """The call has returned, or is about to: nothing of it is ever run again."""
        if self._phases.is_over:
            return
        with self._work():
            self._settle(finished(self.progress), due=True)
            # As upstream: what a scheduled checkpoint has just saved is not saved again under another name.
            with self._heartbeat.during(Beating.SAVING):
                is_saved = self.progress.step <= self._last_saved_step and self._keeper.wait()
                if (is_saved or self._save("end")) and self._keeper.wait():
                    self._last_failure_step = self.progress.step

    def fail(self, reason: str) -> bool:
        """An exception leaves the call, or it was left before its end: saves the newest whole step, durably.

        What follows is the script's own code, so nothing is believed of the live values any more. False when
        there is nothing new to save.
        """
        # An exception has left whatever work of ours was under way.
        self._working = 0
        savable = self._phases.feed(CallEvent.FAIL)
        if savable is Savable.NEXT:
            self.progress, self._boundary = self.progress.at(self._update_step, epoch_closed=False), None
            if self._resumes_hooks:
                # The callbacks behind the one that failed would miss this step: it runs again, with all.
                savable = Savable.HELD
        return self._secure(reason, savable)

    def secure(self, reason: str) -> bool:
        """A stop signal: saves the newest whole step, durably; the training may go on. False: nothing new."""
        return not self._working and self._secure(reason, self._phases.savable)

    def _secure(self, reason: str, savable: Savable) -> bool:
        with self._work():
            if not self._keeper.guards or savable is Savable.NOTHING:
                return False
            boundary = self._best_of(savable)
            if boundary is None or boundary.progress.step <= self._last_failure_step:
                return False
            with self._heartbeat.during(Beating.SAVING):
                live = boundary is not self._keeper.held
                saved_step = self._keeper.commit_failure(boundary, reason, live=live)
            # The keeper has told what could not be saved.
            self._last_failure_step = max(saved_step, self._last_failure_step)
            return True

    def _best_of(self, savable: Savable) -> Boundary | None:
        """The newest boundary that can be saved; where the live values cannot be observed, the one held."""
        if savable is Savable.HELD:
            return self._keeper.held
        try:
            return self._present()
        except Exception:
            if self._keeper.held is None:
                raise
            return self._keeper.held

    def _present(self) -> Boundary:
        """The boundary that the live values are, observed when it was reached, or now."""
        if self._boundary is None:
            # What the pipeline has drawn since then is no part of it.
            self.pipeline_ran(self._fingerprint)
            self._boundary = self._observe(self.progress)
        return self._boundary

    # What others ask

    def request_save(self) -> None:
        """A checkpoint is to be made at the next step boundary. May be called at any time."""
        self._requested = True

    @property
    def phase(self) -> CallState:
        """Where the call is."""
        return self._phases.state

    @property
    def ready(self) -> bool:
        """Whether a signal can be dealt with right now: no newer boundary is near, and we are not at work."""
        return not self._working and self._phases.state not in SIGNALS_WAIT

    @property
    def loss_is_finite(self) -> bool | None:
        """Whether the newest loss is a number; None where it is unknown."""
        loss = self._composer.loss_in(self._outputs)
        return None if loss is None else math.isfinite(loss)

    # Inside

    def _work(self) -> _Work:
        return _Work(self)

    def _beat_between(self) -> None:
        """What follows a boundary: the next batch; at an epoch's end whatever the script does there."""
        at_end = self._phases.state is CallState.CLOSING
        self._heartbeat.beat(Beating.SCRIPT if at_end else Beating.DATA, self.progress.step)

    def _settle(self, progress: Progress, *, due: bool, must: bool = False, cut: bool = False) -> None:
        """The present state is a boundary; it is held if the keeper wants it, or it is about to be saved.

        So is that before an epoch's end, always: whatever runs then (an evaluation with other weights, a
        schedule) may change the parameters, and may fail, or take longer than a stop can wait. Until it is
        held the live values are this boundary, should this work of ours fail.
        """
        closing = (progress.at_epoch_end or cut) and not progress.epoch_closed
        self.progress, self._boundary, self._fingerprint = progress, None, {}
        self._phases.feed(CallEvent.BOUNDARY)
        wanted = self._keeper.wants(is_step=not progress.epoch_closed)
        if due or must or wanted or closing:
            self._boundary = self._observe(progress)
            self._keeper.hold(self._boundary)
        elif progress.at_epoch_end:
            # The epoch's own work is done; the next one's begins with what the counters are now.
            self._boundary = self._observe(progress)
        self._fingerprint = self._composer.fingerprint()
        if progress.call_finished:
            self._phases.feed(CallEvent.FINISH)
        elif closing:
            self._phases.feed(CallEvent.EPOCH_ENDS)

    def _observe(self, progress: Progress) -> Boundary:
        return self._composer.observe(progress, self._outputs)

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

    def _save(self, reason: str) -> bool:
        """Whether the newest boundary could be handed over to be committed; the keeper has told why not."""
        assert self._boundary is not None
        with self._heartbeat.during(Beating.SAVING):
            handed_over = self._keeper.commit(self._boundary, reason)
        self._last_saved_s = self._clock.monotonic()
        if handed_over:
            self._last_saved_step = self.progress.step
            if self.loss_is_finite is False:
                self.on_bad_loss(self.progress.step)
        return handed_over


class _Work:
    """We are at work; afterwards, unless that has failed, what came meanwhile is dealt with.

    A class, because ``contextlib``'s generators take several times as long, at every step.
    """

    __slots__ = ("_recorder",)

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    def __enter__(self) -> None:
        self._recorder._working += 1

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        recorder = self._recorder
        recorder._working = max(0, recorder._working - 1)
        if error is None and recorder.ready:
            recorder.on_idle()
