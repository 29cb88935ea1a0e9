"""This process's part in a run: where its checkpoints go, what was recovered, and whom to tell.

Under ``resilient-run`` there is one session from before the script's first line; the supervisor sent its
configuration and hears what happens over the link. Without a supervisor a session begins with the monitor or
the custom loop that needs it, and tells the person on stderr.
"""

from __future__ import annotations

import contextlib
import functools
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from resilient.config import KeepPolicy, Origin, WorkerConfig
from resilient.errors import (
    EXIT_UNUSABLE,
    EXIT_USAGE,
    BusyError,
    CorruptError,
    LinkError,
    LostError,
    MirrorError,
    MismatchError,
    ShunnedError,
    StorageError,
    UnusableError,
    UsageError,
)
from resilient.host.world import World
from resilient.policy.settings import Settings
from resilient.run import presence
from resilient.saving import saver_process
from resilient.saving.in_process import Committer, InlineSaver, Saved, Saver, ThreadSaver
from resilient.state.snapshot import Progress, Recovered, TensorValue, decode_extra
from resilient.store.entry import Entry, skipped
from resilient.store.store import Store
from resilient.wire.link import Link
from resilient.wire.messages import (
    BatchSkipped,
    BeganAnew,
    CheckpointSaved,
    CheckpointsUnusable,
    ExceptionLeft,
    FirstStep,
    KeepsIn,
    NothingOlder,
    PlaceBusy,
    PlaceOpened,
    Remarked,
    Resumed,
    ResumeRecorded,
    Resuming,
    SaveFailed,
    ScriptMismatch,
    UsageRefused,
    Warned,
    WorkerNews,
)
from resilient.wire.outbox import Outbox
from resilient.wire.shorten import shortened, text_of
from resilient.worker.process.shared_pages import SharedPages, recover_from
from resilient.worker.session.open_places import OpenPlace, OpenPlaces

if TYPE_CHECKING:
    # It imports MindSpore, and a session begins before the script does.
    from resilient.state.side_state import SideState
    from resilient.worker.call.timeline import Timeline
    from resilient.worker.session.mirror_setup import MirrorSetup

_MESSAGE_CHARACTERS = 2_000
_TRACEBACK_CHARACTERS = 16_000
_RECORD_S = 10.0


class Session:
    """One process's part in a run. ``config`` and ``link`` are None without a supervisor."""

    def __init__(
        self,
        config: WorkerConfig | None = None,
        link: Link | None = None,
        world: World | None = None,
        shared: SharedPages | None = None,
    ) -> None:
        self.config = config
        self.world = world or World()
        self.place: OpenPlace | None = None
        self.timelines: dict[str, Timeline] = {}
        self.mirror_setup: MirrorSetup | None = None
        self.shared = shared or SharedPages()
        self.link = link
        self._outbox = Outbox(link) if link is not None else None
        self._places = OpenPlaces(config, self.world, self.warn, lambda: self.shared.mirror is not None)
        self._savers: dict[tuple[Path, str, KeepPolicy, str | None], Saver] = {}
        self._warned: set[str] = set()
        self.has_trained = False
        self.was_asked = False  # to save, whether or not that could be
        self._told_step = False
        self._told_error: BaseException | None = None

    @functools.cached_property
    def side_state(self) -> SideState:
        """What callbacks and other objects of this process hold. (It imports MindSpore.)"""
        from resilient.state.side_state import SideState

        return SideState(self.warn)

    @property
    def supervised(self) -> bool:
        return self.config is not None

    # Telling

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

    # The places

    def open(self, settings: Settings) -> OpenPlace:
        """Where these settings say that checkpoints go."""
        self.was_asked = True
        with self._telling_errors():
            place = self._places.open(settings)
        self.has_trained = True
        if place != self.place:
            self.place = place
            self.tell(PlaceOpened(str(place.root)))
        return place

    def lock_rank(self, place: OpenPlace) -> None:
        """This process commits the rank's checkpoints, from now on."""
        self._places.lock_rank(place.root)

    def unlock_rank(self) -> None:
        """The saver is about to commit them."""
        self._places.unlock_rank()

    def close(self, place: OpenPlace | None = None) -> None:
        """Lets go of a place; of all that are open, where none is named."""
        for root in self._places.close(place):
            self._savers = {wanted: saver for wanted, saver in self._savers.items() if wanted[0] != root}
        self.place = None

    # Recovering

    def recover(self, place: OpenPlace, floor: int = 0) -> Recovered | None:
        """Reads the newest valid state of a place; None when there is none of step ``floor`` or later.

        Raises SystemExit under a supervisor, UnusableError without one, when checkpoints exist and none can
        be used: a script that catches Exception must not go on from zero.
        """
        try:
            # What is in memory is as new as all that is on disk: it is asked for first, and once.
            with self._telling_errors():
                recovered = (self._recover_from_memory() if not floor else None) or self._recover(
                    place.store, floor
                )
                if recovered is None and not floor:
                    self._places.demand_fresh(place)
        except ShunnedError as error:
            if floor:
                return None
            self.tell(NothingOlder(str(error)))
            raise SystemExit(1) from error
        except UnusableError as error:
            self._demand_accepted(error)
            recovered = None
        self.tell(KeepsIn(str(place.root)))
        if recovered is not None:
            # It is on trial until the next step is complete.
            self._told_step = False
            return self._leave_out(recovered)
        if not floor:
            self.tell(BeganAnew())
        return None

    def _demand_accepted(self, error: UnusableError) -> None:
        """Raises where the user has not accepted that the run begins from zero."""
        if isinstance(error, LostError) and self.config is not None and self.config.may_begin_anew:
            self.warn(f"{error.args[0]}; it begins from step 1, as was accepted (--accept-rollback)")
            return
        error.hint = presence.hint_for(error, supervised=self.supervised)
        self.tell(CheckpointsUnusable(str(error.args[0]), error.hint))
        if self.supervised:
            raise SystemExit(EXIT_UNUSABLE) from error
        raise error

    def _leave_out(self, recovered: Recovered) -> Recovered:
        """A batch that the training fails on counts as a step that changes nothing, if that was decided."""
        progress = recovered.progress
        skipped = self.config.origin.skipped if self.config else ()
        inside = not progress.call_finished and (progress.epoch_closed or not progress.at_epoch_end)
        if progress.step + 1 not in skipped or not inside:
            return recovered
        self.tell(BatchSkipped(progress.step + 1))
        self.warn(f"the batch of step {progress.step + 1} is left out (--on-poison skip-batch)")
        further = replace(progress, call_step=progress.call_step + 1, epoch_closed=False)
        return replace(recovered, progress=further)

    def _recover_from_memory(self) -> Recovered | None:
        """What the mirror of the last attempt holds; None when there is none that can be used."""
        if self.shared.mirror is None:
            return None
        try:
            slot = self.shared.mirror.newest()
            self._announce(slot.step if slot is not None else 0, "memory")
            recovered = recover_from(self.shared.mirror)
        except (MirrorError, CorruptError) as error:
            self.warn(f"the memory of the last attempt cannot be used: {error}")
            return None
        if recovered is not None:
            self._tell_resumed(recovered.progress, recovered.source)
        return recovered

    def _announce(self, step: int, source: str) -> None:
        """A state is about to be read: should that be the end of us all, it has been written down."""
        if self.link is None:
            return
        self.tell(Resuming(step, source))
        with contextlib.suppress(LinkError):
            self.link.wait(ResumeRecorded, _RECORD_S)

    def _tell_resumed(self, progress: Progress, source: str) -> None:
        where = f"resumed at step {progress.step} (epoch {progress.epoch}) from {source}"
        self.tell(Resumed(progress.step, progress.epoch, source, where))

    def _recover(self, store: Store, floor: int) -> Recovered | None:
        tensors: dict[tuple[int, str], TensorValue] = {}

        def make_sink(entry: Entry) -> Callable[..., memoryview]:
            tensors.clear()
            self._announce(entry.step, entry.name)

            def sink(name: str, dtype: str, dims: tuple[int, ...], size: int, section: int) -> memoryview:
                data = memoryview(bytearray(size))
                tensors[section, name] = TensorValue(dtype, dims, data)
                return data

            return sink

        origin = self.config.origin if self.config else Origin()

        def allowed(entry: Entry) -> bool:
            return entry.step >= floor and origin.allows(entry.step, entry.info)

        loaded = store.load_newest(make_sink, allowed)
        if loaded is None:
            return None
        for line in skipped(loaded.failures, str(store.directory)):
            self.warn(line)
        document, progress = decode_extra(loaded.extra)
        if document.get("adopted"):
            self.warn(
                f"stock MindSpore has saved {document['adopted']}, and no random streams with it: "
                "what the script draws at random begins anew from its seeds"
            )
        self._tell_resumed(progress, loaded.entry.name)
        return Recovered(tensors, document, progress, str(loaded.entry.path))

    def demand_steps(self, recovered: Recovered, steps_per_epoch: int) -> None:
        """Raises MismatchError when an epoch has another number of steps than when the state was saved."""
        before = recovered.progress.steps_per_epoch
        if before == steps_per_epoch:
            return
        with self.telling_mismatch():
            raise MismatchError(
                f"the dataset has {steps_per_epoch} steps per epoch, the checkpoint was made with {before}",
                hint="restore the data and the batch size as they were, or start anew with --fresh --archive",
            )

    @contextlib.contextmanager
    def telling_mismatch(self) -> Iterator[None]:
        """Tells where the script no longer fits its checkpoints."""
        try:
            yield
        except MismatchError as error:
            self.tell(ScriptMismatch(str(error.args[0]), error.hint))
            raise

    @contextlib.contextmanager
    def _telling_errors(self) -> Iterator[None]:
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

    # Saving

    def saver(self, settings: Settings) -> Saver:
        """A saver for the store of their place, as these settings want it."""
        place = self.open(settings)
        # Of what one saver was given the newest waits: who calls his files otherwise has one of his own.
        wanted = place.root, settings.prefix, settings.keep, settings.asynchronous
        if wanted not in self._savers:
            self._savers[wanted] = self._make_saver(settings, place)
        return self._savers[wanted]

    def inline_saver(self, settings: Settings, place: OpenPlace) -> Saver:
        """A saver that makes the training wait, whatever the settings say."""
        return InlineSaver(self._committer(settings, place).commit, self._report)

    def _make_saver(self, settings: Settings, place: OpenPlace) -> Saver:
        committer = self._committer(settings, place)
        if settings.asynchronous in (None, "mirror"):
            return InlineSaver(committer.commit, self._report)
        if settings.asynchronous == "process":
            return ThreadSaver(saver_process.ProcessCommit(committer, place.run_id), self._report)
        return ThreadSaver(committer.commit, self._report)

    def _committer(self, settings: Settings, place: OpenPlace) -> Committer:
        rank = self.config.rank if self.config else 0
        return Committer(place.store, place.root, rank, settings.keep, place.sealing, self.world)

    def tell_failed_save(self, step: int, error: str) -> None:
        """Tells, loudly, that a step could not be saved."""
        self.tell(SaveFailed(step, error))
        self.say(f"saving step {step} FAILED: {error}; earlier checkpoints are intact, training goes on")

    def _report(self, saved: Saved) -> None:
        """Tells what became of a snapshot. Runs on whatever thread has committed it."""
        step = saved.snapshot.step
        if saved.path is None:
            self.tell_failed_save(step, saved.error)
            return
        self._places.acknowledge(saved.path)
        self.tell(
            CheckpointSaved(
                step=step,
                epoch=saved.snapshot.epoch,
                file=saved.path.name,
                reason=saved.snapshot.reason,
                seconds=round(saved.seconds, 3),
                directory=str(saved.path.parent),
                generation=saved.generation,
            )
        )
        if saved.snapshot.failure:
            self.say(f"saved step {step} ({saved.snapshot.reason}) to {saved.path}")
        for remark in saved.remarks:
            self.warn(remark)


_current: Session | None = None


def current() -> Session:
    """The session of this process; one without a supervisor where nobody began another."""
    global _current
    if _current is None:
        _current = Session()
    return _current


def begin(session: Session) -> Session:
    """Makes this the session of the process."""
    global _current
    _current = session
    return session
