"""One training call under our eyes: its recorder, the stop signals, and what is told of it.

The three ways in (a wrapped ``Model`` call, the monitor alone, the custom loop) all drive one of these.
"""

from __future__ import annotations

import signal
from collections.abc import Sequence

from mindspore import nn

from resilient.recorder import Call, Recorder
from resilient.session import Session
from resilient.settings import Settings
from resilient.signals import SignalGuard
from resilient.state.snapshot import Progress


class Watch:
    """Records one training call, and saves when it fails or is asked to stop."""

    def __init__(self, session: Session, settings: Settings, call: Call, *, resumed: bool = False) -> None:
        self._session = session
        self._call = call
        self._saver = session.saver(settings)
        self._guarding = session.supervised or settings.exception_save
        self.recorder = Recorder(
            call,
            settings,
            self._saver,
            session.world.clock,
            shadowed=self._guarding,
            resumed=resumed,
        )
        self.guard = SignalGuard(lambda: self.recorder.ready, self._on_signal)
        self.recorder.on_idle = self.guard.at_boundary

    @property
    def trained(self) -> Sequence[nn.Cell]:
        """What is being trained."""
        return self._call.trained

    @property
    def progress(self) -> Progress:
        return self.recorder.progress

    def begin(self) -> None:
        """The boundary before the first step of this process."""
        self.recorder.begin()
        self.renew_guard()

    def boundary(self, call_step: int, *, epoch_closed: bool = False) -> None:
        """A step, or with ``epoch_closed`` an epoch, is over with everything that belongs to it."""
        self.recorder.boundary(call_step, epoch_closed=epoch_closed)
        self._session.tell_step(self.progress.step)
        self.renew_guard()

    def renew_guard(self) -> None:
        """Stands in front of handlers that were installed meanwhile (OnRequestExit does, in its hooks)."""
        if self._guarding:
            self.guard.install()

    def failed(self, error: BaseException) -> None:
        """An exception leaves the training: saves the last completed step, and tells."""
        phase = self.recorder.phase.value
        saved = self.recorder.fail(_reason(error))
        self._session.tell_incident(error, _reason(error), self.progress.step, phase)
        if saved is None and self._guarding and not self._session.supervised:
            self._session.say(f"{type(error).__name__}: no step completed since the last checkpoint")

    def finished(self) -> None:
        """The call is over."""
        self.recorder.call_finished()

    def stopped(self) -> None:
        """The call ended before its end because it was asked to: the next attempt goes on with it."""
        self.recorder.fail("stop")

    @property
    def asked_to_stop(self) -> bool:
        """Whether a stop signal came while this call ran."""
        return self.guard.received is not None

    def close(self) -> None:
        """Waits for what is being saved, and gives the signals back."""
        self._saver.wait()
        self.guard.restore()

    def _on_signal(self, number: int) -> None:
        self.recorder.fail(signal.Signals(number).name)


def _reason(error: BaseException) -> str:
    if isinstance(error, KeyboardInterrupt):
        return "interrupt"
    return "exit" if isinstance(error, SystemExit) else "exception"
