"""Telling what happens: the supervisor over the link, or, without one, the person on stderr."""

from __future__ import annotations

import contextlib
import sys
import traceback
from collections.abc import Iterator

from resilient.config import WorkerConfig
from resilient.errors import EXIT_USAGE, BusyError, MismatchError, StorageError, UsageError
from resilient.wire.link import Link
from resilient.wire.messages import (
    ExceptionLeft,
    FirstStep,
    PlaceBusy,
    Remarked,
    SaveFailed,
    ScriptMismatch,
    UsageRefused,
    Warned,
    WorkerNews,
)
from resilient.wire.outbox import Outbox
from resilient.wire.shorten import shortened, text_of

_MESSAGE_CHARACTERS = 2_000
_TRACEBACK_CHARACTERS = 16_000


class Voice:
    """One process's voice. ``config`` and ``link`` are None without a supervisor."""

    def __init__(self, config: WorkerConfig | None = None, link: Link | None = None) -> None:
        self.config = config
        self.link = link
        self._outbox = Outbox(link) if link is not None else None
        self._warned: set[str] = set()
        self._told_step = False
        self._told_error: BaseException | None = None

    @property
    def supervised(self) -> bool:
        return self.config is not None

    def tell(self, news: WorkerNews) -> None:
        """Sends the supervisor a message. Never raises: the training does not depend on being heard."""
        if self._outbox is not None:
            self._outbox.tell(news)

    def flush(self) -> None:
        """This process is about to end: tries once more to send the messages that wait."""
        if self._outbox is not None:
            self._outbox.flush()

    def say(self, line: str) -> None:
        """One line to the person, where no supervisor does the talking."""
        if not self.supervised:
            with contextlib.suppress(OSError, ValueError):
                print(f"resilient: {line}", file=sys.stderr, flush=True)

    def warn(self, text: str) -> None:
        """Tells something once."""
        if text in self._warned:
            return
        self._warned.add(text)
        self.tell(Warned(text))
        self.say(f"warning: {text}")

    def remark(self, text: str) -> None:
        """Tells a remark, once."""
        if text not in self._warned:
            self._warned.add(text)
            self.tell(Remarked(text))
            self.say(text)

    def tell_step(self, step: int) -> None:
        """Tells that the first step of this process is complete; the heartbeat says the rest."""
        if not self._told_step:
            self._told_step = True
            self.tell(FirstStep(step))

    def expect_step(self) -> None:
        """A state was read: it is on trial until the next step is complete, which is told again."""
        self._told_step = False

    def tell_incident(
        self, error: BaseException, kind: str, step: int, phase: str, loss_finite: bool | None = None
    ) -> None:
        """Tells, once, which exception leaves the training, or the script, and where."""
        if error is self._told_error:
            return
        self._told_error = error
        lines = traceback.format_exception(type(error), error, error.__traceback__)
        self.tell(
            ExceptionLeft(
                step=step,
                kind=kind,
                exception=type(error).__name__,
                # Head and tail: an exception's text begins with its reason, a traceback ends with it.
                message=shortened(text_of(error), _MESSAGE_CHARACTERS),
                traceback=shortened("".join(lines), _TRACEBACK_CHARACTERS),
                phase=phase,
                loss_finite=loss_finite,
            )
        )

    def tell_failed_save(self, step: int, error: str) -> None:
        """Tells, loudly, that a step could not be saved."""
        self.tell(SaveFailed(step, error))
        self.say(f"saving step {step} FAILED: {error}; earlier checkpoints are intact, training goes on")

    @contextlib.contextmanager
    def telling_mismatch(self) -> Iterator[None]:
        """Tells where the script no longer fits its checkpoints."""
        try:
            yield
        except MismatchError as error:
            self.tell(ScriptMismatch(str(error.args[0]), error.hint))
            raise

    @contextlib.contextmanager
    def telling_errors(self) -> Iterator[None]:
        """Tells the supervisor of errors that end the run, or hold it up.

        Raises SystemExit where something is in the way of a file of ours: another attempt would find it too.
        """
        try:
            yield
        except StorageError as error:
            if not error.in_the_way or not self.supervised:
                raise
            self.tell(UsageRefused(str(error.args[0]), error.hint))
            raise SystemExit(EXIT_USAGE) from error
        except (UsageError, BusyError) as error:
            kind = PlaceBusy if isinstance(error, BusyError) else UsageRefused
            self.tell(kind(str(error.args[0]), error.hint))
            raise
