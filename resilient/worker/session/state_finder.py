"""Finding the state that a run resumes from: in the memory of the last attempt, or on disk."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace

from resilient.config import Origin
from resilient.errors import (
    EXIT_UNUSABLE,
    CorruptError,
    LinkError,
    LostError,
    MirrorError,
    MismatchError,
    ShunnedError,
    UnusableError,
)
from resilient.run import presence
from resilient.state.snapshot import Progress, Recovered, TensorValue, decode_extra
from resilient.store.entry import Entry, skipped
from resilient.store.store import Store
from resilient.wire.messages import (
    BatchSkipped,
    BeganAnew,
    CheckpointsUnusable,
    KeepsIn,
    NothingOlder,
    Resumed,
    ResumeRecorded,
    Resuming,
)
from resilient.worker.process.shared_pages import SharedPages, recover_from
from resilient.worker.session.open_places import OpenPlace, OpenPlaces
from resilient.worker.session.voice import Voice

_RECORD_S = 10.0


class StateFinder:
    """Reads the newest valid state, and announces it before: reading it may be the end of the process."""

    def __init__(self, voice: Voice, places: OpenPlaces, shared: SharedPages) -> None:
        self._voice = voice
        self._config = voice.config
        self._places = places
        self._shared = shared

    def recover(self, place: OpenPlace, floor: int = 0) -> Recovered | None:
        """Reads the newest valid state of a place; None when there is none of step ``floor`` or later.

        Raises SystemExit under a supervisor, UnusableError without one, when checkpoints exist and none can
        be used: a script that catches Exception must not go on from zero.
        """
        try:
            # What is in memory is as new as all that is on disk: it is asked for first, and once.
            with self._voice.telling_errors():
                recovered = (self._recover_from_memory() if not floor else None) or self._recover(
                    place.store, floor
                )
                if recovered is None and not floor:
                    self._places.demand_fresh(place)
        except ShunnedError as error:
            if floor:
                return None
            self._voice.tell(NothingOlder(str(error)))
            raise SystemExit(1) from error
        except UnusableError as error:
            self._demand_accepted(error)
            recovered = None
        self._voice.tell(KeepsIn(str(place.root)))
        if recovered is not None:
            self._voice.expect_step()
            return self._leave_out(recovered)
        if not floor:
            self._voice.tell(BeganAnew())
        return None

    def _demand_accepted(self, error: UnusableError) -> None:
        """Raises where the user has not accepted that the run begins from zero."""
        if isinstance(error, LostError) and self._config is not None and self._config.may_begin_anew:
            self._voice.warn(f"{error.args[0]}; it begins from step 1, as was accepted (--accept-rollback)")
            return
        error.hint = presence.hint_for(error, supervised=self._voice.supervised)
        self._voice.tell(CheckpointsUnusable(str(error.args[0]), error.hint))
        if self._voice.supervised:
            raise SystemExit(EXIT_UNUSABLE) from error
        raise error

    def _leave_out(self, recovered: Recovered) -> Recovered:
        """A batch that the training fails on counts as a step that changes nothing, if that was decided."""
        progress = recovered.progress
        skipped = self._config.origin.skipped if self._config else ()
        inside = not progress.call_finished and (progress.epoch_closed or not progress.at_epoch_end)
        if progress.step + 1 not in skipped or not inside:
            return recovered
        self._voice.tell(BatchSkipped(progress.step + 1))
        self._voice.warn(f"the batch of step {progress.step + 1} is left out (--on-poison skip-batch)")
        further = replace(progress, call_step=progress.call_step + 1, epoch_closed=False)
        return replace(recovered, progress=further)

    def _recover_from_memory(self) -> Recovered | None:
        """What the mirror of the last attempt holds; None when there is none that can be used."""
        if self._shared.mirror is None:
            return None
        try:
            slot = self._shared.mirror.newest()
            self._announce(slot.step if slot is not None else 0, "memory")
            recovered = recover_from(self._shared.mirror)
        except (MirrorError, CorruptError) as error:
            self._voice.warn(f"the memory of the last attempt cannot be used: {error}")
            return None
        if recovered is not None:
            self._tell_resumed(recovered.progress, recovered.source)
        return recovered

    def _announce(self, step: int, source: str) -> None:
        """A state is about to be read: should that be the end of us all, it has been written down."""
        if self._voice.link is None:
            return
        self._voice.tell(Resuming(step, source))
        with contextlib.suppress(LinkError):
            self._voice.link.wait(ResumeRecorded, _RECORD_S)

    def _tell_resumed(self, progress: Progress, source: str) -> None:
        where = f"resumed at step {progress.step} (epoch {progress.epoch}) from {source}"
        self._voice.tell(Resumed(progress.step, progress.epoch, source, where))

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

        origin = self._config.origin if self._config else Origin()

        def allowed(entry: Entry) -> bool:
            return entry.step >= floor and origin.allows(entry.step, entry.info)

        loaded = store.load_newest(make_sink, allowed)
        if loaded is None:
            return None
        for line in skipped(loaded.failures, str(store.directory)):
            self._voice.warn(line)
        document, progress = decode_extra(loaded.extra)
        if document.get("adopted"):
            self._voice.warn(
                f"stock MindSpore has saved {document['adopted']}, and no random streams with it: "
                "what the script draws at random begins anew from its seeds"
            )
        self._tell_resumed(progress, loaded.entry.name)
        return Recovered(tensors, document, progress, str(loaded.entry.path))


def demand_steps(voice: Voice, recovered: Recovered, steps_per_epoch: int) -> None:
    """Raises MismatchError when an epoch has another number of steps than when the state was saved."""
    before = recovered.progress.steps_per_epoch
    if before == steps_per_epoch:
        return
    with voice.telling_mismatch():
        raise MismatchError(
            f"the dataset has {steps_per_epoch} steps per epoch, the checkpoint was made with {before}",
            hint="restore the data and the batch size as they were, or start anew with --fresh --archive",
        )
