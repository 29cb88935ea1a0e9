"""Fault tolerance for a training loop of one's own, without ``Model``.

    with resilient.training(network, optimizer) as run:
        for images, labels in run.steps(dataset, epochs=5):
            loss = train_step(images, labels)

Between two rounds of the loop lies a step boundary. A loop that failed goes on after its last completed
step when the script is run again: the parameters of the given cells, the random streams and the position in
the dataset are put back. Under ``resilient-run`` the restart comes by itself.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType, FunctionType, ModuleType, TracebackType
from typing import Any

import mindspore
from mindspore import Parameter, nn

from resilient.config import SavePolicy
from resilient.errors import UsageError
from resilient.policy.settings import (
    Settings,
    asynchronous,
    check_directory,
    check_prefix,
    keep_rules,
    sealing_of,
)
from resilient.state import capture, nest, pipeline, random_streams
from resilient.state.hidden import hidden_parameters
from resilient.state.not_given import NotGiven, look_around
from resilient.state.snapshot import Recovered
from resilient.state.unrestorable import network_findings, pipeline_findings
from resilient.worker.boundary.composition import Call
from resilient.worker.boundary.watched_call import WatchedCall
from resilient.worker.call.script_calls import ScriptCalls, current_calls
from resilient.worker.call.timeline import Mark, Timeline, Way
from resilient.worker.process.dataset_workers import registered
from resilient.worker.session.open_places import OpenPlace
from resilient.worker.session.state_finder import demand_steps


def training(
    *things: Any,
    directory: str | Path | None = None,
    prefix: str = "CKP",
    save_steps: int | None = None,
    save_seconds: float | None = None,
    keep_max: int | None = None,
    keep_every_steps: int | None = None,
    keep_best: int | None = None,
    keep_best_by: str = "loss",
    async_save: bool | str = False,
    enc_key: bytes | None = None,
    enc_mode: str = "AES-GCM",
) -> Training:
    """Begins a training whose state is that of ``things``: the network, its optimizers, and what else holds
    state.

    Cells come with their parameters. Anything else that changes from round to round may be given too: loss
    scalers and schedules of MindSpore's, Parameters, lists, dicts and arrays, objects of one's own (by their
    attributes, or by their ``state_dict()`` and ``load_state_dict(state)``). They are saved at each boundary
    and put back, into the same objects, before the first resumed round. What the loop can reach and was not
    given is carried as well, if it holds Parameters or Tensors; one line says so. A variable that the loop
    replaces, or that would take more memory than the training, is named instead.

    ``directory`` is where checkpoints go: the run's under ``resilient-run``, else ``./output``. A checkpoint
    is made every ``save_steps`` steps, or every ``save_seconds`` seconds (default 300), at the end and on
    every failure; the newest ``keep_max`` (default 5) stay. Those that ``keep_every_steps`` keeps (the first
    at or after each multiple) and the best ``keep_best`` stay as well, by ``loss`` or by a metric with its
    direction ("accuracy:max"); both are what :meth:`Training.report` is told. ``async_save`` and the
    encryption are those of :class:`~resilient.worker.call.monitor.CheckpointMonitor`.

    Raises UsageError and ValueError for arguments that cannot be used.
    """
    cells = tuple(thing for thing in things if isinstance(thing, nn.Cell))
    if not cells:
        raise UsageError("training needs the network, and the optimizer", hint="training(network, optimizer)")
    others = [thing for thing in things if not isinstance(thing, nn.Cell)]
    for thing in others:
        _demand_holder(thing)
    if save_steps is not None and save_seconds is not None:
        raise ValueError("save_steps and save_seconds exclude each other; give one of them")
    registered.install()
    calls = current_calls()
    run = calls.session.config
    save = Settings.save if run is None else run.save
    keep = Settings.keep if run is None else run.keep
    if save_steps is not None or save_seconds is not None:
        save = SavePolicy(every_steps=save_steps, every_s=save_seconds)
    settings = Settings(
        prefix=check_prefix(prefix),
        directory=check_directory(directory),
        save=save,
        keep=keep_rules(keep, keep_max, keep_every_steps, keep_best, keep_best_by),
        sealing=sealing_of(enc_key, enc_mode),
        asynchronous=asynchronous(async_save),
    )
    return Training(calls, settings, cells, others)


class Training:
    """A training of one's own loop. Use it as a context manager; see :func:`training`.

    ``step`` counts the completed steps over the whole run, restarts included.
    """

    def __init__(
        self, calls: ScriptCalls, settings: Settings, cells: tuple[nn.Cell, ...], others: list[Any]
    ) -> None:
        self._calls = calls
        self._session = calls.session
        self._settings = settings
        self._cells = cells
        self._others = others
        self._watched: WatchedCall | None = None
        self._timeline: Timeline | None = None
        self._place: OpenPlace | None = None
        self._mark: Mark | None = None
        self._ordinal = 0
        self._loss: Any = None
        self._metrics: dict[str, Any] = {}

    def __enter__(self) -> Training:
        self._place = self._session.open(self._settings)
        self._timeline = self._begin(self._place)
        self._mark = self._timeline.mark()
        with self._session.telling_mismatch():
            self._ordinal = self._timeline.enter(self._cells)
        for cell in self._cells:
            for finding in network_findings(cell):
                self._session.warn(finding)
        recovered = self._timeline.recovered
        if recovered is not None:
            where = f"step {recovered.progress.step} (epoch {recovered.progress.epoch})"
            self._session.say(f"going on after {where}, from {recovered.source}")
        return self

    def _begin(self, place: OpenPlace) -> Timeline:
        """The run's timeline. A training that failed and is begun again goes on from what it has saved."""
        known = self._calls.timelines.get(place.run_id)
        failed = known.retried(self._cells, anew=_is_interactive()) if known is not None else None
        if known is not None and failed is not None:
            known.rewind(failed)
        return self._calls.timeline_of(self._settings)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._timeline is not None
        assert self._mark is not None
        assert self._place is not None
        if error is not None and self._watched is not None:
            self._watched.failed(error)
            self._leave(self._watched)
        else:
            self._end_loop()
        if error is not None:
            self._timeline.failed(self._mark, self._cells)
        if not self._session.supervised:
            self._session.close(self._place)

    @property
    def step(self) -> int:
        """The number of completed steps, over the whole run."""
        if self._watched is not None:
            return self._watched.progress.step
        return self._timeline.last_step if self._timeline is not None else 0

    def report(self, loss: Any = None, **metrics: Any) -> None:
        """Tells, in the loop's body, the loss of this step and what an evaluation after it has found.

        Numbers, or Tensors of one element. Checkpoints carry them, and ``keep_best`` decides by them.
        """
        if self._watched is None:
            raise UsageError("report() is called outside of the loop over steps()")
        if loss is not None:
            self._loss = loss
        self._metrics.update(metrics)

    def steps(self, dataset: Any, epochs: int = 1) -> Iterator[Any]:
        """Yields the batches that are still to be trained on, epoch after epoch.

        ``dataset`` is a MindSpore dataset, whose batches come as tuples of Tensors, or any sized iterable
        that gives the same batches each time. A loop that was finished before a restart yields nothing. A
        loop that is left with ``break`` is finished too. What counts its rounds is :attr:`step`: a counter of
        the script's own, as that of ``enumerate``, begins anew after a restart.
        """
        timeline = self._timeline
        if timeline is None:
            raise UsageError("steps() is called outside of the with block")
        if epochs < 1:
            raise UsageError(f"epochs must be at least 1; it is {epochs}")
        self._end_loop()
        things, lost = self._things(sys._getframe(1), dataset, timeline)
        return self._loop(timeline, Batches(dataset, epochs), things, lost)

    def _things(
        self, frame: FrameType, dataset: Any, timeline: Timeline
    ) -> tuple[list[tuple[str, Any]], str]:
        """The objects with state beside the cells: those given, and those within this frame's reach.

        Beside them a sentence about the values that a restart loses.
        """
        hidden = hidden_parameters(self._cells)
        given = [*self._cells, *self._others, *(value for _, value in hidden), self]
        others = timeline.others(self._ordinal).values()
        trained = {id(p): p.name for cells in (self._cells, *others) for p in capture.parameters(cells)}
        trained |= {id(p): p.name for _, found in hidden for p in vars(found).values()}
        try:
            seen = look_around(frame, given, trained, dataset)
        except Exception as error:  # noqa: BLE001 - the script's own objects: the training does not end by it
            self._session.warn(f"other objects of the loop cannot be found: {type(error).__name__}: {error}")
            seen = NotGiven()
        for finding in seen.findings:
            self._session.warn(finding)
        if seen.remark:
            self._session.remark(seen.remark)
        things = [(f"#{number}", thing) for number, thing in enumerate(self._others)]
        things += [*hidden, *seen.carried.items()]
        self._calls.side_state.meet((thing for _, thing in things), trained)
        return things, seen.lost

    def _loop(
        self, timeline: Timeline, batches: Batches, things: list[tuple[str, Any]], lost: str
    ) -> Iterator[Any]:
        for finding in pipeline_findings(batches.dataset):
            self._session.warn(finding)
        call_streams = random_streams.capture()
        with self._session.telling_mismatch():
            start = timeline.start_call(batches.steps_per_epoch, 0, batches.epochs)
        if start.way is not Way.RUN and lost:
            self._session.warn(lost)
        if start.way is Way.SKIP:
            timeline.skip(start, self._session.warn)
            if timeline.recovered is not None:
                trained = {id(p): p.name for p in capture.parameters(self._cells)}
                self._calls.side_state.restore_ended(
                    timeline.recovered, start.ordinal, (), things, trained, timeline.ended
                )
            return
        recovered = timeline.recovered if start.way is Way.RESUME else None
        if recovered is not None:
            demand_steps(self._session, recovered, batches.steps_per_epoch)
            call_streams = recovered.document["call_streams"]
        call = Call(
            progress=start.progress,
            ordinal=self._ordinal,
            trained=self._cells,
            network=self._cells[0],
            others=timeline.others(self._ordinal),
            call_streams=call_streams,
            evaluations=timeline.evaluations,
            trail=timeline.trail,
            things=things,
            ended=timeline.ended,
            knobs=timeline.knobs.given,
            epochs=timeline.epochs.asked,
        )
        watched = WatchedCall(self._calls, self._settings, call, resumed=recovered is not None)
        self._watched = watched
        timeline.in_loop = True
        yield from self._rounds(watched, batches.after(start.progress.call_step, recovered), recovered)

    def _rounds(
        self, watched: WatchedCall, batches: Iterator[Any], recovered: Recovered | None
    ) -> Iterator[Any]:
        done = watched.progress.call_step
        before = random_streams.fingerprint()
        batch = next(batches, None)
        watched.recorder.pipeline_ran(before)
        if recovered is not None and batch is None:
            random_streams.restore(recovered.document["streams"])
        elif recovered is not None:
            # The first batch is there: the pipeline's threads have begun with the streams of the call.
            random_streams.resume(recovered.document)
        if recovered is not None:
            watched.restore(recovered)
        watched.begin()
        while batch is not None:
            watched.recorder.step_begins()
            # An exception in the loop's body, and a break, end this generator here; __exit__ tells which.
            yield batch
            done += 1
            loss, metrics = self._loss, {name: _number(value) for name, value in self._metrics.items()}
            self._loss, self._metrics = None, {}
            watched.recorder.update_done(done, loss)
            watched.boundary(done, judged=bool(metrics))
            watched.recorder.evaluated(metrics)
            batch = next(batches, None)
        self._end_loop()

    def _end_loop(self) -> None:
        """A loop is over, by its end or by a break: nothing of it is ever run again."""
        if self._watched is not None:
            self._watched.finished()
            self._leave(self._watched)

    def _leave(self, watched: WatchedCall) -> None:
        assert self._timeline is not None
        self._watched = None
        self._timeline.in_loop = False
        self._timeline.leave(watched.progress)
        watched.close()


def _is_interactive() -> bool:
    """Whether a person works in this interpreter: then code that is run again is the same script, again."""
    return hasattr(sys, "ps1")


def _demand_holder(thing: Any) -> None:
    """Raises UsageError for what holds no state that could be put back into it."""
    plain = isinstance(thing, (*nest.PLAIN, type, FunctionType, ModuleType))
    if plain or (isinstance(thing, mindspore.Tensor) and not isinstance(thing, Parameter)):
        raise UsageError(
            f"training() cannot put a state back into a {type(thing).__name__}",
            hint="keep it in a list, a dict, a Parameter or an object, and give that",
        )


def _number(value: Any) -> Any:
    return value.asnumpy() if callable(getattr(value, "asnumpy", None)) else value


class Batches:
    """The batches of some epochs over a dataset, from any of them on."""

    def __init__(self, dataset: Any, epochs: int) -> None:
        self.dataset = dataset
        self.epochs = epochs
        self._is_pipeline = callable(getattr(dataset, "create_tuple_iterator", None))
        try:
            self.steps_per_epoch = int(dataset.get_dataset_size() if self._is_pipeline else len(dataset))
        except TypeError as error:
            raise UsageError(
                f"a {type(dataset).__name__} has no length",
                hint="steps() takes a dataset or a sized iterable",
            ) from error
        if self.steps_per_epoch < 1:
            raise UsageError("the dataset is empty")

    def after(self, done: int, recovered: Recovered | None) -> Iterator[Any]:
        """Those that follow the first ``done`` ones."""
        if done >= self.epochs * self.steps_per_epoch:
            return iter(())
        if recovered is not None and (not self._is_pipeline or pipeline.needs_replay(self.dataset)):
            random_streams.restore_global(recovered.document["call_streams"])
        return self._of_pipeline(done) if self._is_pipeline else self._of_iterable(done)

    def _of_pipeline(self, done: int) -> Iterator[Any]:
        with pipeline.positioned(self.dataset, done, pipeline.needs_replay(self.dataset)):
            iterator = self.dataset.create_tuple_iterator(num_epochs=self.epochs)
        for _ in range(done // self.steps_per_epoch, self.epochs):
            yield from iterator

    def _of_iterable(self, done: int) -> Iterator[Any]:
        every = itertools.chain.from_iterable(self.dataset for _ in range(self.epochs))
        return itertools.islice(every, done, None)
