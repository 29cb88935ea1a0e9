"""``Model.train``, ``.fit`` and ``.eval`` of an unmodified script, as calls of a run.

A wrapped call gets two callbacks of ours: one before the script's own, which learns first that a step is
complete, and one after them, where the step boundary is. Skipping, resuming and recording are decided by the
``Timeline``; what is saved and when is the ``Recorder``'s.
"""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any

from mindspore import nn
from mindspore.train import Model
from mindspore.train.callback import _checkpoint

from resilient.config import DEFAULT_KEEP, DEFAULT_SAVE
from resilient.policy.settings import Settings
from resilient.state import capture, random_streams
from resilient.state.hidden import hidden_parameters
from resilient.state.script_variables import reached_by
from resilient.state.unrestorable import network_findings, pair_findings, pipeline_findings
from resilient.wire.messages import ScriptMismatch
from resilient.worker.boundary.composition import Call
from resilient.worker.boundary.watched_call import WatchedCall
from resilient.worker.call.evaluating import watch_evaluations
from resilient.worker.call.monitor import CheckpointMonitor
from resilient.worker.call.passage import Arguments, Passage
from resilient.worker.call.script_calls import ScriptCalls
from resilient.worker.call.stock_names import StockNames
from resilient.worker.call.timeline import Timeline, Way
from resilient.worker.call.unsaved_training import UnsavedTraining
from resilient.worker.process.dataset_workers import registered
from resilient.worker.session.state_finder import demand_steps


class Course:
    """The training calls of one script, in a session that has a supervisor."""

    def __init__(self, calls: ScriptCalls, defaults: Settings) -> None:
        self._calls = calls
        self._session = calls.session
        self._defaults = defaults
        self._inside = threading.local()
        self._has_optimizer = False
        self._entered = 0
        self._unsaved = UnsavedTraining(self._warn_of_unseen, self._is_watched)
        self.watched: WatchedCall | None = None

    @property
    def complete(self) -> bool:
        """Whether no training call was left before its end, or is still at work on a thread."""
        return not self._is_watched() and all(timeline.complete for timeline in self._timelines)

    @property
    def _timelines(self) -> Collection[Timeline]:
        return self._calls.timelines.values()

    def tell_if_behind(self) -> None:
        """The script is over: tells, where it has not come to the call that it was to go on with."""
        if any(timeline.behind for timeline in self._timelines):
            self._session.tell(
                ScriptMismatch(
                    "the script has ended without the training call that its newest state is from",
                    "restore the script as it was, or start anew with --fresh --archive",
                )
            )

    def tell_if_nothing_was_added(self) -> None:
        """The script is over: tells, where it was to extend the run, that it has trained nothing."""
        extends = self._session.config is not None and self._session.config.extend
        if extends and not any(timeline.has_trained for timeline in self._timelines):
            self._session.warn("--extend: the script asks for no more training than the run has had")

    def install(self) -> None:
        """Wraps the methods of ``Model``."""
        for name in ("train", "fit"):
            self._wrap(name, self._run)
        watch_evaluations(self._session.shared.heartbeat)
        self._wrap("eval", self._evaluate)
        self._watch_optimizers()
        self._keep_names()
        registered.install()

    def _keep_names(self) -> None:
        run = self._session.config
        if run is not None:
            path = run.directory / f"stock_names_rank_{run.rank}.json"
            StockNames(path, self._session.world, self._session.warn).install(_checkpoint)

    def _wrap(self, name: str, ours: Callable[..., Any]) -> None:
        original = getattr(Model, name)

        @functools.wraps(original)
        def method(model: Model, *args: Any, **kwargs: Any) -> Any:
            # A subclass that calls up, and the evaluation inside of fit, belong to the call around them.
            if getattr(self._inside, "call", False):
                return original(model, *args, **kwargs)
            self._inside.call = True
            self._entered += 1
            try:
                return ours(original, model, args, kwargs)
            finally:
                self._entered -= 1
                self._inside.call = False

        setattr(Model, name, method)

    # Training that we do not see

    def _watch_optimizers(self) -> None:
        """Warns of a loop that nothing saves when it begins to train, or else when the script is over."""
        original = nn.Optimizer.__init__

        @functools.wraps(original)
        def method(optimizer: nn.Optimizer, *args: Any, **kwargs: Any) -> None:
            original(optimizer, *args, **kwargs)
            self._has_optimizer = True

        nn.Optimizer.__init__ = method
        self._unsaved.install()

    def _is_watched(self) -> bool:
        return bool(self._entered) or any(timeline.in_loop for timeline in self._timelines)

    def _warn_of_unseen(self) -> None:
        self._session.warn(
            "NOTHING IS SAVED of the training that begins now: it is no Model.train and no Model.fit, and "
            "after a failure it begins anew; to save a loop of your own: "
            "`with resilient.training(network, optimizer)` (see README)"
        )

    def warn_if_unseen(self) -> None:
        """Tells, once, that nothing is saved where there is an optimizer and no training that we can see."""
        if self._has_optimizer and not self._session.was_asked and not self._unsaved.was_told:
            self._session.warn(
                "NOTHING IS SAVED: the script has an optimizer, and no Model.train or Model.fit was called; "
                "a loop of one's own is saved by `with resilient.training(network, optimizer)` (see README)"
            )

    # train and fit

    def _run(self, original: Any, model: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        try:
            bound = inspect.signature(original).bind(model, *args, **kwargs)
            bound.apply_defaults()
            arguments = Arguments.of(bound)
        except (TypeError, AttributeError, ValueError):
            # Arguments that make no sense: MindSpore says so better than we would.
            return original(model, *args, **kwargs)
        settings = self._settings(arguments.callbacks)
        timeline = self._calls.timeline_of(settings)
        call_streams = random_streams.capture()
        cells = [model.train_network]
        retried = timeline.retried(cells)
        mark = retried or timeline.mark()
        with self._session.telling_mismatch():
            start = timeline.start_call(
                arguments.steps_per_epoch, arguments.initial_epoch, arguments.epochs_asked, retried
            )
            ordinal = timeline.enter(cells)
        callbacks = [c for c in arguments.callbacks if not isinstance(c, CheckpointMonitor)]
        things = [*hidden_parameters(cells), *self._reached(callbacks)]
        trained = {id(parameter): parameter.name for parameter in capture.parameters(cells)}
        self._calls.side_state.meet([*callbacks, *(thing for _, thing in things)], trained)
        if start.way is Way.SKIP:
            timeline.skip(start, self._session.warn)
            if timeline.recovered is not None:
                self._calls.side_state.restore_ended(
                    timeline.recovered, start.ordinal, callbacks, things, trained, timeline.ended
                )
            return None
        self._warn_of_what_cannot_return(cells, arguments)
        recovered = timeline.recovered if start.way is Way.RESUME else None
        if recovered is not None:
            demand_steps(self._session, recovered, arguments.steps_per_epoch)
            call_streams = recovered.document["call_streams"]
        call = Call(
            progress=start.progress,
            ordinal=ordinal,
            trained=cells,
            network=getattr(model, "_network", None) or model.train_network,
            others=timeline.others(ordinal),
            call_streams=call_streams,
            callbacks=callbacks,
            scale_manager=getattr(model, "_loss_scale_manager", None),
            model=model,
            evaluations=timeline.evaluations,
            trail=timeline.trail,
            things=things,
            ended=timeline.ended,
            knobs=timeline.knobs.given,
            epochs=timeline.epochs.asked,
        )
        if self.watched is not None:
            self.watched.close()
        self.watched = WatchedCall(self._calls, settings, call, resumed=recovered is not None)
        passage = Passage(self.watched, model, arguments, call, recovered)
        try:
            return self._pass(original, bound, passage)
        except BaseException:
            timeline.failed(mark, cells)
            raise
        finally:
            timeline.leave(self.watched.progress)

    def _reached(self, callbacks: list[Any]) -> list[tuple[str, Any]]:
        """The script's variables that its callbacks change, as one thing that the call holds."""
        try:
            reached = reached_by(callbacks)
        except Exception as error:  # noqa: BLE001 - the script's own objects: the training does not end by it
            self._session.warn(f"variables of callbacks cannot be found: {type(error).__name__}: {error}")
            return []
        for finding in reached.findings:
            self._session.warn(finding)
        return [("reached", reached)] if reached.variables else []

    def _pass(self, original: Any, bound: inspect.BoundArguments, passage: Passage) -> Any:
        watched = passage.watched
        try:
            result = passage.run(original, bound)
        except BaseException as error:
            watched.failed(error)
            raise
        if passage.cut_short and watched.asked_to_stop:
            # The script's own handler ended the loop because of a signal: the next attempt goes on with it.
            watched.stopped()
        else:
            watched.finished()
        return result

    def _settings(self, callbacks: list[Any]) -> Settings:
        monitors = [c for c in callbacks if isinstance(c, CheckpointMonitor)]
        if not monitors:
            return self._defaults
        if len(monitors) > 1:
            self._session.warn(
                "more than one CheckpointMonitor in one call: the first one's arguments are used"
            )
        settings = monitors[0].settings
        keep = self._defaults.keep
        # What only the command line can ask for comes on top of what the script says.
        settings = replace(
            settings, keep=replace(settings.keep, every_steps=keep.every_steps, best=keep.best)
        )
        keep = replace(keep, every_steps=None, best=None)
        if self._defaults.save != DEFAULT_SAVE or keep != DEFAULT_KEEP:
            self._session.warn(
                "the script's CheckpointMonitor says when to save and what to keep; "
                "the command line's policies are not used"
            )
        for text in settings.warnings:
            self._session.warn(text)
        return replace(settings, exception_save=True)

    def _warn_of_what_cannot_return(self, cells: list[nn.Cell], arguments: Arguments) -> None:
        for finding in (
            *(finding for cell in cells for finding in network_findings(cell)),
            *pipeline_findings(arguments.dataset),
            *pair_findings(arguments.dataset, arguments.validation[0]),
        ):
            self._session.warn(finding)

    # eval

    def _evaluate(self, original: Any, model: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        timeline = next(iter(self._timelines), None)
        if timeline is None:
            return original(model, *args, **kwargs)
        known, result = timeline.recorded_evaluation(self._session.warn)
        if not known:
            result = original(model, *args, **kwargs)
            timeline.record_evaluation(result)
            if self.watched is not None and _evaluates(model, self.watched.trained):
                self.watched.recorder.evaluated(result)
        return result


def _evaluates(model: Model, trained: capture.Cells) -> bool:
    """Whether a model's evaluation looks at nothing but what was trained."""
    evaluated = getattr(model, "eval_network", None)
    if evaluated is None:
        return False
    known = {id(parameter) for parameter in capture.parameters(trained)}
    return all(id(parameter) in known for parameter in evaluated.get_parameters())
