"""CheckpointMonitor: saves checkpoints while ``Model`` trains.

The class has the signature and the meaning of ``mindformers.core.CheckpointMonitor``; changing the import
line of a script is enough. Under ``resilient-run`` it says how to save, and the wrapped call does it; in a
plain ``python`` process its own hooks do.
"""

from __future__ import annotations

from typing import Any

from mindspore.train import Callback, CheckpointConfig

from resilient.policy import settings as arguments
from resilient.policy.settings import KEEP_MAX, KEEP_MINUTES, SAVE_SECONDS, SAVE_STEPS, Settings
from resilient.state import random_streams
from resilient.state.hidden import hidden_parameters
from resilient.worker.boundary.composition import Call
from resilient.worker.boundary.watched_call import WatchedCall
from resilient.worker.call.script_calls import current_calls
from resilient.worker.call.timeline import Timeline
from resilient.worker.process.dataset_workers import registered
from resilient.worker.session.session import current


class _PlainHooks(Callback):  # type: ignore[misc]
    """What the monitor does in a process without a supervisor.

    The hooks have MindSpore's older names, which its newer ones call. They stand in a class of their own
    because ``Model.fit`` refuses a callback whose very class defines them.
    """

    settings: Settings

    def __init__(self) -> None:
        super().__init__()
        registered.install()
        self._watched: WatchedCall | None = None
        self._timeline: Timeline | None = None
        self._opened = False

    def begin(self, run_context: Any) -> None:
        """Opens the directory: what is wrong with it is told before anything is trained."""
        session = current()
        if session.supervised:
            return
        for text in self.settings.warnings:
            session.warn(text)
        session.open(self.settings)
        self._opened = True

    def epoch_begin(self, run_context: Any) -> None:
        """From the first epoch on a failure finds something to save."""
        if self._opened:
            self._opened = False
            calls = current_calls()
            run_id = calls.session.open(self.settings).run_id
            self._timeline = calls.timelines.setdefault(run_id, Timeline())
            call = _plain_call(self._timeline, run_context.original_args())
            self._watched = WatchedCall(calls, self.settings, call)
            self._watched.begin()

    def step_begin(self, run_context: Any) -> None:
        """The parameters are about to change."""
        if self._watched is not None:
            self._watched.recorder.step_begins()

    def step_end(self, run_context: Any) -> None:
        """A step is complete: a boundary."""
        if self._watched is not None:
            parameters = run_context.original_args()
            self._watched.recorder.update_done(parameters.cur_step_num, parameters.net_outputs)
            self._watched.boundary(parameters.cur_step_num)

    def epoch_end(self, run_context: Any) -> None:
        """An epoch is over."""
        if self._watched is not None:
            self._watched.boundary(run_context.original_args().cur_step_num, epoch_closed=True)

    def end(self, run_context: Any) -> None:
        """The training is over: the last checkpoint, and whatever is still being saved."""
        watched, self._watched = self._watched, None
        if watched is not None:
            watched.finished()
            self._leave(watched)

    def on_eval_begin(self, run_context: Any) -> None:
        """An evaluation is no training; it may have installed signal handlers, as OnRequestExit does."""
        if self._watched is not None:
            self._watched.renew_guard()

    def on_eval_step_begin(self, run_context: Any) -> None: ...

    def on_eval_step_end(self, run_context: Any) -> None: ...

    def on_eval_epoch_begin(self, run_context: Any) -> None: ...

    def on_eval_epoch_end(self, run_context: Any) -> None: ...

    def on_eval_end(self, run_context: Any) -> None: ...

    def __exit__(self, *failure: Any) -> None:
        # MindSpore hands each callback, as a context manager, the exception that leaves the training.
        error = failure[1] if len(failure) > 1 else None
        watched = self._watched
        if isinstance(error, BaseException) and watched is not None:
            self._watched = None
            watched.failed(error)
            self._leave(watched)

    def _leave(self, watched: WatchedCall) -> None:
        assert self._timeline is not None
        self._timeline.leave(watched.progress)
        watched.close()


def _plain_call(timeline: Timeline, parameters: Any) -> Call:
    """The training call whose first epoch begins, from what MindSpore tells its callbacks."""
    network = parameters.train_network
    ordinal = timeline.enter([network])
    # MindSpore keeps initial_epoch to itself, but counts the epochs from there.
    initial_epoch = parameters.cur_epoch_num - 1
    start = timeline.start_call(parameters.batch_num, initial_epoch, parameters.epoch_num - initial_epoch)
    return Call(
        progress=start.progress,
        ordinal=ordinal,
        trained=[network],
        network=getattr(parameters, "network", None) or network,
        others=timeline.others(ordinal),
        call_streams=random_streams.capture(),
        callbacks=[c for c in parameters.list_callback if not isinstance(c, CheckpointMonitor)],
        scale_manager=parameters.get("loss_scale_mananger"),  # (MindSpore's spelling)
        evaluations=timeline.evaluations,
        trail=timeline.trail,
        things=hidden_parameters([network]),
        ended=timeline.ended,
        knobs=timeline.knobs.given,
        epochs=timeline.epochs.asked,
    )


class CheckpointMonitor(_PlainHooks):
    """Saves the training state while ``Model.train`` or ``Model.fit`` runs.

    Every checkpoint is atomic and durable; files and folders are upstream's:
    ``<directory>/checkpoint/rank_<r>/<prefix>_rank_<r>-<epoch>_<step in epoch>.ckpt`` with ``meta.json``,
    ``checkpoint_network/`` and ``checkpoint_trainable/``. Stock ``mindspore.load_checkpoint`` opens them all.

    Args:
        prefix (str): Prefix of the files' names, without ``/``.
        directory (str): Where they go. None: the run directory under ``resilient-run``, else ``./output``.
        config (CheckpointConfig): MindSpore's own configuration; it wins over the separate arguments.
        save_checkpoint_steps (int): Save every so many steps.
        save_checkpoint_seconds (int): Save every so many seconds; not together with steps.
        keep_checkpoint_max (int): Keep at most so many checkpoints.
        keep_checkpoint_per_n_minutes (int): Keep one per so many minutes; not together with max.
        integrated_save (bool): Under automatic parallel, merge split tensors in what stock reads.
        save_network_params (bool): Also save the network's parameters alone.
        save_trainable_params (bool): Also save the trainable parameters alone.
        async_save (bool or str): False, True, 'thread' or 'process': who waits for the disk.
        saved_network (Cell): The network that stock shall find in the file; by default the trained one.
        append_info (list): "epoch_num", "step_num" and one dict of further entries.
        enc_key (bytes): Encryption key of 16, 24 or 32 bytes (SM4-CBC: 16). None: the run's key under
            ``resilient-run``, else no encryption.
        enc_mode (str): 'AES-GCM', 'AES-CBC' or 'SM4-CBC'.
        exception_save (bool): Save when an exception or a stop signal ends the training. Always on under
            ``resilient-run``.
        global_batch_size (int): Total batch size, saved as an entry of that name.

    Raises:
        ValueError: prefix, directory, a count, a mode or a key that cannot be used; steps together with
            seconds; max together with minutes.
        TypeError: ``config`` is not a CheckpointConfig; an argument of the wrong type.
    """

    def __init__(
        self,
        prefix: str = "CKP",
        directory: str | None = None,
        config: CheckpointConfig | None = None,
        save_checkpoint_steps: int | None = SAVE_STEPS,
        save_checkpoint_seconds: int | None = SAVE_SECONDS,
        keep_checkpoint_max: int | None = KEEP_MAX,
        keep_checkpoint_per_n_minutes: int | None = KEEP_MINUTES,
        integrated_save: bool = True,
        save_network_params: bool = True,
        save_trainable_params: bool = False,
        async_save: bool | str = False,
        saved_network: Any = None,
        append_info: list[Any] | None = None,
        enc_key: bytes | None = None,
        enc_mode: str = "AES-GCM",
        exception_save: bool = False,
        global_batch_size: int | None = None,
    ) -> None:
        super().__init__()
        separate = arguments.Saving(
            save_checkpoint_steps=save_checkpoint_steps,
            save_checkpoint_seconds=save_checkpoint_seconds,
            keep_checkpoint_max=keep_checkpoint_max,
            keep_checkpoint_per_n_minutes=keep_checkpoint_per_n_minutes,
            integrated_save=integrated_save,
            async_save=async_save,
            saved_network=saved_network,
            append_info=append_info,
            enc_key=enc_key,
            enc_mode=enc_mode,
            exception_save=exception_save,
        )
        if config is not None and not isinstance(config, CheckpointConfig):
            raise TypeError(f"config must be a CheckpointConfig; it is {type(config).__name__}")
        self.settings = arguments.resolve(
            separate,
            config,
            prefix=prefix,
            directory=directory,
            network_params=save_network_params,
            trainable_params=save_trainable_params,
            global_batch_size=global_batch_size,
        )
