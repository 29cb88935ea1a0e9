"""One call of ``train`` or ``fit`` on its way through MindSpore.

Two callbacks of ours stand around the script's own. ``Opening`` is the first to learn that a step is
complete; at ``Closing`` everything that belongs to the step has run: there lies the boundary. A resumed
call starts in the epoch it was in, its dataset at the batch after the last completed step. When all steps
of an epoch were complete and its end was not (evaluation, the callbacks' end of the epoch), that end is run
first.

A callback may note at a begin what it needs at the end, so each end hook comes behind its begin hook in the
same process: those of the call and of the epoch that was interrupted run again. What they have done when
they ran first is part of the state already; so the state is put in once they have run, all of it.
"""

from __future__ import annotations

import contextlib
import inspect
import itertools
from dataclasses import dataclass
from typing import Any

import mindspore
from mindspore.train import Callback
from mindspore.train.callback import _CallbackManager

from resilient.state import capture, counters, pipeline, random_streams
from resilient.state.resume import put_back
from resilient.state.snapshot import Progress, Recovered
from resilient.worker.boundary.composition import Call
from resilient.worker.boundary.watched_call import WatchedCall
from resilient.worker.call.evaluating import EvaluationBeats, as_list


class _CallOverError(Exception):
    """Leaves ``train`` from a hook, when all that was left of a call was the end of its last epoch."""


@dataclass(frozen=True)
class Arguments:
    """What ``train`` or ``fit`` was called with, as far as we need it."""

    epochs: int
    dataset: Any
    callbacks: list[Any]
    initial_epoch: int
    steps_per_epoch: int
    validation: tuple[Any, Any, bool]

    @property
    def epochs_asked(self) -> int:
        """How many epochs the call is to train."""
        return self.epochs - self.initial_epoch

    @classmethod
    def of(cls, bound: inspect.BoundArguments) -> Arguments:
        """Reads them; raises AttributeError, TypeError or ValueError where they make no sense."""
        values = bound.arguments
        given = values["callbacks"]
        sinks = values["dataset_sink_mode"] and mindspore.get_context("device_target") != "CPU"
        sunk = sinks and values["sink_size"] > 0
        return cls(
            epochs=int(values["epoch"]),
            dataset=values["train_dataset"],
            callbacks=as_list(given),
            initial_epoch=int(values["initial_epoch"]),
            steps_per_epoch=values["sink_size"] if sunk else values["train_dataset"].get_dataset_size(),
            validation=(
                values.get("valid_dataset"),
                values.get("valid_frequency", 1),
                values.get("valid_dataset_sink_mode", False),
            ),
        )


class Passage:
    """Runs one call, from its beginning or from the recovered state.

    ``cut_short`` tells afterwards whether the training loop was asked to stop before its last epoch was over.
    """

    def __init__(
        self, watched: WatchedCall, model: Any, arguments: Arguments, call: Call, recovered: Recovered | None
    ) -> None:
        self.watched = watched
        self.arguments = arguments
        self.call = call
        self.recovered = recovered
        self.cut_short = False
        self._model = model
        self._over = False
        self._has_begun = False
        self._values: capture.Shadow | None = None
        self._streams_before: dict[str, object] = {}
        self._position = contextlib.ExitStack()

    def run(self, original: Any, bound: inspect.BoundArguments) -> Any:
        """Makes the call; what leaves it is what the script would see."""
        bound.arguments["callbacks"] = [_FirstCallback(self), *self.arguments.callbacks, _LastCallback(self)]
        bound.arguments["initial_epoch"] = self._first_epoch()
        with self._position:
            self._go_to_position()
            self._keep_values()
            self._streams_before = random_streams.fingerprint()
            try:
                return original(*bound.args, **bound.kwargs)
            except BaseException:
                # Whatever a callback of the script's made of our exception on its way.
                if self._over:
                    return None
                raise

    # Getting to the place

    @property
    def progress(self) -> Progress:
        return self.call.progress

    def _whole_epochs(self) -> int:
        return self.progress.call_step // self.arguments.steps_per_epoch

    def _first_epoch(self) -> int:
        # MindSpore refuses a call that has no epoch left; of ours only the end of one may be.
        return min(self.arguments.initial_epoch + self._whole_epochs(), self.arguments.epochs - 1)

    def _is_last(self) -> bool:
        return self.arguments.initial_epoch + self._whole_epochs() >= self.arguments.epochs

    def _go_to_position(self) -> None:
        if self.recovered is None or self._is_last():
            return
        replay = pipeline.needs_replay(self.arguments.dataset)
        if replay:
            # The pipeline starts to run ahead as soon as its iterator exists, and draws again what it drew.
            random_streams.restore_global(self.call.call_streams)
        skipped = self.progress.call_step
        self._position.enter_context(pipeline.positioned(self.arguments.dataset, skipped, replay))

    def opened(self, context: Any) -> None:
        """The iterator exists, nobody's callback has run yet."""
        self.watched.recorder.pipeline_ran(self._streams_before)
        self._position.close()
        parameters = context.original_args()
        parameters.cur_step_num = self.progress.call_step
        parameters.epoch_num = self.arguments.epochs - self.arguments.initial_epoch

    def closed(self, context: Any) -> None:
        """Every callback has begun the call."""
        epoch_is_due = self.progress.at_epoch_end and not self.progress.epoch_closed
        if not self._is_inside_epoch():
            self._begin()
        if epoch_is_due:
            self._open_epoch(context)
            self._finish_epoch(context)
        is_left = epoch_is_due and context.get_stop_requested()
        if self.recovered is not None and (self._is_last() or is_left):
            self._tell_end(context.original_args())
            _CallbackManager(context.original_args().list_callback).on_train_end(context)
            self._over = True
            raise _CallOverError

    def epoch_opens(self, context: Any) -> None:
        """The script's callbacks are about to begin an epoch."""
        if not self._has_begun:
            # For them it begins at its first step.
            steps = self.arguments.steps_per_epoch
            context.original_args().cur_step_num = (self.progress.call_step - 1) // steps * steps
        self.watched.recorder.epoch_opens()

    def epoch_is_open(self, context: Any) -> None:
        """They have: that of the epoch that was interrupted is the last that had to run again."""
        if self._has_begun:
            self.watched.recorder.epoch_is_open()
            return
        context.original_args().cur_step_num = self.progress.call_step
        self._begin()

    def _is_inside_epoch(self) -> bool:
        """Whether the recovered state lies behind the begin of an epoch, and before its end."""
        if self.recovered is None:
            return False
        # As it was saved: a batch that is left out may be the first of an epoch.
        saved = self.recovered.saved_progress
        return saved.call_step > 0 and not (saved.at_epoch_end and saved.epoch_closed)

    def _keep_values(self) -> None:
        """The recovered values are in the network: a copy, for when the begin hooks have run."""
        if self.recovered is not None:
            cells = [*self.call.trained, *itertools.chain.from_iterable(self.call.others.values())]
            covered = itertools.chain.from_iterable(cell.get_parameters() for cell in cells)
            self._values = capture.Shadow(covered)
            self._values.refresh()

    def _begin(self) -> None:
        """The boundary before the first step of this process: the recovered state, whatever hooks did."""
        if self.recovered is not None:
            self._restore(self.recovered)
        self.watched.begin()
        self._has_begun = True

    def _restore(self, recovered: Recovered) -> None:
        assert self._values is not None
        put_back(self._values)
        self._values = None
        document = recovered.document
        self.watched.restore(recovered)
        counters.restore_loss_scale(self.call.scale_manager, document["loss_scale"])
        if self._is_last():
            # No pipeline is going to run, and what it drew it has drawn.
            random_streams.restore(document["streams"])
        else:
            random_streams.resume(document)

    def _open_epoch(self, context: Any) -> None:
        """The begin hooks of an epoch whose steps are all complete, as MindSpore's loop runs them."""
        parameters = context.original_args()
        parameters.cur_epoch_num = self.arguments.initial_epoch + self._whole_epochs()
        _CallbackManager(parameters.list_callback).on_train_epoch_begin(context)

    def _tell_end(self, parameters: Any) -> None:
        """What callbacks find at the end of an epoch, or of the call, when its steps have run before."""
        parameters.cur_epoch_num = self.arguments.initial_epoch + self._whole_epochs()
        loss = self.recovered.document["loss"] if self.recovered is not None else None
        parameters.net_outputs = None if loss is None else mindspore.Tensor(counters.from_json(loss))

    def _finish_epoch(self, context: Any) -> None:
        """The end of an epoch whose steps are all complete, as MindSpore's loop does it."""
        parameters = context.original_args()
        self._tell_end(parameters)
        manager = _CallbackManager(parameters.list_callback)
        self._model._eval_during_train(self.arguments.validation, parameters, manager)
        manager.on_train_epoch_end(context)
        for name in ("metrics", "eval_results"):
            parameters.pop(name, None)


class _FirstCallback(EvaluationBeats):
    """First of the call's callbacks: what the script's own do comes after it."""

    def __init__(self, passage: Passage) -> None:
        super().__init__(passage.watched.heartbeat)
        self._passage = passage

    def on_train_begin(self, run_context: Any) -> None:
        self._passage.opened(run_context)

    def on_train_epoch_begin(self, run_context: Any) -> None:
        self._passage.epoch_opens(run_context)

    def on_train_step_begin(self, run_context: Any) -> None:
        self._passage.watched.recorder.step_begins()

    def on_train_end(self, run_context: Any) -> None:
        self._passage.watched.recorder.call_ends()

    def on_train_step_end(self, run_context: Any) -> None:
        parameters = run_context.original_args()
        self._passage.watched.recorder.update_done(parameters.cur_step_num, parameters.net_outputs)


class _LastCallback(Callback):  # type: ignore[misc]
    """Last of the call's callbacks."""

    def __init__(self, passage: Passage) -> None:
        super().__init__()
        self._passage = passage

    def on_train_begin(self, run_context: Any) -> None:
        self._passage.closed(run_context)

    def on_train_epoch_begin(self, run_context: Any) -> None:
        self._passage.epoch_is_open(run_context)

    def on_train_step_end(self, run_context: Any) -> None:
        step, cut = run_context.original_args().cur_step_num, run_context.get_stop_requested()
        self._passage.watched.boundary(step, cut=cut)

    def on_train_epoch_end(self, run_context: Any) -> None:
        parameters = run_context.original_args()
        # An epoch that was cut short has its end once more, when all its steps are complete.
        if self._passage.watched.progress.at_epoch_end:
            self._passage.watched.boundary(parameters.cur_step_num, epoch_closed=True)
        # What the evaluation of this epoch has found; MindSpore takes it away after this hook.
        results = {**(parameters.get("metrics") or {}), **(parameters.get("eval_results") or {})}
        self._passage.watched.recorder.evaluated(results)
        last = parameters.cur_epoch_num >= self._passage.arguments.epochs
        self._passage.cut_short = run_context.get_stop_requested() and not (
            last and self._passage.watched.progress.at_epoch_end
        )

    def on_eval_begin(self, run_context: Any) -> None:
        self._passage.watched.renew_guard()
