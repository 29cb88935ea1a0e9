"""One training call under our eyes: its recorder, the stop signals, and what is told of it.

The three ways in (a wrapped ``Model`` call, the monitor alone, the custom loop) all drive one of these.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from functools import partial

from mindspore import nn

from resilient.policy.settings import Settings
from resilient.state import execution
from resilient.state.snapshot import Progress, Recovered
from resilient.wire.heartbeat import Phase as Beating
from resilient.wire.messages import DataProcessDied, Remarked
from resilient.worker.boundary.belongings import Belongings
from resilient.worker.boundary.composition import Call, Composer, marks
from resilient.worker.boundary.keeper import Keeper, ShadowKeeper
from resilient.worker.boundary.mirror_keeper import MirrorKeeper
from resilient.worker.boundary.recorder import Recorder
from resilient.worker.process.dataset_workers import look_out
from resilient.worker.process.signals import PipeGuard, SaveSignal, SignalGuard

_ITS_END_S = 1.0
"""A supervisor that dies lets go of its pipes a moment before it lets go of the link."""


class WatchedCall:
    """Records one training call, and saves when it fails or is asked to stop."""

    def __init__(
        self, belongings: Belongings, settings: Settings, call: Call, *, resumed: bool = False
    ) -> None:
        self._session = session = belongings.session
        self._call = call
        self._guarding = session.supervised or settings.exception_save
        composer = Composer(call, settings, marks(session.config, settings), belongings.side_state)
        self._composer = composer
        self._keeper = _keeper(belongings, settings, composer, guards=self._guarding)
        self.heartbeat = session.shared.heartbeat
        self.recorder = Recorder(
            call,
            settings,
            composer,
            self._keeper,
            session.world.clock,
            self.heartbeat,
            resumed=resumed,
            resumes_hooks=session.supervised,
        )
        self.guard = SignalGuard(lambda: self.recorder.ready, self._on_signal, self._on_arrival)
        self._monitor = look_out(self.heartbeat, lambda how: session.tell(DataProcessDied(how)))
        self.recorder.on_idle = self.guard.at_boundary
        self.recorder.on_saved_already = self._on_saved_already
        self.recorder.on_bad_loss = self._on_bad_loss
        self._warned_of_loss = False
        self._requests = SaveSignal(self.recorder.request_save)
        link = session.link
        self._pipes = PipeGuard(partial(link.is_over, _ITS_END_S)) if link is not None else None

    @property
    def trained(self) -> Sequence[nn.Cell]:
        """What is being trained."""
        return self._call.trained

    @property
    def progress(self) -> Progress:
        return self.recorder.progress

    def restore(self, recovered: Recovered) -> None:
        """Puts back what callbacks, and whatever else the call was given, held at the recovered boundary.

        So does how MindSpore computes, see ``state.execution``.
        """
        execution.restore(recovered.document.get("context", {}), self._session.warn)
        self._composer.restore(recovered)

    def begin(self) -> None:
        """The boundary before the first step of this process."""
        self.recorder.begin()
        self.renew_guard()
        if self._guarding:
            self._monitor.begin()
        if self._session.supervised:
            self._requests.listen()

    def boundary(
        self, call_step: int, *, epoch_closed: bool = False, judged: bool = False, cut: bool = False
    ) -> None:
        """A step, or with ``epoch_closed`` an epoch, is over with everything that belongs to it."""
        self.recorder.boundary(call_step, epoch_closed=epoch_closed, judged=judged, cut=cut)
        self._session.tell_step(self.progress.step)
        self.renew_guard()

    def renew_guard(self) -> None:
        """Stands in front of handlers that were installed meanwhile (OnRequestExit does, in its hooks)."""
        if self._guarding:
            self.guard.install()
            if self._pipes is not None:
                self._pipes.install()

    def failed(self, error: BaseException) -> None:
        """An exception leaves the training: saves the last completed step, and tells."""
        phase = self.recorder.phase.value
        anything = self._save(self.recorder.fail, _reason(error))
        finite = self.recorder.loss_is_finite
        self._session.tell_incident(error, _reason(error), self.progress.step, phase, finite)
        self._over()
        # A signal that came while our own work has failed has waited for it.
        self.guard.at_boundary()
        if not anything and self._guarding and not self._session.supervised:
            self._session.say(f"{type(error).__name__}: no step completed since the last checkpoint")

    def _save(self, save: Callable[[str], bool], reason: str) -> bool:
        """Whether there was anything to save. Whatever is wrong with us, the script's exception is seen."""
        try:
            return save(reason)
        except Exception as error:  # noqa: BLE001
            self._session.tell_failed_save(self.progress.step, f"{type(error).__name__}: {error}")
            return True

    def finished(self) -> None:
        """The call is over."""
        self.recorder.call_finished()
        self._composer.note_end(self.progress)
        self._over()

    def stopped(self) -> None:
        """The call ended before its end because it was asked to: the next attempt goes on with it."""
        self._save(self.recorder.fail, "stop")
        self._over()

    @property
    def asked_to_stop(self) -> bool:
        """Whether a stop signal came while this call ran."""
        return self.guard.received is not None

    def close(self) -> None:
        """Waits for what is being saved, and gives the signals back."""
        self._over()
        with self.heartbeat.during(Beating.SAVING):
            self._keeper.wait()
        self.guard.restore()

    def _on_arrival(self, number: int) -> None:
        if number == signal.SIGTERM:
            self._monitor.look()

    def _on_signal(self, number: int) -> None:
        self._save(self.recorder.secure, signal.Signals(number).name)

    def _on_saved_already(self, step: int) -> None:
        self._session.tell(Remarked(f"asked for a checkpoint: step {step} is saved already"))

    def _on_bad_loss(self, step: int) -> None:
        if not self._warned_of_loss:
            self._warned_of_loss = True
            self._session.warn(
                f"the loss of step {step} is not finite; the training goes on, and the newest checkpoint "
                "whose loss was finite is kept, whatever else is"
            )

    def _over(self) -> None:
        """What follows is no part of a training call."""
        self._requests.ignore()
        if self._pipes is not None:
            self._pipes.restore()
        self.heartbeat.beat(Beating.SCRIPT)


def _keeper(belongings: Belongings, settings: Settings, composer: Composer, *, guards: bool) -> Keeper:
    """The mirror's keeper where there is a mirror, and else the shadow's."""
    session, mirror_setup = belongings.session, belongings.mirror_setup
    means = mirror_setup.means(settings, composer.mirror_layout) if mirror_setup is not None else None
    if means is None or session.config is None:
        return ShadowKeeper(composer, session.saver(settings), guards=guards)
    return MirrorKeeper(composer, means, session.config.mirror.every, waits=settings.asynchronous is None)


def _reason(error: BaseException) -> str:
    if isinstance(error, KeyboardInterrupt):
        return "interrupt"
    return "exit" if isinstance(error, SystemExit) else "exception"
